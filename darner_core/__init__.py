"""Darner: a durable message-queue server that speaks the memcache text protocol.

    main            options -> the server or a tool -> exit status
    server/         the event loop, sockets, clients
    protocols/      bytes to operations, and values back to bytes
    operations/     what a client can ask for, in no protocol's words
    engines/        what every engine of queues promises; in local/, the queues of this process
    storage/        bytes on disk
    access/         users, passwords, rights
    config/         options, and where each was set
    tools/          check, repair, dump

docs/architecture.md has the pictures, and says which package may import which.
"""

NAME = "darner"
VERSION = "1.0.0"
