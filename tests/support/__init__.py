"""What tests have in common: servers and clients, data directories, models. It holds no tests."""
