"""The process: reads the options, runs the server or a tool, and ends with an exit status."""

import gc
import io
import json
import logging
import os
import shutil
import signal
import sys
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any

from darner_core import NAME, VERSION
from darner_core.config import command_line
from darner_core.config.command_line import Dump
from darner_core.config.listeners import DARNER
from darner_core.config.options import LOG_JSON, Config
from darner_core.errors import ConfigError, DataDirError, StartError, StorageError
from darner_core.server import server
from darner_core.server.listeners import Listener
from darner_core.server.server import Server, level_of
from darner_core.server.service_manager import ServiceManager
from darner_core.showing import show
from darner_core.storage import records
from darner_core.storage.storage import Storage
from darner_core.tools.check import UNREADABLE, check
from darner_core.tools.dump import NOT_THERE, dump
from darner_core.tools.follow import follow
from darner_core.tools.progress import Progress
from darner_core.tools.repair import repair

log = logging.getLogger(NAME)

# Messages make tuples and no cycles. With Python's threshold of 700 the collector would run a hundred times a second,
# and find nothing.
GC_THRESHOLD = 50_000

# While the loop is busy, a thread that comes back from an fsync waits for the interpreter up to this long. Python's 5
# ms are the time of ten fsyncs.
SWITCH_INTERVAL_S = 0.0005

CTL = "ctl"  # the word behind which another command line begins
CTL_PACKAGES = ("click", "rich")  # which the server does not need

INTERRUPTED = 130  # exit status after Ctrl-C, by the shells' convention


class LogFormatter(logging.Formatter):
    """Makes each message one line of printable letters, whatever is in the names that clients choose."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        record.message = show(record.message)
        return super().formatMessage(record)

    def formatException(self, ei: Any) -> str:  # noqa: N802
        return "\n".join(map(show, super().formatException(ei).split("\n")))


class JsonFormatter(logging.Formatter):
    """Makes each message an object of JSON on one line: time (RFC 3339, UTC), level, message, perhaps a traceback."""

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line = {"time": time, "level": record.levelname, "message": show(record.getMessage())}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the server; the process's exit status."""
    try:
        given = sys.argv[1:] if arguments is None else arguments
        if given[:1] == [CTL]:
            return _control(given[1:])
        action, options = command_line.parse_action(given)
        if isinstance(action, Dump):
            return _look_into(action, options)
        if action:
            return _look_after(action, options)
        run(options, given)
    except StartError as error:
        print(f"{NAME}: {error}", file=sys.stderr)
        return 1
    except StorageError as error:
        print(f"{NAME}: the data directory cannot be read: {error}; {records.REPAIR_ADVICE}", file=sys.stderr)
        return 1
    return 0


def _control(arguments: Sequence[str]) -> int:
    """Run `darner ctl`. Returns the exit status."""
    try:
        from darner_core.ctl import main as ctl
    except ModuleNotFoundError as error:
        if (package := (error.name or "").partition(".")[0]) not in CTL_PACKAGES:
            raise
        advice = "pip install 'darner[ctl]', or pip install click rich, installs what it needs"
        print(f"{NAME} {CTL}: the Python package {package} is not installed: {advice}", file=sys.stderr)
        return 1
    return ctl.main(arguments)


