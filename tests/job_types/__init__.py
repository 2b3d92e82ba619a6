"""Job types: declarations, signatures, and any Dramatiq actor as a job."""
