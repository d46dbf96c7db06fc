"""The queues of this process, on its own disk.

It may import `storage` and the options of queues in `config`. It must not know clients, their requests or their rights.
"""
