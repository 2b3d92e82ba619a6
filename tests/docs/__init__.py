"""The documentation: its pages, guides and examples are executed."""
