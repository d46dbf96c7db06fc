"""`move`, `import`, `export`, `backup` and `restore`: items and whole servers from one place to another."""

import os
import signal
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from fnmatch import fnmatchcase
from typing import IO, Any, Final

import click

from darner_core.ctl import kestrel_journal, names
from darner_core.ctl.address import read_address
from darner_core.ctl.context import DURATION, QUEUE, Context
from darner_core.ctl.errors import CtlError, NothingThere, Refused
from darner_core.ctl.item_files import RAW_HEAD, ItemFile, ItemsOf
from darner_core.ctl.kept import Kept
from darner_core.ctl.moving import mover, redis_lists
from darner_core.ctl.moving.addresses import open_source
from darner_core.ctl.moving.beanstalkd import Beanstalkd
from darner_core.ctl.moving.memcache import Lanes, log_in
from darner_core.ctl.moving.mover import Moved, Mover
from darner_core.ctl.moving.places import Listed, Source
from darner_core.ctl.moving.server import Server
from darner_core.ctl.moving.wire import Wire
from darner_core.ctl.output import count
from darner_core.ctl.resuming import SUFFIX, Progress
from darner_core.showing import show
from darner_core.tools.check import check
from darner_core.tools.progress import Progress as Lines
from darner_core.tools.restore import restore as copy_back

_JSON_STARTS: Final = (b"{", b" ", b"\t", b"\r", b"\n")

_batch = click.option(
    "--batch", type=click.IntRange(1, 10_000), default=mover.BATCH, show_default=True, metavar="N",
    help="Items that are on their way at a time. A kill leaves at most so many in both places.",
)  # fmt: skip
_patience = click.option(
    "--patience", type=DURATION, default="10s", show_default=True, metavar="TIME",
    help="How long to wait for room when the server refuses an item.",
)  # fmt: skip


# -- what all of them share


def _wire(ctl: Context, wait_s: float | None = None) -> Wire:
    """A connection to the server of --server. `wait_s`: how long an answer may take."""
    connected = ctl.address.connect(ctl.timeout_s, ctl.tls)
    if wait_s is not None:
        connected.settimeout(wait_s)
    wire = Wire(connected, str(ctl.address))
    login = ctl.login()
    if login is not None:
        log_in(wire, login.name, login.password)
    return wire


@contextmanager
def _until_asked_to_stop() -> Iterator[Callable[[], bool]]:
    """Ctrl-C, or SIGTERM, ends the move behind its batch, so that nothing is left in both places. The second one ends
    it at once."""
    stopped: list[int] = []

    def stop(number: int, _: Any) -> None:
        if stopped:
            raise KeyboardInterrupt
        stopped.append(number)

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(stopped)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _tell(ctl: Context, moved: Moved, kept: bool = False) -> bool:
    """Whether all went well."""
    if ctl.out.as_json:
        ctl.out.json({
            "queue": names.write(moved.name), "into": names.write(moved.into), "items": moved.items,
            "bytes": moved.bytes, "left": moved.left, "may_be_twice": moved.twice, "refused": moved.refused,
        })  # fmt: skip
    else:
        into = f" into {names.write(moved.into)}" if moved.into != moved.name else ""
        left = f"; left there: {moved.left}" if moved.left else ""
        ctl.out.say(f"{names.write(moved.name)}: {count(moved.items)} items{into}{left}")
    if moved.twice:
        ctl.out.note(f"{names.write(moved.name)}: {count(moved.twice)} items may have been taken by others, too")
    if moved.refused:
        ctl.out.note(f"{names.write(moved.name)}: refused: {moved.refused}")
    return not moved.refused


def _ended(well: bool, stopped: bool, again: str) -> None:
    if stopped:
        raise CtlError(f"interrupted; nothing is lost: {again}")
    if not well:
        raise CtlError("not everything was done: see above")


# -- move


