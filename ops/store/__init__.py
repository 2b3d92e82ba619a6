"""The connection to Redis or Valkey, and the embedded server."""
