"""Every way in: one function that takes a job, and the doors that call it."""
