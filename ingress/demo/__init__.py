"""``3ox demo``: a tour of all interfaces with a temporary bridge and a local Bot API server."""
