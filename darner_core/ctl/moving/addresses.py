"""Where items come from, as a URL says it.

kestrel://[USER:PASSWORD@]HOST[:22133]     Kestrel, or a server of ours in the kestrel dialect
darner://…, siberite://…                   Darner or Siberite, or a server of ours in these dialects
beanstalkd://HOST[:11300]
redis://[USER:PASSWORD@]HOST[:6379][/DB], rediss://…, redis+unix://…: as redis-py reads it
"""

import socket
from typing import Final
from urllib.parse import SplitResult, unquote_to_bytes, urlsplit

from darner_core.ctl.errors import CtlError, NoServer
from darner_core.ctl.moving import redis_lists
from darner_core.ctl.moving.beanstalkd import Beanstalkd
from darner_core.ctl.moving.memcache import Lanes, Monitored, log_in
from darner_core.ctl.moving.places import Source
from darner_core.ctl.moving.redis_lists import RedisLists
from darner_core.ctl.moving.wire import Wire
from darner_core.nearest import did_you_mean
from darner_core.showing import show

KESTREL, DARNER, SIBERITE, BEANSTALKD = "kestrel", "darner", "siberite", "beanstalkd"
PORTS: Final = {KESTREL: 22133, DARNER: 22133, SIBERITE: 22133, BEANSTALKD: 11300}
REDIS: Final = ("redis", "rediss", "unix")
KINDS: Final = (*PORTS, *REDIS)


def open_source(
    url: str, timeout_s: float = 10, connections: int = 0, takes_buried: bool = False, pops: str = redis_lists.RIGHT
) -> Source:
    """Connect to the server of this URL. Raises CtlError."""
    parts = urlsplit(url)
    if parts.scheme not in KINDS or "://" not in url:
        near = did_you_mean(parts.scheme, KINDS, f"it is one of {', '.join(KINDS)}")
        raise CtlError(f'"{show(url)}" does not say the kind of server, as in kestrel://localhost:22133: {near}')
    if parts.scheme in REDIS:
        return RedisLists(redis_lists.connect(url, timeout_s), _shown(parts), pops)

    def connect() -> Wire:
        return _connect(parts, timeout_s)

    if parts.scheme == BEANSTALKD:
        return Beanstalkd(connect(), takes_buried)
    if parts.scheme == KESTREL:
        return Monitored(connect)
    return Lanes(connect, parts.scheme == SIBERITE, connections)


def _connect(parts: SplitResult, timeout_s: float) -> Wire:
    server = _shown(parts)
    try:
        address = parts.hostname or "127.0.0.1", parts.port or PORTS[parts.scheme]
    except ValueError as error:
        raise CtlError(f"{server}: {error}") from error
    try:
        connected = socket.create_connection(address, timeout_s)
    except OSError as error:
        raise NoServer(f"no server answers at {server}: {show(error.strerror or str(error))}") from error
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    wire = Wire(connected, server)
    if parts.username:
        name = unquote_to_bytes(parts.username).decode("utf-8", "surrogateescape")
        log_in(wire, name, unquote_to_bytes(parts.password or ""))
    return wire


def _shown(parts: SplitResult) -> str:
    """Without the password."""
    return show(f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}")
