"""Where results go: one module for each kind of sink, each with one function ``deliver``."""
