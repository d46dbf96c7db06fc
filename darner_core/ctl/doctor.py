"""`doctor`: looks at what a server needs, and says what to change: options, limits, the disk, Python, and a server that
runs.
"""

import importlib.util
import os
import resource
import shutil
import statistics
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from typing import Final, NamedTuple

import click
from rich.text import Text

from darner_core import VERSION
from darner_core.config import command_line
from darner_core.config.options import Config
from darner_core.ctl import names
from darner_core.ctl.context import Context
from darner_core.ctl.errors import FAILED, CtlError, NoServer
from darner_core.ctl.output import count, duration, size
from darner_core.errors import ConfigError

GOOD, ADVICE, BAD = "good", "advice", "bad"
_STYLES: Final = {GOOD: "green", ADVICE: "yellow", BAD: "bold red"}

OTHER_DESCRIPTORS: Final = 100  # the log, listeners, epolls, the write-ahead log
FSYNCS: Final = 20
SLOW_FSYNC_MS: Final = 20.0  # 50 puts a second for a client that waits for each
NO_FSYNC_MS: Final = 0.02  # no disk is as fast: something in between answers
LITTLE_ROOM: Final = 10  # times min_free_bytes
OLD_HEAD_MS: Final = 3_600_000
FULL_SHARE: Final = 0.8  # of max_connections

# What RocksDB's files do not stand on well, and why.
_BAD_DISKS: Final = {
    "tmpfs": "it is memory, and empty after a restart of the machine",
    "ramfs": "it is memory, and empty after a restart of the machine",
    "overlay": "it is a container's own layer, which goes with the container: mount a volume",
    "nfs": "a file system on the network loses locks and delays each fsync",
    "nfs4": "a file system on the network loses locks and delays each fsync",
    "cifs": "a file system on the network loses locks and delays each fsync",
    "smb3": "a file system on the network loses locks and delays each fsync",
}


class Finding(NamedTuple):
    level: str
    about: str
    says: str


@click.command()
@click.option("-c", "--config", "path", type=click.Path(dir_okay=False), metavar="FILE", help="The options file.")
@click.option("-d", "--data", type=click.Path(), metavar="DIRECTORY", help="The data directory, if no file says it.")
@click.pass_context
def doctor(context: click.Context, path: str | None, data: str | None) -> None:
    """Look at the options, limits, the disk, Python and the running server, and say what to change.

    The exit status is 1 if something is wrong; advice alone is 0."""
    ctl: Context = context.obj
    findings = []
    for one in _all(ctl, path, data):
        findings.append(one)
        if ctl.out.as_json:
            ctl.out.json(one._asdict())
        else:
            line = Text.assemble((f"{one.level:<7}", _STYLES[one.level]), (f"{one.about}: ", "bold"), one.says)
            ctl.out.console.print(line, soft_wrap=True)
    if any(one.level == BAD for one in findings):
        context.exit(FAILED)


