"""``3ox shell``: a prompt for questions and commands, with jobs in the background."""