@click.command()
@click.argument("sources", metavar="SOURCE...", nargs=-1, required=True)
@click.option("--to", "to", metavar="ADDRESS", help="The server that gets the items; by default that of --server.")
@click.option(
    "--queue", "-q", "patterns", multiple=True, metavar="PATTERN",
    help="Only queues whose names match, as mail.* does; may be given several times.",
)  # fmt: skip
@click.option("--into", type=QUEUE, metavar="QUEUE", help="Put the items into this queue; for one queue.")
@_batch
@_patience
@click.option("--keys", is_flag=True, help="Give each item a unique key, so that a kill leaves none twice; slower.")
@click.option(
    "--connections", type=click.IntRange(0, 1000), default=0, metavar="N",
    help="To Darner and Siberite: take over so many connections. By default as many as keep the order.",
)  # fmt: skip
@click.option("--buried", is_flag=True, help="From beanstalkd: take buried jobs, too; they are ready then.")
@click.option(
    "--pops", type=click.Choice([redis_lists.RIGHT, redis_lists.LEFT]), default=redis_lists.RIGHT, show_default=True,
    help="From Redis: the end at which workers take.",
)  # fmt: skip
@click.pass_obj
def move(
    ctl: Context,
    sources: Sequence[str],
    to: str | None,
    patterns: Sequence[str],
    into: bytes | None,
    batch: int,
    patience: int,
    keys: bool,
    connections: int,
    buried: bool,
    pops: str,
) -> None:
    """Take all items out of other servers and put them into this one.

    \b
    SOURCE is kestrel://HOST:22133, darner://…, siberite://…,
    beanstalkd://HOST:11300 or redis://HOST:6379/0. kestrel, darner and
    siberite also stand for a server of ours in that dialect.

    An item is confirmed there after it is stored here. Run it again after an
    interruption: it goes on.
    """
    if to is not None:
        try:
            ctl.address = read_address(to)
        except ValueError as error:
            raise click.UsageError(f"--to: {error}") from error
    well, stopped = True, False
    with _until_asked_to_stop() as stop:
        for url in sources:
            with closing(open_source(url, ctl.timeout_s, connections, buried, pops)) as source:
                listed = _chosen(source.queues(), patterns)
                if into is not None and len(listed) != 1:
                    raise click.UsageError(f"--into needs one queue, and these are {len(listed)}: --queue chooses")
                for one in listed:
                    if one.note:
                        ctl.out.note(f"{names.write(one.name)}: {one.note}")
                wanted = [one for one in listed if one.items]
                total = sum(one.items for one in wanted)
                with closing(Server(_wire(ctl))) as target, ctl.out.progress("moving", total) as bar:
                    for one in wanted:
                        if stop():
                            break
                        prefix = _key_prefix(url, one.name, source) if keys else b""
                        carrier = Mover(source, target, batch, patience / 1000, prefix, stop, bar.add)
                        well = _tell(ctl, carrier.move(one.name, into or b"")) and well
            stopped = stop()
            if stopped:
                break
    _ended(well, stopped, "the same command goes on")


def _key_prefix(url: str, queue: bytes, source: Source) -> bytes:
    """What makes the id of an item unique: its server and queue."""
    where = url.rpartition("@")[2].rpartition("//")[2].encode("utf-8", "surrogateescape") + b"\0" + queue
    instance = source.instance() if isinstance(source, Beanstalkd) else b""
    return b"moved-%08x-" % zlib.crc32(where + b"\0" + instance)


def _chosen(listed: Sequence[Listed], patterns: Sequence[str]) -> list[Listed]:
    if not patterns:
        return list(listed)
    chosen = [one for one in listed if any(fnmatchcase(names.write(one.name), pattern) for pattern in patterns)]
    if not chosen:
        there = ", ".join(names.write(one.name) for one in listed[:10]) or "none"
        raise NothingThere(f"no queue matches {', '.join(map(show, patterns))}; there are: {there}")
    return chosen


# -- import


