"""The structure of the product, computed from its sources; ``python -m tests.structure`` prints it."""
