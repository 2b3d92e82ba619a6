"""The station (``3ox serve``): claims files from the drop folder and submits each of them once."""
