"""`check`, `repair` and `dump`: what `darner --check`, `--repair` and `--dump` do. They read the data directory, and
ask no server."""

import io
import sys
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import click

from darner_core.config import command_line
from darner_core.config.options import Config
from darner_core.ctl import names
from darner_core.ctl.context import QUEUE, Context
from darner_core.ctl.errors import CtlError, NothingThere
from darner_core.errors import DataDirError, StartError
from darner_core.tools import check as checking
from darner_core.tools import dump as dumping
from darner_core.tools import repair as repairing
from darner_core.tools.progress import Progress


def options_of_directory(command: Callable[..., Any]) -> Callable[..., Any]:
    command = click.option("-c", "--config", metavar="FILE", help="The server's options file.")(command)
    return click.option("-d", "--data", metavar="DIR", help="The data directory. The default is ./data.")(command)


def read_config(config: str | None, data: str | None) -> Config:
    """Raises ConfigError."""
    words = ["-c", config] if config is not None else []
    return command_line.parse([*words, "--data", data] if data is not None else words)


@click.command()
@options_of_directory
@click.pass_obj
def check(ctl: Context, config: str | None, data: str | None) -> int:
    """Read a whole data directory, change nothing, and say what is damaged. The server must be stopped.

    Exit status: 0 whole, 1 damaged, 2 cannot be read.
    """
    options = read_config(config, data)
    return _with_progress(ctl, lambda progress: checking.check(options.data, _say(ctl), progress))


@click.command()
@options_of_directory
@click.pass_obj
def repair(ctl: Context, config: str | None, data: str | None) -> int:
    """Save what can be read of a damaged data directory, and keep the damaged one beside it.

    Exit status: 0 all was saved, 1 something had to be dropped, 2 not repaired.
    """
    options = read_config(config, data)
    families = options.max_column_families
    return _with_progress(ctl, lambda progress: repairing.repair(options.data, families, _say(ctl), progress))


def _say(ctl: Context) -> Callable[[str], None]:
    return (lambda line: ctl.out.json({"said": line})) if ctl.out.as_json else partial(print, flush=True)


def _with_progress(ctl: Context, run: Callable[[Progress], int]) -> int:
    progress = Progress(sys.stderr)
    try:
        return run(progress)
    except DataDirError as error:
        progress.end()
        ctl.out.note(f"darner ctl: {error}")
        return checking.UNREADABLE


@click.command()
@click.argument("queue", type=QUEUE)
@options_of_directory
@click.pass_obj
def dump(ctl: Context, queue: bytes, config: str | None, data: str | None) -> None:
    """Show what is in a queue, one line an item, as it is on disk, whether a server is running or not."""
    options = read_config(config, data)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        status = dumping.dump(options.data, queue, ctl.out.as_json, sys.stdout, ctl.out.note)
    except StartError as error:
        raise NothingThere(str(error)) from error
    if status:
        raise CtlError(f"not all of queue {names.write(queue)} could be read")


COMMANDS: Final = (check, repair, dump)
