"""Streams of bytes between a waiting caller and its job: stdin one way, stdout and stderr the other."""