@click.command("import")
@click.argument("paths", metavar="FILE...", nargs=-1, required=True, type=click.Path(exists=True))
@click.option("--queue", "-q", type=QUEUE, metavar="QUEUE", help="Put all items into this queue.")
@click.option("--state", metavar="FILE", help="Where to note how far it has come; by default beside each file.")
@click.option("--damaged", is_flag=True, help="Put what stands before a damage in a Kestrel journal.")
@_batch
@_patience
@click.pass_obj
def import_(
    ctl: Context,
    paths: Sequence[str],
    queue: bytes | None,
    state: str | None,
    damaged: bool,
    batch: int,
    patience: int,
) -> None:
    """Put the items of files: what export has written, and Kestrel's journals.

    Of a Kestrel server that has been stopped, name its queue_path, or the
    journals of some queues. What cannot be read is named. Run it again after an
    interruption: it goes on.
    """
    sources = list(_sources(ctl, paths, queue, state, damaged))
    if state is not None and len(sources) != 1:
        raise click.UsageError(f"--state is for one queue or file, and these are {len(sources)}")
    well = True
    with _until_asked_to_stop() as stop, closing(Server(_wire(ctl))) as target:
        for source, into, progress in sources:
            name = _name_of(source)
            with closing(source), ctl.out.progress("putting", None) as bar:
                carrier = Mover(source, target, batch, patience / 1000, b"", stop, bar.add)
                while not stop() and (listed := source.queues()):
                    queue = listed[0].name
                    moved = carrier.move(queue, into or queue if isinstance(source, ItemsOf) else into)
                    well = _tell(ctl, moved) and well
                    if moved.refused or not isinstance(source, ItemsOf):
                        break
                if progress.begun_at:
                    before = f"{count(progress.begun_at)} items were put before, as {show(progress.path)} says"
                    ctl.out.note(f"{names.write(name)}: {before}")
                for line in source.told():
                    ctl.out.note(line)
                    well = False
                if isinstance(source, kestrel_journal.KestrelJournal) and source.is_refused:
                    ctl.out.note(f"{names.write(name)}: nothing is put; --damaged puts what stands before the damage")
                if isinstance(source, kestrel_journal.KestrelJournal) and source.were_open:
                    ctl.out.note(
                        f"{names.write(source.name)}: {count(source.were_open)} items were open, and wait again"
                    )
        stopped = stop()
    _ended(well, stopped, "the same command goes on")


def _sources(
    ctl: Context, paths: Sequence[str], queue: bytes | None, state: str | None, damaged: bool
) -> Iterator[tuple[Source, bytes, Progress]]:
    """Each source, and the queue it goes into; b"": as it says itself. A queue of Kestrel's is taken once, however many
    of its journals are named."""
    done = set()
    for path in paths:
        if os.path.isdir(path):
            queues, unfinished = kestrel_journal.queues_in(path)
            for name in unfinished:
                ctl.out.note(
                    f"{show(os.path.join(path, name))}: was never finished, and Kestrel does not read it either"
                )
            folder = path
        elif path.endswith(SUFFIX):
            continue
        elif _is_item_file(path):
            progress = Progress(state or path + SUFFIX)
            yield ItemsOf(path, queue or b"", progress), queue or b"", progress
            continue
        else:
            folder, name = os.path.split(os.path.abspath(path))
            queues = [kestrel_journal.queue_of(name)]
        for name in queues:
            if (folder, name) in done or name.endswith(SUFFIX):
                continue
            done.add((folder, name))
            progress = Progress(state or os.path.join(folder, name + SUFFIX))
            yield kestrel_journal.KestrelJournal(folder, name, damaged, progress), queue or b"", progress


def _name_of(source: Source) -> bytes:
    return os.fsencode(source.path) if isinstance(source, ItemsOf) else source.queues()[0].name


def _is_item_file(path: str) -> bool:
    with open(path, "rb") as file:
        start = file.read(len(RAW_HEAD))
    return start == RAW_HEAD or start[:1] in _JSON_STARTS


# -- export


