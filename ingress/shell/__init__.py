"""``3ox shell``: questions and commands in a terminal of one's own, background jobs beside them."""
