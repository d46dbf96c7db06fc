"""The states of a client's connection, the moves between them, and how it may end: one table.

Whatever a connection does is allowed or not by where it stands here. A test walks real clients through every move.
"""

from enum import Enum


class State(Enum):
    """What the client's greenlet is doing, and with that, who reads the client."""

    BUSY = "the greenlet runs, or waits for a thread or a round of the loop; nobody reads"
    READ = "the greenlet has nothing to do; the loop reads and serves the client"
    PAUSED = "the greenlet has nothing to do; nobody reads before the client has its replies"
    IN_LINE = "the greenlet waits for an item or for a login; the loop reads what is sent ahead"
    IN_BODY = "the greenlet waits for more of a large item; the loop tells it when it has come"
    SENDING = "the greenlet waits until the client has taken its replies; nobody reads"
    IN_SHARES = "the greenlet waits for its share of the turn; nobody reads"
    LINGERING = "all is said; the greenlet reads what still comes and drops it"
    GONE = "the client has gone; the greenlet ends as soon as it runs, and nothing touches the socket any more"


_WAITS = {State.READ, State.PAUSED, State.IN_LINE, State.IN_BODY, State.SENDING, State.IN_SHARES}

# From which state a connection may come into which. A wait begins and ends in BUSY; a client may go at any moment.
MOVES: dict[State, set[State]] = {
    State.BUSY: (_WAITS - {State.READ}) | {State.LINGERING, State.GONE},
    State.READ: {State.PAUSED, State.BUSY, State.GONE},
    State.PAUSED: {State.READ, State.BUSY, State.GONE},
    State.IN_LINE: {State.BUSY, State.GONE},
    State.IN_BODY: {State.BUSY, State.GONE},
    State.SENDING: {State.BUSY, State.GONE},
    State.IN_SHARES: {State.BUSY, State.GONE},
    State.LINGERING: {State.GONE},
    State.GONE: set(),
}

# The greenlet has nothing to do, and takes a task that it is given.
UNOCCUPIED = {State.READ, State.PAUSED}

# The greenlet is switched to if its client goes while it is in one of these; in the others something else wakes it.
WOKEN_AT_END = {State.READ, State.PAUSED, State.IN_BODY, State.IN_SHARES}


class Ending(Enum):
    """How the connection ends when all is sent. A connection that ends serves nothing more, so it is not in READ."""

    AT_ONCE = "close"
    LINGERS = "say that this was all, and let the client read it"


class ClientGone(Exception):
    """The client hung up while its greenlet was waiting for something."""
