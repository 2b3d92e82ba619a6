"""Outgoing HTTP: the environment's proxies and certificates, and the one client that uses them."""
