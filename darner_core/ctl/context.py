"""What all commands share: where the server is, who asks, and in which form to print."""

import os
import sys
from dataclasses import dataclass, field
from typing import Any

import click
import click.shell_completion

from darner_core.ctl import names
from darner_core.ctl.address import Address, Tls, read_address
from darner_core.ctl.client import Client, Login, QueueFigures
from darner_core.ctl.errors import CtlError, NothingThere
from darner_core.ctl.output import Output

COMPLETION_S = 1.0  # a shell's user waits for it


@dataclass
class Context:
    """`password_file`: "" asks DARNER_PASSWORD, or else whoever sits at the terminal."""

    out: Output
    address: Address = field(default_factory=Address)
    user: str = ""
    password_file: str = ""
    tls: Tls | None = None
    timeout_s: float = 10
    _login: Login | None = None

    def connect(self) -> Client:
        """A new connection, logged in. Raises CtlError."""
        return Client(self.address, self.login(), self.tls, self.timeout_s)

    def login(self) -> Login | None:
        if self.user and self._login is None:
            self._login = Login(self.user, self._password())
        return self._login

    def _password(self) -> bytes:
        if self.password_file:
            try:
                with open(self.password_file, "rb") as file:
                    return file.readline().rstrip(b"\r\n")
            except OSError as error:
                raise CtlError(f"cannot read the password from {self.password_file}: {error.strerror}") from error
        given = os.environb.get(b"DARNER_PASSWORD")
        if given is not None:
            return given
        if not sys.stdin.isatty():
            raise CtlError("no password: --password-file FILE or DARNER_PASSWORD gives it")
        typed: str = click.prompt(f"Password of {self.user}", hide_input=True, err=True)
        return typed.encode()

    def sure(self, question: str, yes: bool) -> None:
        """Ask before something is lost. Raises CtlError if the answer is no, or nobody can be asked."""
        if yes:
            return
        if not sys.stdin.isatty():
            raise CtlError(f"{question} Nobody is there to ask: --yes says so")
        if not click.confirm(question, err=True):
            raise CtlError("nothing is changed")


def figures_of(client: Client, queue: bytes) -> QueueFigures:
    """Raises NothingThere if there is no such queue."""
    found = client.queues([queue])
    if not found or not found[0].all:
        raise no_such_queue(queue)
    return found[0]


def no_such_queue(queue: bytes) -> NothingThere:
    return NothingThere(f"there is no queue {names.write(queue)}, or you may not see it: darner ctl queues lists them")


class QueueName(click.ParamType[bytes]):
    """The name of a queue, as it is typed in."""

    name = "queue"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> bytes:
        if isinstance(value, bytes):
            return value
        try:
            return names.read(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list["click.shell_completion.CompletionItem"]:
        """Asks the server, as far as the command line and the environment say where it is."""
        try:
            with Client(ctx.find_root().params["server"], timeout_s=COMPLETION_S) as client:
                found = [names.write(one.name) for one in client.queues()]
        except (CtlError, KeyError):  # nothing to offer
            return []
        return [click.shell_completion.CompletionItem(name) for name in found if name.startswith(incomplete)]


QUEUE = QueueName()


class ServerAddress(click.ParamType[Address]):
    name = "address"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Address:
        if isinstance(value, Address):
            return value
        try:
            return read_address(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Duration(click.ParamType[int]):
    """`250ms`, `90s`, `5m`, `2h`, `1d`; a number alone is seconds. In ms."""

    name = "time"
    _units = (("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000))

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        number, factor = value, 1000
        for unit, ms in self._units:
            if value.endswith(unit):
                number, factor = value.removesuffix(unit), ms
                break
        try:
            converted = float(number) * factor
        except ValueError:
            converted = -1
        if not 0 <= converted <= 2**48 or not number.isascii():
            self.fail(f'"{value}" is no time: 250ms, 90s, 5m, 2h or 1d; a number alone is seconds', param, ctx)
        return round(converted)


DURATION = Duration()
