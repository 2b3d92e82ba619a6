"""The scheduler (``3ox clock``): starts the runs of schedules, and does the periodic work of a bridge."""
