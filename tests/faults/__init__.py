"""Faults of workers that only their host's warden can see to."""
