"""The ids of jobs as a client of Disque knows them. An id says where its job is, so no index is kept.

    "D-" node "-" place "-" ttl

    node   the first 8 hexadecimal digits of the node's id
    place  in base64: the queue's number u32, the item's id u64, and a tag of 6 bytes, which nobody can make who does
           not know the server's secret: what a client has made up is no job of another queue
    ttl    how long the job lives at most, in minutes, as 4 hexadecimal digits; odd if it is delivered again and again

Pure. Source: Disque's README, "Job IDs".
"""

import re
from base64 import b64decode, b64encode
from binascii import Error as BadBase64
from hashlib import blake2b
from hmac import compare_digest
from struct import Struct
from typing import Final

from darner_core.protocols.resp.replies import RespError

MAX_TTL_MINUTES: Final = 0xFFFF
TAG_BYTES: Final = 6

_place = Struct(">IQ")
_ID: Final = re.compile(rb"D-([0-9a-f]{8})-([A-Za-z0-9+/]{24})-([0-9a-f]{4})")
ID_BYTES: Final = 40


class JobIds:
    """Those of one server."""

    def __init__(self, node: bytes, secret: bytes) -> None:
        """`node`: 20 bytes that the server is called; `secret`: 16 that nobody else knows. Both stay over restarts."""
        self.node = node.hex().encode()
        self._secret = secret

    def make(self, queue_number: int, item_id: int, ttl_s: int, again: bool) -> bytes:
        """`again`: the job is delivered again if nobody acknowledges it."""
        place = _place.pack(queue_number, item_id)
        minutes = min(-(-ttl_s // 60), MAX_TTL_MINUTES)
        minutes = minutes | 1 if again else minutes & ~1
        return b"D-%b-%b-%04x" % (self.node[:8], b64encode(place + self._tag(place)), minutes)

    def read(self, job: bytes) -> tuple[int, int]:
        """(the queue's number, the item's id); (0, 0): a job of which this server knows nothing. Raises RespError if
        it is no id at all."""
        found = _ID.fullmatch(job) if len(job) == ID_BYTES else None
        if found is None:
            raise RespError("Invalid Job ID format.", "BADID")
        if found[1] != self.node[:8]:
            return 0, 0
        try:
            data = b64decode(found[2])
        except BadBase64:
            return 0, 0
        place, tag = data[: _place.size], data[_place.size :]
        if not compare_digest(tag, self._tag(place)):
            return 0, 0
        queue_number, item_id = _place.unpack(place)
        return queue_number, item_id

    def _tag(self, place: bytes) -> bytes:
        return blake2b(place, digest_size=TAG_BYTES, key=self._secret).digest()
