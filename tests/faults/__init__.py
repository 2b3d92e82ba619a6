"""Faults of workers, the store and the disk, and what the bridge does about them."""
