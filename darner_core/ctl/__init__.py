"""`darner ctl`: the tool with which a person looks after a running server, and what it shows.

Owns its command line, the client that it talks to servers with, and the form of what it prints. It is a client as any
other: it knows the memcache text protocol and nothing of the server behind it. It may import `config`, to read an
options file, and `tools`, for the commands that read a data directory. click and rich are an extra, and are imported
nowhere else; sockets here are blocking ones, without gevent.
"""
