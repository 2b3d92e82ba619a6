"""The station: takes files out of the drop folder and has each of them ingested once."""
