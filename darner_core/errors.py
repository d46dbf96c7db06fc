"""Everything that can go wrong on purpose, as one tree.

    DarnerError
    +-- StartError           the server cannot start: one line on stderr, exit status 1
    |   +-- ConfigError      an option that is unknown or has a bad value
    |   +-- DataDirError     a data directory that is in use, unwritable or of another format
    +-- StorageError         the disk refused a read or a write while the server runs
    |   +-- DamagedError     a queue that cannot be read, and will not be until it is repaired or deleted
    +-- RequestError         answered to the client that caused it; knows its reply
        +-- MalformedRequest ERROR ...         not a request of this protocol; hangs up
        +-- ClientError      CLIENT_ERROR ...  a request that may not be made now; hangs up
        |   +-- Incomplete   CLIENT_ERROR ...  the rest of a request did not come in time; hangs up
        |   +-- Unsupported  CLIENT_ERROR ...  known from memcached, but not here; the connection goes on
        +-- ServerError      SERVER_ERROR ...  the server cannot do it; the connection goes on
            +-- Unavailable  SERVER_ERROR ...  not done now, or not for this client; hangs up

The server hangs up where it cannot trust the bytes that follow: after ERROR and CLIENT_ERROR, unless it knows that
nothing follows. It also hangs up where the client should ask another server.
"""


class DarnerError(Exception):
    """The base of all errors that are raised on purpose. str() is one line for a person."""


class StartError(DarnerError):
    pass


class ConfigError(StartError):
    pass


class DataDirError(StartError):
    pass


class StorageError(DarnerError):
    pass


class DamagedError(StorageError):
    pass


class RequestError(DarnerError):
    """An error that is the reply to the client. The message must be one line."""

    prefix = "ERROR"
    hangs_up = True

    @property
    def reply(self) -> bytes:
        return f"{self.prefix} {self}\r\n".encode("utf-8", "backslashreplace")


class MalformedRequest(RequestError):
    pass


class ClientError(RequestError):
    prefix = "CLIENT_ERROR"


class Incomplete(ClientError):
    pass


class Unsupported(ClientError):
    """Not a SERVER_ERROR, because libmemcached stops asking a server for a while after one."""

    hangs_up = False


class ServerError(RequestError):
    prefix = "SERVER_ERROR"
    hangs_up = False


class Unavailable(ServerError):
    hangs_up = True
