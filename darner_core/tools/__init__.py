"""What looks at a data directory, or mends it, while no server runs on it: check, repair, dump; and follow.

It may import `storage` and `config`. It must not know queues in memory, or clients.
"""
