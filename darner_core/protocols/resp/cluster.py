"""What a client of Disque asks about its nodes: HELLO without a version, and CLUSTER. There is one node, and clients
that look for others find this one alone.

A node that leaves is a server that is read-only: workers take what is left, and producers go elsewhere.
"""

from typing import Any, Final

from darner_core.access.rights import ADMIN_ALL
from darner_core.config.options import Config
from darner_core.operations.operations import Operations
from darner_core.operations.status import READONLY, UP
from darner_core.protocols.contract import Reply
from darner_core.protocols.grammar import excerpt
from darner_core.protocols.guard import require_admin
from darner_core.protocols.resp import replies
from darner_core.protocols.resp.ids import JobIds
from darner_core.protocols.resp.reader import Entry, RespRequest
from darner_core.protocols.resp.replies import OK, RespError
from darner_core.protocols.resp.session import RespSession

_WRONG: Final = "Wrong CLUSTER subcommand or number of arguments"
NODE_BYTES: Final = 40

# A node's priority, 1 is the best. Clients turn away from one that leaves.
PRIORITY, PRIORITY_OF_LEAVING = b"1", b"100"


class Cluster:
    """The commands, bound to the server."""

    def __init__(self, operations: Operations, config: Config, ids: JobIds) -> None:
        self._host: Any = operations.host
        self._config = config
        self._ids = ids

    def entries(self) -> dict[bytes, Entry]:
        return {b"cluster": Entry(self.cluster, 1)}

    def port(self) -> bytes:
        """The port of the first listener of RESP; 0 if that is a Unix socket, or any free one."""
        return b"%d" % next((one.port for one in self._config.endpoints if one.dialect == "resp"), 0)

    @property
    def _leaves(self) -> bool:
        return bool(self._host.status.shown.blocks_writes)

    def hello(self) -> bytes:
        """Disque's HELLO: the node that answers, and all that there are. The address is empty: it is the one that the
        client has come by."""
        priority = PRIORITY_OF_LEAVING if self._leaves else PRIORITY
        node = self._ids.node
        told = replies.bulks((node, b"", self.port(), priority))
        return replies.array((replies.integer(1), replies.bulk(node), told))

    def cluster(self, request: RespRequest, body: None, session: RespSession) -> Reply:
        word, *words = request.arguments
        verb = word.lower()
        if verb == b"nodes" and not words:
            return replies.bulk(b"%b :%b myself 0 0 connected\n" % (self._ids.node, self.port()))
        if verb == b"myid" and not words:
            return replies.bulk(self._ids.node)
        if verb == b"info" and not words:
            return replies.bulk(_INFO)
        if verb == b"saveconfig" and not words:
            return OK
        if verb == b"reset" and [one.lower() for one in words] in ([], [b"hard"], [b"soft"]):
            return OK  # Disque forgets nodes then, not jobs
        if verb == b"leaving" and len(words) <= 1:
            return self._leaving(request, words, session)
        if verb == b"forget" and len(words) == 1:
            raise RespError(self._why_not_forgotten(words[0]))
        if verb == b"meet" and len(words) == 2:
            raise RespError(f"Invalid node address specified: {excerpt(words[0])}:{excerpt(words[1])}")
        raise RespError(_WRONG)

    def _why_not_forgotten(self, node: bytes) -> str:
        if len(node) != NODE_BYTES:
            return "Invalid node identifier"
        if node == self._ids.node:
            return "I tried hard but I can't forget myself..."
        return f"Unknown node {excerpt(node)}"

    def _leaving(self, request: RespRequest, words: list[bytes], session: RespSession) -> Reply:
        if not words:
            return replies.simple(b"yes" if self._leaves else b"no")
        new = {b"yes": READONLY, b"no": UP}.get(words[0].lower())
        if new is None:
            raise RespError("Wrong argument for CLUSTER LEAVING. Use 'yes' or 'no'")
        session.require(ADMIN_ALL, b"")
        require_admin(request, session)
        if session.executes:
            raise RespError("CLUSTER LEAVING cannot be in a transaction")
        reply: Reply = self._host.status.change_then(new, OK)
        return reply


_INFO: Final = (
    b"cluster_state:ok\r\ncluster_known_nodes:1\r\ncluster_reachable_nodes:0\r\ncluster_size:1\r\n"
    b"cluster_stats_messages_sent:0\r\ncluster_stats_messages_received:0\r\n"
)
