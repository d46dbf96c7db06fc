"""The list of protocols, and what their clients can ask now: a vocabulary for each dialect and for each kind of
client that is refused something for as long as it is connected.

A request that is served is not checked. What is refused has another entry in the readers' tables, and the lines that
were parsed before are forgotten, so it is refused from the next request on. A large item that is being received may
still be finished. No call here switches greenlets.
"""

from collections.abc import Iterable
from importlib import import_module

from darner_core.config.listeners import (
    BEANSTALKD,
    DARNER,
    KESTREL,
    KEY_OF_QUEUE,
    KYOTO_TYCOON,
    RESP,
    SIBERITE,
    TEXT,
    THRIFT,
)
from darner_core.config.options import Config
from darner_core.errors import StartError
from darner_core.operations.operations import Operations
from darner_core.protocols.contract import READS, WRITES, Command, Protocol, Traits, Vocabulary

# The module that speaks each dialect. It has a function `speak(operations, config, dialect, reply_key)`, which returns
# a Protocol, and is imported when there is a listener that needs it.
SPEAKERS = {
    DARNER: "memcache.commands",
    KESTREL: "memcache.commands",
    SIBERITE: "memcache.commands",
    KYOTO_TYCOON: "memcache.commands",
    TEXT: "kestrel_text.commands",
    THRIFT: "thrift.service",
    BEANSTALKD: "beanstalkd.commands",
    RESP: "resp.commands",
}
# What has to be installed for it.
NEEDS = {THRIFT: "thriftpy2"}


def protocol_of(operations: Operations, config: Config, dialect: str, reply_key: str = KEY_OF_QUEUE) -> Protocol:
    """Raises StartError if a library is missing."""
    try:
        module = import_module(f"darner_core.protocols.{SPEAKERS[dialect]}")
    except ImportError as error:
        needs = NEEDS.get(dialect)
        if needs is None:
            raise
        raise StartError(f'a listener with dialect = "{dialect}" needs the package {needs}: {error}') from error
    protocol: Protocol = module.speak(operations, config, dialect, reply_key)
    return protocol


class Vocabularies:
    def __init__(self, operations: Operations, config: Config) -> None:
        self._operations = operations
        self._config = config
        self._protocols: dict[tuple[str, str], Protocol] = {}
        self._made: dict[tuple[str, str, str, str], Vocabulary] = {}

    def of(self, dialect: str, no_writes: str = "", no_reads: str = "", reply_key: str = KEY_OF_QUEUE) -> Vocabulary:
        """What a client of this dialect can ask. `no_writes`, `no_reads`: why it may never put, or get. `reply_key`:
        which key the replies to its gets have. Raises StartError the first time, if a library is missing."""
        key = dialect, reply_key, no_writes, no_reads
        if key not in self._made:
            protocol = self._protocols.get(key[:2])
            if protocol is None:
                protocol = protocol_of(self._operations, self._config, dialect, reply_key)
                self._protocols[key[:2]] = protocol
            self._made[key] = Vocabulary(protocol, self._table(protocol, no_writes, no_reads))
        return self._made[key]

    def spoken(self) -> Iterable[Traits]:
        """What the server has to know of each protocol that it speaks."""
        return (protocol.traits for protocol in self._protocols.values())

    def refuse(self) -> None:
        """Refuse what the status refuses from now on, and nothing else."""
        for (*_, no_writes, no_reads), vocabulary in self._made.items():
            vocabulary.table.update(self._table(vocabulary.protocol, no_writes, no_reads))  # every reader has it
            vocabulary.kept_lines.clear()

    def _table(self, protocol: Protocol, no_writes: str, no_reads: str) -> dict[bytes, Command]:
        availability = self._operations.availability
        by_status = {WRITES: availability.no_writes, READS: availability.no_reads}
        for_client = {WRITES: no_writes, READS: no_reads}
        table = protocol.table()
        for verb, command in table.items():
            why = by_status.get(command.kind) or for_client.get(command.kind)
            if why:
                table[verb] = protocol.refused(verb, command, why, bool(by_status[command.kind]))
        return table
