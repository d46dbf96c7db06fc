"""Who may come in and what they may do: users, passwords, rights, origins.

It imports nothing of ours but the errors and small helpers, and must not know sockets, queues or the configuration:
values are handed in.
"""
