"""The command line ``3ox``: one module for each group of commands, loaded when its command is called."""
