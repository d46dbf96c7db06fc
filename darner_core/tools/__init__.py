"""The tools of an operator: check and repair a data directory, dump a queue of it, and follow a queue of a server.

They may import `storage` and `config`. They must not know queues in memory, or a server's clients.
"""
