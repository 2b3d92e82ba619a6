"""Settings: loading, the typed tables, and the one reader of a changed 3ox.toml."""
