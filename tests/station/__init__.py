"""The drop folder: real stations, real workers, real files."""
