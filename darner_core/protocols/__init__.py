"""Bytes to operations, and values back to bytes: one package for each protocol.

A protocol is a reader, a table of commands, and a way to write replies and errors. It may import `operations`, what
engines promise, `access` and `config`. It must not know sockets, the server, or how an engine stores anything.
"""
