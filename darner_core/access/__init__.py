"""Who may come in and what they may do: users, passwords, rights, origins.

It imports nothing of ours but the errors, and must not know sockets or queues.
"""
