"""The atomic broker: one server-side script per transition, behind Dramatiq's public classes."""
