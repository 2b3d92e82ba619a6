"""The clock: which runs of which schedule are due, and what a bridge does periodically."""
