"""Programs that run the server with a fault, or in strange surroundings. Tests start them in place of darner.py."""
