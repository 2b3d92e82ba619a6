"""A workspace of an earlier version under this one."""