def command() -> None:
    """The `darner` command."""
    status = main()
    # A thread of gevent's pool may still be in RocksDB, and would crash if the interpreter were taken down meanwhile.
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def run(options: Config, arguments: Sequence[str]) -> None:
    """Serve with `options`, which were read from `arguments`, until SIGTERM or SIGINT. Raises StartError or
    StorageError if the server cannot start."""
    to_stdout = logging.StreamHandler(sys.stdout)
    text = LogFormatter("%(asctime)s %(levelname)s %(message)s")
    to_stdout.setFormatter(JsonFormatter() if options.log_format == LOG_JSON else text)
    logging.basicConfig(level=level_of(options), handlers=[to_stdout])
    logging.raiseExceptions = False  # no tracebacks when nobody reads the log any more, as in: darner | head
    log.info("%s: queue server", NAME)
    log.info("version: %s", VERSION)
    log.info("data dir: %s", os.path.abspath(options.data))
    log.info("starting up")
    existed = os.path.exists(options.data)
    storage = Storage(
        options.data,
        max_column_families=options.max_column_families,
        block_cache_bytes=options.block_cache_bytes,
        write_buffer_bytes=options.write_buffer_bytes,
        max_wal_bytes=options.max_wal_bytes,
        max_open_files=options.max_open_files,
        say=log.info,
    )
    try:
        queue_server = Server(options, storage, partial(command_line.parse, arguments), ServiceManager())
    except BaseException:
        storage.close()
        if not existed:
            shutil.rmtree(options.data, ignore_errors=True)
        raise
    reload = partial(_reload_at_signal, queue_server)
    server.on_signals((signal.SIGHUP,), reload, reload)
    server.on_signals((signal.SIGTERM, signal.SIGINT), queue_server.request_stop, _end_at_once)
    if queue_server.drained_by_signal:
        server.on_signals((signal.SIGUSR1,), queue_server.drain, queue_server.drain)
    else:
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # log rotation may send it; the log is standard output
    log.info(_recovered(queue_server))
    for line in _listening(options, queue_server.acceptor.listeners):
        log.info(line)
    server.warn(options, queue_server.acceptor.listeners)
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD)
    queue_server.start()
    log.info("ready: listening")
    queue_server.wait_stopped()
    log.info("shut down")


def _recovered(server: Server) -> str:
    """The line of the log about the queues that were found."""
    queues = server.registry.queues.values()
    items, size = sum(queue.waiting_items for queue in queues), sum(queue.waiting_bytes for queue in queues)
    damaged = f", {len(server.registry.damaged)} queues are damaged" if server.registry.damaged else ""
    return f"recovered: {len(queues):,} queues, {items:,} items, {size:,} bytes{damaged}"


def _listening(config: Config, listeners: Iterable[Listener]) -> Iterator[str]:
    """The lines of the log about the addresses."""
    for listener in listeners:
        tls = ", TLS" if config.tls_cert and not listener.is_unix else ""
        dialect = f", {listener.dialect}" if listener.dialect != DARNER else ""
        yield f"listening on: {listener}{tls}{dialect}"


def _reload_at_signal(queue_server: Server) -> None:
    try:
        queue_server.wait_reload()
    except (ConfigError, StorageError):
        pass  # the log has it already
    except Exception:
        log.exception("the reload failed half-way: perhaps only a part of it is in effect; reload again, or restart")


def _look_after(action: str, options: Config) -> int:
    """Run --check or --repair. Returns the exit status."""
    progress = Progress(sys.stderr)
    try:
        if action == command_line.CHECK:
            return check(options.data, _say, progress)
        return repair(options.data, options.max_column_families, _say, progress)
    except DataDirError as error:
        progress.end()
        print(f"{NAME}: {error}", file=sys.stderr)
        return UNREADABLE


def _look_into(action: Dump, options: Config) -> int:
    """Run --dump. Returns the exit status."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        if action.follow:
            password = command_line.ask_password() if action.user else b""
            status = follow(options, action.queue, action.user, password, action.json, sys.stdout, _complain)
        else:
            status = dump(options.data, action.queue, action.json, sys.stdout, _complain)
        sys.stdout.flush()
    except StartError as error:
        _complain(str(error))
        return NOT_THERE
    except KeyboardInterrupt:
        return 0 if action.follow else INTERRUPTED
    except BrokenPipeError:  # the reader has enough: what is still in the buffer must go nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return status


def _complain(line: str) -> None:
    print(f"{NAME}: {line}", file=sys.stderr, flush=True)


def _say(line: str) -> None:
    print(line, flush=True)


def _end_at_once() -> None:
    """Called at the second signal. Nothing is lost: what was answered is in the write-ahead log."""
    log.info("shut down at once")
    logging.shutdown()
    os._exit(1)
