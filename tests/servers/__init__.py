"""The server with a fault or in strange surroundings: programs that are run in place of darner.py."""
