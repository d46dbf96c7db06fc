"""What is refused at present, and to whom: the vocabularies of all dialects, from which verbs can be taken away while
the server runs.

Nothing is asked of a request that is served. What is refused has another entry in the tables that the readers have,
and no line that was parsed before is kept. Refused is what is asked from then on; an item of more than `chunk_bytes`
that is being received may come to its end.

Which verbs write and which read comes in from `commands`. No call here switches greenlets.
"""

from collections.abc import Callable, Set
from dataclasses import replace
from functools import partial
from typing import Any, NoReturn

from darner_core.config.listeners import KEY_OF_QUEUE, KEY_OF_REQUEST
from darner_core.errors import Unavailable
from darner_core.protocols.memcache.dialects import DIALECTS, Dialect
from darner_core.protocols.memcache.reader import Command, Request, Vocabulary


class Vocabularies:
    """One for each dialect and for each kind of client that is refused something for as long as it is connected."""

    def __init__(self, table: Callable[[Dialect], dict[bytes, Command]], writes: Set[bytes], reads: Set[bytes]) -> None:
        """`table` makes a dialect's; `writes` and `reads` are the verbs that can be refused."""
        self._served = {name: table(dialect) for name, dialect in DIALECTS.items()}
        self._writes = writes
        self._reads = reads
        self._made: dict[tuple[str, str, str, str], Vocabulary] = {}
        self._others: dict[str, Callable[[str, str], Vocabulary]] = {}
        self._no_writes = self._no_reads = ""

    def of(self, dialect: str, no_writes: str = "", no_reads: str = "", reply_key: str = KEY_OF_QUEUE) -> Vocabulary:
        """What a client of this dialect can ask. `no_writes`, `no_reads`: why it may never put, or get. `reply_key`:
        which key the replies to its gets have."""
        key = dialect, no_writes, no_reads, reply_key
        if dialect in self._others:
            return self._others[dialect](no_writes, no_reads)
        if key not in self._made:
            its_dialect = replace(DIALECTS[dialect], repeats_key=reply_key == KEY_OF_REQUEST)
            self._made[key] = Vocabulary(its_dialect, self._table(*key[:3]))
        return self._made[key]

    def add(self, dialect: str, make: Callable[[str, str], Vocabulary]) -> None:
        """A dialect that is a protocol of its own. `make(no_writes, no_reads)` makes what a client of it can ask, and
        knows itself what is refused to all."""
        self._others[dialect] = make

    def refuse(self, no_writes: str, no_reads: str) -> None:
        """From now on no client may put, or get, for these reasons; "": it may."""
        self._no_writes, self._no_reads = no_writes, no_reads
        for key, vocabulary in self._made.items():
            vocabulary.table.update(self._table(*key[:3]))  # in place: every reader has it
            vocabulary.kept_lines.clear()

    def _table(self, dialect: str, no_writes: str, no_reads: str) -> dict[bytes, Command]:
        table = dict(self._served[dialect])
        no_writes, no_reads = self._no_writes or no_writes, self._no_reads or no_reads
        for verb, command in table.items():
            if no_reads and verb in self._reads:
                table[verb] = _without_taking(command, _reason(verb, no_reads))
            elif no_writes and verb in self._writes and not _acknowledges(DIALECTS[dialect], verb):
                table[verb] = _refused(command, _reason(verb, no_writes))
        return table


def _reason(verb: bytes, why: str) -> str:
    return f"{verb.decode()} is refused: {why}"


def _acknowledges(dialect: Dialect, verb: bytes) -> bool:
    """What closes a read is never refused."""
    return dialect.gets_open and verb == b"delete"


def _refused(command: Command, why: str) -> Command:
    """The entry of a verb that is refused, whatever follows it."""
    return Command(partial(_refuse, why), partial(_refuse, why), command.right, refusal=why)


def _refuse(why: str, *_: Any) -> NoReturn:
    raise Unavailable(why)


def _without_taking(command: Command, why: str) -> Command:
    """The entry of a verb that reads: what closes or gives back does so still, and takes nothing."""

    def parse(request: Request, words: list[bytes]) -> None:
        command.parse(request, words)
        if not (request.closes or request.aborts):
            raise Unavailable(why)

    def only_close(run: Callable[..., Any]) -> Callable[..., Any]:
        def close(request: Request, body: Any, session: Any) -> Any:
            if not request.opens:
                return run(request, body, session)
            run(replace(request, opens=False), body, session)
            raise Unavailable(why)

        return close

    placed = only_close(command.placed) if command.placed is not None else None
    return Command(parse, only_close(command.run), command.right, placed, refusal=why)