@click.command()
@click.argument("queue", type=QUEUE)
@click.option("--output", "-o", metavar="FILE", help="A new file; without it, standard output.")
@click.option("--raw", is_flag=True, help="Bodies as they are, each behind a line with its length; else lines of JSON.")
@click.option(
    "--from", "url", metavar="SOURCE", help="Another server, as for move; that of --server is read with one open item."
)
@click.option("--keep", is_flag=True, help="Only look: the items stay. Needs --data.")
@click.option("--data", metavar="DIR", help="The data directory to look into, whether its server runs or not.")
@_batch
@click.pass_obj
def export(
    ctl: Context,
    queue: bytes,
    output: str | None,
    raw: bool,
    url: str | None,
    keep: bool,
    data: str | None,
    batch: int,
) -> None:
    """Take the items of a queue out, into a file.

    An item leaves the queue when it is in the file and on the disk. With --keep
    all items stay, and what the server knows of their jobs is written, too.
    """
    if keep != (data is not None):
        raise click.UsageError("--keep and --data go together: looking needs the data directory")
    with ExitStack() as opened:
        file = _output(output, opened)
        source = opened.enter_context(closing(_exported(ctl, queue, url, data)))
        target = ItemFile(file, raw, syncs=output is not None)
        stop = opened.enter_context(_until_asked_to_stop())
        bar = opened.enter_context(ctl.out.progress("exporting", None))
        moved = Mover(source, target, batch, 0, b"", stop, bar.add).move(queue, queue)
        told, stopped = source.told(), stop()
    for line in told:
        ctl.out.note(line)
    left = f"; left there: {moved.left}" if moved.left and not keep else ""
    ctl.out.note(f"{names.write(queue)}: {count(moved.items)} items{left}")
    _ended(not told, stopped, "a further export, into another file, has the rest")


def _exported(ctl: Context, queue: bytes, url: str | None, data: str | None) -> Source:
    if data is not None:
        return Kept(data, queue)
    if url is not None:
        return open_source(url, ctl.timeout_s)
    return Lanes(lambda: _wire(ctl))


def _output(path: str | None, opened: ExitStack) -> IO[bytes]:
    if path is None:
        return sys.stdout.buffer
    try:
        return opened.enter_context(open(path, "xb"))
    except OSError as error:
        raise CtlError(f"cannot make {show(path)}: {error.strerror}") from error


# -- backup and restore


@click.command()
@click.argument("name")
@click.pass_obj
def backup(ctl: Context, name: str) -> None:
    """Save all queues of the running server, below its backup_dir, as NAME."""
    with closing(_wire(ctl, wait_s=24 * 3600)) as wire:
        wire.send(b"backup %b\r\n" % name.encode("utf-8", "surrogateescape"))
        line = wire.line()
    words = line.split(b" ")
    if words[0] != b"BACKUP" or len(words) != 4:
        raise Refused(f"{ctl.address} refuses: {show(line.partition(b' ')[2] or line)}")
    files, size = int(words[2]), int(words[3])
    if ctl.out.as_json:
        ctl.out.json({"backup": name, "files": files, "bytes": size})
    else:
        ctl.out.say(f"{name}: {count(files)} files, {count(size)} bytes")


@click.command()
@click.argument("folder", metavar="BACKUP", type=click.Path(exists=True, file_okay=False))
@click.option(
    "--data", required=True, metavar="DIR", help="An empty or a new directory: the server's data from now on."
)
@click.pass_obj
def restore(ctl: Context, folder: str, data: str) -> None:
    """Copy a backup into an empty data directory, and check it. No server may run in it."""
    with ctl.out.progress("copying", None) as bar:
        copied = copy_back(folder, data, lambda done, total: bar.at(done, f"copying {count(total)} bytes"))
    status = check(data, ctl.out.note, Lines(sys.stderr))
    if status:
        raise CtlError(f"{show(data)} is restored, and damaged: see above")
    if ctl.out.as_json:
        ctl.out.json({"data": data, "files": copied.files, "bytes": copied.bytes})
    else:
        ctl.out.say(f"{show(data)}: {count(copied.files)} files, {count(copied.bytes)} bytes, nothing is damaged")


COMMANDS: Final = (move, import_, export, backup, restore)
