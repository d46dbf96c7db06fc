"""The process while it serves: the event loop, sockets and clients.

Here a client is accepted, read, served and answered. Only this package knows the sockets of clients and the loop. It
may import all others but `tools`; it must not know what a queue does, nor what a request means.
"""
