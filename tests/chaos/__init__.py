"""``make chaos``: a real bridge under load, all of it killed and paused, every job accounted for."""
