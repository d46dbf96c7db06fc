"""Serving what a client has sent: its requests one after the other, in shares of the turn, and the errors among them.

A backlog is served up to a request that has to wait for something, or to the end of the client's share. What has to be
waited for then is a Task, which the client's greenlet runs, see `client_greenlet`. The tasks that no command asks for
are here. How a request came, and how its reply goes out, is not known here.

Names that begin with wait_ may switch greenlets; nothing else here does.
"""

import logging
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from darner_core import NAME
from darner_core.errors import DamagedError, RequestError, ServerError, StorageError
from darner_core.operations.client import HangUp
from darner_core.protocols.contract import Request
from darner_core.repeated import BY_TEXT
from darner_core.server.shares import SHARE_S
from darner_core.server.states import Ending, State
from darner_core.showing import show

if TYPE_CHECKING:
    from darner_core.server.client_greenlet import ClientGreenlet
    from darner_core.server.connection import Connection

log = logging.getLogger(NAME)

# How many bytes of replies a client may cause before it has to take them, while pipeline_memory_bytes are exceeded.
SCARCE_REPLY_BYTES = 4 << 10

# Replies up to this size are not counted towards max_reply_bytes: the shortest requests that one read can hold cause
# 340 KiB of them.
SMALL_REPLY_BYTES = 32

# How many requests are served between two looks at the clock, each of which costs a fortieth of a request. Where
# requests are received whole, a single one may be thousands of items.
LOOK_EVERY = 64
LOOK_EVERY_WHOLE = 1

# Requests that have been read and not been served.
Backlog = Iterator[tuple[Request, bytes | None]]

# What a request has to wait for; returns its reply.
Task = Callable[["ClientGreenlet"], bytes]


def serve_backlog(client: "Connection", backlog: Backlog) -> Task | None:
    """Serve `backlog` up to a request that has to wait, or to the end of the client's share. Returns what has to be
    done then, or None."""
    replies, session, inbox, outbox = client.replies, client.session, client.inbox, client.outbox
    task: Task | None = None
    reply_bytes = 0
    most_reply_bytes = SCARCE_REPLY_BYTES  # the real limit is no less; it is looked up when this is exceeded
    look_every = left = LOOK_EVERY_WHOLE if inbox.reads_whole else LOOK_EVERY
    while client.ending is None:
        request = None
        try:
            for request, body in backlog:
                reply = request.run(request, body, session)
                if reply.__class__ is not bytes:
                    task = reply
                    break
                if reply:
                    replies.append(reply)
                    if len(reply) > SMALL_REPLY_BYTES:
                        reply_bytes += len(reply)
                        if reply_bytes > most_reply_bytes:
                            most_reply_bytes = reply_limit(client)
                            if reply_bytes > most_reply_bytes:
                                task = wait_taken
                                break
                left -= 1
                if not left:
                    if is_share_over(client):
                        task = wait_share
                        break
                    left = look_every
            else:
                reader = inbox.reader
                if reader.in_pieces or inbox.piece_bytes:
                    inbox.account(client)
                if reader.error is not None:
                    answer_error(client, reader.error)
                elif reader.large is not None:
                    task = wait_large
            break
        except Exception as error:
            answer_failure(client, request, error)
    client.backlog = backlog
    if reply_bytes:
        client.pipeline_memory.turn_bytes += reply_bytes
    if task is not None and inbox.piece_bytes:
        inbox.account(client)
    if task is not None or client.ending is not None or outbox.held or outbox.unsent or session.needs_sync:
        client.be_special()
    elif replies:
        client.turn.served.append(client)
    return task


def serve_single(client: "Connection", request: Request) -> None:
    """Serve the only request that has come, as the turn serves one that is on a line."""
    try:
        reply = request.run(request, None, client.session)
    except Exception as error:
        client.failed(request, error)
        return
    if reply.__class__ is not bytes:
        client.start_task(reply)
        return
    if reply:
        client.replies.append(reply)
        if len(reply) > SMALL_REPLY_BYTES:
            client.pipeline_memory.turn_bytes += len(reply)
        client.turn.served.append(client)


def reply_limit(client: "Connection") -> int:
    """The client takes its replies before it causes more bytes than this."""
    return SCARCE_REPLY_BYTES if client.pipeline_memory.scarce else client.host.config.max_reply_bytes


# -- shares, see `shares`


def serve_in_shares(client: "Connection", backlog: Backlog) -> Task | None:
    """As `serve_backlog`, if it is not the others' turn."""
    if is_share_over(client):
        client.backlog = backlog
        return wait_first_share
    return serve_backlog(client, backlog)


def is_share_over(client: "Connection") -> bool:
    """Whether others are to be served first. A client that has waited for something has waited for them, too."""
    shares = client.turn.shares
    if not client.share_ends:
        client.share_ends = shares.ends()
    return shares.clock() >= client.share_ends and not client.host.stopping


def wait_share(greenlet: "ClientGreenlet", asks_anew: bool = False) -> bytes:
    """Let the others have their shares; then begin another."""
    client = greenlet.client
    client.turn.shares.join(client, asks_anew)
    greenlet.wait_in(State.IN_SHARES)
    client.share_ends = client.turn.shares.clock() + SHARE_S
    return b""


def wait_first_share(greenlet: "ClientGreenlet") -> bytes:
    """The first share ends with the first look at the clock: nobody knows yet whether the client has sent one request,
    or thousands."""
    wait_share(greenlet, asks_anew=True)
    greenlet.client.share_ends = greenlet.client.turn.shares.clock()
    return b""


# The tasks that do nothing but wait for a share.
SHARES = (wait_share, wait_first_share)

# -- other tasks that no command asks for


def wait_taken(greenlet: "ClientGreenlet") -> bytes:
    """Let the client take the replies it has caused before it causes more."""
    greenlet.wait_sent()
    return b""


def wait_large(greenlet: "ClientGreenlet") -> bytes:
    """Receive the large item that the reader has come upon, and go on behind it."""
    client, reader = greenlet.client, greenlet.client.inbox.reader
    request = reader.large
    assert request is not None
    if reader.error is not None:  # one that was handed over has not been judged yet
        raise reader.error
    try:
        return client.receive_large(request, greenlet)
    except (ServerError, StorageError) as error:
        if not request.noreply:
            raise
        if isinstance(error, StorageError):
            log.error("%s", error, extra=BY_TEXT)
        return b""
    finally:
        reader.end_body()
        if client.state is not State.GONE and client.ending is None:
            client.backlog = reader.requests(b"")


# -- requests that fail


def answer_failure(client: "Connection", request: Request | None, error: Exception) -> None:
    """`request` has raised `error`; None: a task has, or the reader."""
    if isinstance(error, (RequestError, StorageError)) and request is not None:
        if not request.noreply or (isinstance(error, RequestError) and error.hangs_up):
            answer_error(client, error)
    elif isinstance(error, HangUp):
        client.close(Ending.AT_ONCE)
    else:
        log.error("a request failed", exc_info=error)
        client.close(Ending.LINGERS)


def answer_error(client: "Connection", error: RequestError | StorageError) -> None:
    """Answer with an error, and hang up if the error says so."""
    if isinstance(error, StorageError):
        if not isinstance(error, DamagedError):  # which its queue has told already
            log.error("%s", error, extra=BY_TEXT)
        error = ServerError(str(error))
    else:
        log.debug("refused: %s: %s", client.session.origin, show(str(error)))
    if client.outbox.mid_reply:
        client.close(Ending.AT_ONCE)
        return
    client.outbox.refuse(error)
    if error.hangs_up:
        client.close(Ending.LINGERS)