def _all(ctl: Context, path: str | None, data: str | None) -> Iterator[Finding]:
    given = [*(("--config", path) if path else ()), *(("--data", data) if data else ())]
    try:
        config = command_line.parse(given)
        if path:
            yield Finding(GOOD, "options", f"{path} can be read")
    except ConfigError as error:
        yield Finding(BAD, "options", str(error))
        config = Config(data=data or Config().data)
    yield from of_python()
    yield of_descriptors(config, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    yield from of_disk(config)
    yield from _of_server(ctl, config)


def of_python() -> Iterator[Finding]:
    version = sys.version.split()[0]
    if sysconfig.get_config_var("Py_DEBUG"):
        yield Finding(ADVICE, "Python", f"{version} is a debug build, several times slower: take another")
    elif "--enable-optimizations" not in (sysconfig.get_config_var("CONFIG_ARGS") or ""):
        yield Finding(ADVICE, "Python", f"{version} was built without --enable-optimizations, which make it faster")
    else:
        yield Finding(GOOD, "Python", f"{version}, an optimized build")
    if importlib.util.find_spec("google_crc32c") is None:
        yield Finding(ADVICE, "Python", "google-crc32c is not installed: a start after a crash is slower without it")


def of_descriptors(config: Config, hard: int) -> Finding:
    """`hard`: what the server may raise its limit to, which it does."""
    needed = config.max_connections + config.max_open_files + OTHER_DESCRIPTORS
    if hard == resource.RLIM_INFINITY or hard >= needed:
        shown = "unlimited" if hard == resource.RLIM_INFINITY else count(hard)
        return Finding(GOOD, "descriptors", f"ulimit -Hn is {shown}, and {count(needed)} may be needed")
    says = f"ulimit -Hn is {count(hard)}; max_connections and max_open_files may need {count(needed)}:"
    return Finding(ADVICE, "descriptors", f"{says} raise it (LimitNOFILE= in systemd), or lower max_connections")


def of_disk(config: Config) -> Iterator[Finding]:
    place = os.path.abspath(config.data)
    while not os.path.exists(place):  # the server makes it
        place = os.path.dirname(place)
    kind = file_system(place, _mounts())
    why = _BAD_DISKS.get(kind) or (f"{kind} is slow, or not made for databases" if kind.startswith("fuse") else "")
    yield Finding(ADVICE if why else GOOD, "disk", f"{place} is on {kind}{': ' if why else ''}{why}")
    free = shutil.disk_usage(place).free
    if free <= config.min_free_bytes:
        yield Finding(BAD, "disk", f"{size(free)} are free: puts are refused below min_free_bytes; make room")
    elif free < LITTLE_ROOM * config.min_free_bytes:
        yield Finding(
            ADVICE, "disk", f"{size(free)} are free, and puts are refused below {size(config.min_free_bytes)}"
        )
    else:
        yield Finding(GOOD, "disk", f"{size(free)} are free")
    try:
        yield of_fsync(fsync_ms(place))
    except OSError as error:
        yield Finding(BAD, "disk", f"cannot write to {place}: {error.strerror}; who runs the server owns it")


def of_fsync(ms: float) -> Finding:
    if ms > SLOW_FSYNC_MS:
        return Finding(
            ADVICE, "disk", f"an fsync takes {ms:.1f} ms: each put with /sync waits for one; a faster disk helps"
        )
    if ms < NO_FSYNC_MS:
        return Finding(
            ADVICE, "disk", f"an fsync takes {ms:.3f} ms, so it does not reach a disk: power lost is items lost"
        )
    return Finding(GOOD, "disk", f"an fsync takes {ms:.2f} ms")


def fsync_ms(place: str) -> float:
    """The median of a few. Raises OSError."""
    took = []
    with tempfile.TemporaryFile(dir=place) as file:
        for _ in range(FSYNCS):
            file.write(b"x" * 4096)
            file.flush()
            start = time.perf_counter()
            os.fsync(file.fileno())
            took.append((time.perf_counter() - start) * 1000)
    return statistics.median(took)


def _mounts() -> str:
    try:
        with open("/proc/self/mounts", encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
    except OSError:  # not Linux
        return ""


def file_system(place: str, mounts: str) -> str:
    """The kind of the file system at `place`, as `mounts` has it. Source: proc(5), fstab(5)."""
    place, best, kind = os.path.realpath(place), "", "an unknown file system"
    for line in mounts.splitlines():
        _, at, this, *_ = line.split(" ")
        at = at.replace(r"\040", " ")
        inside = place == at or place.startswith(at.rstrip("/") + "/")
        if inside and len(at) >= len(best):
            best, kind = at, this
    return kind


def _of_server(ctl: Context, config: Config) -> Iterator[Finding]:
    try:
        with ctl.connect() as client:
            version, status, figures = client.version(), client.status(), client.figures()
            queues = client.queues()
    except NoServer as error:
        yield Finding(ADVICE, "server", str(error))
        return
    except CtlError as error:
        yield Finding(BAD, "server", str(error))
        return
    yield Finding(GOOD if status == "up" else ADVICE, "server", f"{ctl.address} runs {version}; its status is {status}")
    if version != VERSION:
        yield Finding(ADVICE, "server", f"this tool is of version {VERSION}")
    connections = int(figures.get("curr_connections", 0))
    if connections > FULL_SHARE * config.max_connections:
        says = f"{count(connections)} clients are connected, of max_connections {count(config.max_connections)}"
        yield Finding(ADVICE, "server", f"{says}: raise it before clients are refused")
    for one in queues:
        shown = names.write(one.name)
        if one.damaged:
            yield Finding(BAD, f"queue {shown}", "is damaged: darner ctl check says how, repair saves what can be read")
        if one.buried or one.dead_lettered:
            dead = f"{count(one.dead_lettered)} have become dead letters since the start"
            says = f"{count(one.buried)} items are buried, and {dead}"
            yield Finding(ADVICE, f"queue {shown}", f"{says}: darner ctl dead {shown}")
        if one.paused != "none":
            yield Finding(
                ADVICE, f"queue {shown}", f"is paused ({one.paused}): darner ctl pause {shown} none ends that"
            )
        elif one.waiting and one.age_ms > OLD_HEAD_MS and not one.is_alias:
            says = f"its oldest item has waited for {duration(one.age_ms)}: do its workers run, and are there enough?"
            yield Finding(ADVICE, f"queue {shown}", says)


COMMANDS: Final = (doctor,)
