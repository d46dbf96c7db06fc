"""Bytes to operations, and values back to bytes: one package for each protocol.

A protocol is a reader, a table of commands, and a way to write replies and errors, as `contract` says; `vocabularies`
lists them, so that another one costs a package and a line there. A protocol may import `operations`, what
engines promise, `access` and `config`. It must not know sockets, the server, or how an engine stores anything.
"""
