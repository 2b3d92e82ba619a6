"""The REST door, as a real process, over real HTTP."""
