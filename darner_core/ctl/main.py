"""The command line of `darner ctl`: the options that all commands share, the commands, and the exit status."""

import os
import signal
import sys
from collections.abc import Sequence

import click

from darner_core.ctl import (
    bench,
    completion,
    dead,
    directory,
    doctor,
    items,
    operating,
    queues,
    top,
    transfer,
    watching,
)
from darner_core.ctl.address import DEFAULT, Address, Tls
from darner_core.ctl.context import DURATION, Context, ServerAddress
from darner_core.ctl.errors import DONE, FAILED, INTERRUPTED, USAGE, CtlError
from darner_core.ctl.output import Output
from darner_core.errors import DarnerError
from darner_core.nearest import did_you_mean
from darner_core.showing import show

PROGRAM = "darner ctl"

EPILOG = """\b
Names of queues are any bytes: printable letters stand for themselves, a
backslash is written \\\\, and any other byte \\xNN.

\b
Exit status: 0 done, 1 refused or failed, 2 the command line is wrong, 3 no
server answers, 4 there is no such queue or item, 130 Ctrl-C.
"""


class Commands(click.Group):
    """Says which command was meant."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if not name.startswith("-") and self.get_command(ctx, name) is None:
            near = did_you_mean(name, self.commands, "--help lists the commands")
            raise click.UsageError(f'there is no command "{show(name)}": {near}', ctx)
        return super().resolve_command(ctx, args)


@click.group(cls=Commands, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "-s", "--server", type=ServerAddress(), default=DEFAULT, envvar="DARNER_SERVER", show_envvar=True,
    metavar="ADDRESS", show_default=True, help="HOST:PORT, [IPv6]:PORT or unix:PATH, where memcache is spoken.",
)  # fmt: skip
@click.option("-u", "--user", default="", envvar="DARNER_USER", show_envvar=True, metavar="NAME", help="Log in.")
@click.option(
    "--password-file", default="", envvar="DARNER_PASSWORD_FILE", show_envvar=True, metavar="FILE",
    help="Its first line is the password. Without it, DARNER_PASSWORD is, or the terminal is asked.",
)  # fmt: skip
@click.option("--tls", is_flag=True, envvar="DARNER_TLS", show_envvar=True, help="Connect with TLS.")
@click.option(
    "--tls-ca", default="", envvar="DARNER_TLS_CA", show_envvar=True, metavar="FILE",
    help="Whose signature the server's certificate needs, or the certificate itself; by default the system's"
    " authorities. Implies --tls.",
)  # fmt: skip
@click.option(
    "--tls-cert", default="", envvar="DARNER_TLS_CERT", show_envvar=True, metavar="FILE",
    help="This client's certificate. Implies --tls.",
)  # fmt: skip
@click.option(
    "--tls-key", default="", envvar="DARNER_TLS_KEY", show_envvar=True, metavar="FILE",
    help="Its key, if that is not in the same file.",
)  # fmt: skip
@click.option(
    "--timeout", type=DURATION, default="10s", envvar="DARNER_TIMEOUT", show_envvar=True, show_default=True,
    metavar="TIME", help="How long the server may be silent.",
)  # fmt: skip
@click.option(
    "--json/--text", "as_json", default=None,
    help="The form of what is printed. By default it is text on a terminal, else JSON.",
)  # fmt: skip
@click.pass_context
def ctl(
    click_context: click.Context,
    server: Address,
    user: str,
    password_file: str,
    tls: bool,
    tls_ca: str,
    tls_cert: str,
    tls_key: str,
    timeout: int,
    as_json: bool | None,
) -> None:
    """Look after a running Darner server, and look into it."""
    if tls_key and not tls_cert:
        raise click.UsageError("--tls-key needs --tls-cert", click_context)
    click_context.obj = Context(
        Output(not sys.stdout.isatty() if as_json is None else as_json),
        server,
        user,
        password_file,
        Tls(tls_ca, tls_cert, tls_key) if tls or tls_ca or tls_cert else None,
        timeout / 1000,
    )


# A module for what belongs together; each says which commands it has.
MODULES = (top, queues, items, dead, operating, watching, directory, transfer, doctor, bench, completion)

for module in MODULES:
    for command in module.COMMANDS:
        ctl.add_command(command)


def main(arguments: Sequence[str]) -> int:
    """Carry out one command; the exit status. `arguments`: what stands behind `darner ctl`."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # what is open goes back, files are removed
    try:
        asks = os.environ.get(completion.VARIABLE)
        if asks is not None and completion.answer(ctl, PROGRAM, asks):
            return DONE
        status = ctl.main(list(arguments), PROGRAM, standalone_mode=False)
        sys.stdout.flush()
        return status if isinstance(status, int) else DONE
    except click.UsageError as error:
        where = error.ctx.command_path if error.ctx is not None else PROGRAM
        return _complain(f"{show(error.format_message()).rstrip('.')}; see {where} --help", USAGE)
    except click.ClickException as error:
        return _complain(show(error.format_message()), FAILED)
    except CtlError as error:
        return _complain(str(error), error.status)
    except DarnerError as error:
        return _complain(str(error), FAILED)
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except BrokenPipeError:  # whoever reads the output has enough
        _drop_output()
        return FAILED
    finally:
        signal.signal(signal.SIGTERM, before)


def _complain(line: str, status: int) -> int:
    print(f"{PROGRAM}: {line}", file=sys.stderr, flush=True)
    return status


def _drop_output() -> None:
    """What is still in the buffer must go nowhere when the process ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
