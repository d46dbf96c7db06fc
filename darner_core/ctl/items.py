"""`peek`, `put` and `take`: the items of a queue, one at a time."""

import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO, Final

import click

from darner_core.ctl import names
from darner_core.ctl.client import PIECE_BYTES, Arriving, Client, PutOptions
from darner_core.ctl.context import DURATION, QUEUE, Context, figures_of
from darner_core.ctl.errors import CtlError, NothingThere, Refused
from darner_core.ctl.output import body_json, printable
from darner_core.showing import show

MAX_NUMBER: Final = 2**32 - 1
IN_MEMORY_BYTES: Final = 8 << 20  # what is read from a pipe is on disk beyond this, until it has been sent

RAW = click.option("--raw", is_flag=True, help="Write the body as it is, and nothing else.")


@click.command()
@click.argument("queue", type=QUEUE)
@RAW
@click.pass_obj
def peek(ctl: Context, queue: bytes, raw: bool) -> None:
    """Show the item at the head, and leave it there."""
    with ctl.connect() as client:
        item = client.peek(queue)
        if item is None:
            figures_of(client, queue)
            raise _none(queue)
        _write(ctl, item, raw)


@click.command()
@click.argument("queue", type=QUEUE)
@click.argument("body", required=False)
@click.option("-f", "--file", "path", type=click.Path(exists=True, dir_okay=False), help="The body is what is in FILE.")
@click.option("--lines", is_flag=True, help="Each line of the file, or of standard input, is an item.")
@click.option("--delay", type=DURATION, metavar="TIME", help="Nobody gets it before.")
@click.option("--pri", type=click.IntRange(0, MAX_NUMBER), metavar="N", help="0 goes first; the default is 1024.")
@click.option("--ttr", type=DURATION, metavar="TIME", help="How long a reader may keep it that asks for a deadline.")
@click.option("--ttl", type=DURATION, metavar="TIME", help="It is dropped if nobody has taken it by then.")
@click.option("--key", default="", metavar="TEXT", help="Only if the queue has no item with this key.")
@click.option(
    "--flags", type=click.IntRange(0, MAX_NUMBER), default=0, metavar="N", help="A number that comes with it."
)
@click.option("--sync", is_flag=True, help="Answer when it is safe from a loss of power.")
@click.pass_obj
def put(
    ctl: Context, queue: bytes, body: str | None, path: str | None, lines: bool, delay: int | None, pri: int | None,
    ttr: int | None, ttl: int | None, key: str, flags: int, sync: bool,
) -> None:  # fmt: skip
    """Put an item: BODY, what is in a file, or standard input."""
    if body is not None and (path is not None or lines):
        raise click.UsageError("BODY, or a file with --file or --lines, and not both")
    if lines and key:
        raise click.UsageError("--key is for one item, and --lines puts several")
    if ttl is not None and ttl < 1000:
        raise click.UsageError("--ttl is at least a second")
    expires_s = 0 if ttl is None else _expiry(ttl // 1000)
    options = PutOptions(delay, pri, ttr, os.fsencode(key), expires_s, flags, sync)
    if body is not None:
        with ctl.connect() as client:
            done = _put_all(client, queue, [os.fsencode(body)], options)
    elif lines:
        with _opened(path) as file, ctl.connect() as client:
            done = _put_all(client, queue, (line.rstrip(b"\r\n") for line in file), options)
    else:
        with _opened(path) as file, _seekable(file) as (whole, size), ctl.connect() as client:
            pieces = iter(lambda: whole.read(PIECE_BYTES), b"")
            done = _require_stored(client.put_pieces(queue, size, pieces, options), queue, options)
    if ctl.out.as_json:
        ctl.out.json({"queue": names.write(queue), "put": done})
    else:
        ctl.out.say(f"{names.write(queue)}: {done} {'item' if done == 1 else 'items'} put")


def _put_all(client: Client, queue: bytes, bodies: "Iterator[bytes] | list[bytes]", options: PutOptions) -> int:
    done = 0
    for one in bodies:
        try:
            _require_stored(client.put(queue, one, options), queue, options)
        except CtlError as error:
            if done:
                raise type(error)(f"{done} items were put; then {error}") from error
            raise
        done += 1
    return done


def _require_stored(is_stored: bool, queue: bytes, options: PutOptions) -> int:
    if is_stored:
        return 1
    shown = names.write(queue)
    if options.key:
        raise Refused(f"{shown} has an item with the key {show(options.key)}, or is full or paused")
    raise Refused(f"{shown} is full, paused, or takes no item of this size: darner ctl show {shown}")


def _expiry(seconds: int) -> int:
    """As the protocol has it: from a million on, a number is seconds since 1970."""
    import time

    return seconds if seconds < 1_000_000 else int(time.time()) + seconds


@contextmanager
def _opened(path: str | None) -> Iterator[BinaryIO]:
    if path is None:
        yield sys.stdin.buffer
        return
    with open(path, "rb") as file:
        yield file


@contextmanager
def _seekable(file: BinaryIO) -> Iterator[tuple[BinaryIO, int]]:
    """All of a file, and its size. What comes through a pipe is kept until its end has come."""
    if file.seekable():
        start = file.tell()
        size = file.seek(0, os.SEEK_END) - start
        file.seek(start)
        yield file, size
        return
    with tempfile.SpooledTemporaryFile(IN_MEMORY_BYTES) as kept:
        while piece := file.read(PIECE_BYTES):
            kept.write(piece)
        size = kept.tell()
        kept.seek(0)
        yield kept, size  # type: ignore[misc]


@click.command()
@click.argument("queue", type=QUEUE)
@click.option("-n", "--count", type=click.IntRange(0), default=1, show_default=True, metavar="N", help="0: all.")
@click.option("-w", "--wait", type=DURATION, default="0s", metavar="TIME", help="How long to wait for each item.")
@click.option(
    "--exec", "command", metavar="COMMAND", help="Run COMMAND for each item, which gets the body on its standard input."
    " The item is acknowledged if the command ends with 0, else it goes back."
)  # fmt: skip
@RAW
@click.pass_obj
def take(ctl: Context, queue: bytes, count: int, wait: int, command: str | None, raw: bool) -> None:
    """Take items and print them. An item is acknowledged when it has been written out; until then it is not lost."""
    words = _words(command)
    taken = 0
    with ctl.connect() as client:
        while not count or taken < count:
            item = client.open(queue, wait)
            if item is None:
                break
            if words:
                _run(client, item, words)
            else:
                _write(ctl, item, raw)
            client.close_item(queue)
            taken += 1
    if not taken:
        raise _none(queue)


def _words(command: str | None) -> list[str]:
    if command is None:
        return []
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise click.UsageError(f"--exec: {error}") from None
    if not words:
        raise click.UsageError("--exec needs a command")
    return words


def _run(client: Client, item: Arriving, words: list[str]) -> None:
    environment = {**os.environ, "DARNER_QUEUE": names.write(item.queue), "DARNER_ID": str(item.id)}
    with tempfile.TemporaryFile() as kept:
        for piece in item.pieces:
            kept.write(piece)
        kept.seek(0)
        try:
            status = subprocess.run(words, stdin=kept, env=environment, check=False).returncode
        except OSError as error:
            client.abort_item(item.queue)
            raise CtlError(f"cannot run {show(words[0])}: {error.strerror}; the item is back in its queue") from error
    if status:
        client.abort_item(item.queue)
        how = f"ended with {status}" if status > 0 else f"was killed by signal {-status}"
        raise CtlError(f"{show(words[0])} {how}; item {item.id} is back in its queue")


def _write(ctl: Context, item: Arriving, raw: bool) -> None:
    """Print the item. When this returns, it has been written out."""
    if raw:
        for piece in item.pieces:
            sys.stdout.buffer.write(piece)
    elif ctl.out.as_json:
        head = {"queue": names.write(item.queue), "id": item.id, "flags": item.flags, "bytes": item.size}
        ctl.out.json({**head, **body_json(item.body())})
    else:
        body = item.body()
        ctl.out.say(printable(body, len(body)))
    sys.stdout.flush()


def _none(queue: bytes) -> NothingThere:
    return NothingThere(f"nothing waits in {names.write(queue)}")


COMMANDS: Final = (peek, put, take)
