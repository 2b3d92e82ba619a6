"""The offline language model: its server and a client of it."""
