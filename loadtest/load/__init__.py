"""The load generator: scenarios over many connections, and what it measures."""
