"""The forms of line that the memcache text protocol has here: each parser fills in a request from the words behind its
verb, or raises the RequestError that is answered. `commands` knows which verb has which form, `reader` has the grammar.
"""

import re
from collections.abc import Iterable

from darner_core.engines.jobs import MAX_DELAY_MS, Pause
from darner_core.errors import ClientError, MalformedRequest
from darner_core.protocols.grammar import MAX_WAIT_MS, excerpt, require_name
from darner_core.protocols.memcache import options
from darner_core.protocols.memcache.dialects import EXCLUSIVE
from darner_core.protocols.memcache.reader import LineRequest
from darner_core.protocols.options import MAX_READS, Options, pause_of, put_options, split, value_of
from darner_core.protocols.options import number as _number

# It is the name of a folder.
BACKUP_NAME = re.compile(rb"[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}")

MAX_FLAGS = 2**32 - 1  # memcached stores 32 bits
MAX_NAMES = 64  # in one get: a client that waits stands in the line of each queue


def _set_name(request: LineRequest, name: bytes) -> None:
    require_name(name)
    request.queue = name


def _set_key(request: LineRequest, name: bytes) -> None:
    """The key is a name without options."""
    _set_name(request, name)
    request.key = name


def _take_noreply(request: LineRequest, words: list[bytes]) -> None:
    if words and words[-1].lower() == b"noreply":
        request.noreply = True
        words.pop()


def parse_storing(request: LineRequest, words: list[bytes]) -> None:
    """`set name[/option]... flags expiry bytes [noreply]`, and `add` in the same form, which needs a key. Source:
    memcached's doc/protocol.txt, "Storage commands"."""
    verb = request.verb
    if len(words) == 5 and words[4].lower() == b"noreply":
        request.noreply = True
    elif len(words) != 4:
        raise MalformedRequest(
            f"{'an add is: add <queue>/key=<text>' if verb == b'add' else 'a set is: set <queue>[/sync]'}"
            " <flags> <expiry> <bytes> [noreply]"
        )
    name, *given = words[0].split(b"/")
    _set_name(request, name)
    if given:
        found = split(given, options.PUT_OPTIONS, verb)
        request.sync = b"sync" in found
        request.job = put_options(found)
    if verb == b"add" and not (request.job and request.job.key):
        raise ClientError("an add without /key=<text>: it puts an item unless the queue has one with this key")
    request.key = words[0]
    request.flags = _number(words[1], "flags", MAX_FLAGS)
    request.expiry = _number(words[2], "expiry", 2**63 - 1, -(2**63))
    request.body_bytes = _number(words[3], "size", 2**63 - 1)


def parse_reading(
    request: LineRequest,
    words: list[bytes],
    exclusive: Iterable[tuple[bytes, bytes]] = EXCLUSIVE,
    several_reads: bool = False,
) -> None:
    """`get name[/option]...`, the options in any order, but no pair in `exclusive`; or such names of several queues, of
    which the first that has an item is meant. `several_reads`: a connection may have several open.

    Source: Kestrel's guide, "Memcache commands"; Darner's README.
    """
    if not 1 <= len(words) <= MAX_NAMES:
        raise MalformedRequest(
            f"a get is: get <queue>[/open][/close][/abort][/peek][/t=<ms>] ..., 1 to {MAX_NAMES} queues"
        )
    if len(words) > 1:
        _parse_several(request, words, exclusive)
        return
    found = _read_key(request, words[0])
    options.require_together(found, exclusive)
    _apply(request, found)
    if request.asked is not None and request.asked.most > 1 and not several_reads:
        raise ClientError(f"/n={request.asked.most}: a connection of this dialect can have one item open")


def _read_key(request: LineRequest, word: bytes) -> Options:
    request.key = word
    name, *given = word.split(b"/")
    _set_name(request, name)
    return split(given, options.READ_OPTIONS, b"get", reads=True) if given else {}


def _apply(request: LineRequest, found: Options) -> None:
    request.opens, request.closes, request.peeks = b"open" in found, b"close" in found, b"peek" in found
    request.aborts = b"abort" in found or b"reject" in found
    request.wait_ms = value_of(found, b"t") or 0
    request.with_cas = request.verb == b"gets"
    request.plain = not found and not request.with_cas
    request.asked = options.read_options(found) if found else None


# What a get of several queues can have, behind any of their names. It counts for all of them.
_OF_SEVERAL = {b"open", b"close", b"t", b"ttr"}


def _parse_several(request: LineRequest, words: list[bytes], exclusive: Iterable[tuple[bytes, bytes]]) -> None:
    together: Options = {}
    ones: dict[bytes, LineRequest] = {}
    waits = []
    for word in words:
        one = LineRequest(request.run, request.verb)
        found = _read_key(one, word)
        waits.append(value_of(found, b"t") or 0)
        ones.setdefault(one.queue, one)
        _add_options(together, found)
    for option in together:
        if option not in _OF_SEVERAL:
            raise ClientError(
                f"/{option.decode()} in a get of several queues: it can have /open, /close/open, /t=<ms> and /ttr=<ms>"
            )
    if b"close" in together and b"open" not in together:
        raise ClientError("/close without /open in a get of several queues: name the one that is closed")
    options.require_together(together, exclusive)
    _join(request, ones, together, max(waits))


def _add_options(together: Options, found: Options) -> None:
    """Add those of one name. Raises ClientError if they say another deadline."""
    ttr = found.get(b"ttr")
    if ttr is not None and together.get(b"ttr", ttr) != ttr:
        raise ClientError(f'"/ttr={excerpt(ttr)}" and another /ttr in a get of several queues: one counts for all')
    together.update(found)


def _join(request: LineRequest, ones: dict[bytes, LineRequest], found: Options, wait_ms: int) -> None:
    """Make it a get of all of these."""
    first, *others = ones.values()
    for one in (request, *ones.values()):
        _apply(one, found)
        one.wait_ms = wait_ms
        one.plain = one.plain and not others
    request.key, request.queue = first.key, first.queue
    if others:
        request.several, request.targets = tuple(ones.values()), tuple(ones)


def parse_opening(request: LineRequest, words: list[bytes], wait_ms: int) -> None:
    """`get name[/t=ms][/ttr=ms]...`: opens an item of the first of these queues that has one, and waits for it for
    `wait_ms`, or for the longest time that is given. A get of one queue may have the options of `parse_reading`: with
    one of them it is as there, and with /open alone it does not wait.

    Source: Kyoto Tycoon's memcached plug-in, option "q".
    """
    if not 1 <= len(words) <= MAX_NAMES:
        raise MalformedRequest(f"a get is: get <queue>[/t=<ms>] ..., 1 to {MAX_NAMES} queues")
    ones: dict[bytes, LineRequest] = {}
    together: Options = {}
    given_ms: list[int] = []
    for word in words:
        one = LineRequest(request.run, request.verb)
        found = _read_key(one, word)
        ones.setdefault(one.queue, one)
        if b"t" in found:
            given_ms.append(value_of(found, b"t") or 0)
        _add_options(together, found)
    has_options = not together.keys().isdisjoint((b"open", b"close", b"abort", b"reject", b"peek"))
    if has_options or (b"n" in together and len(words) > 1):
        if len(words) > 1:
            raise ClientError("a get of several queues can have /t=<ms> and /ttr=<ms> alone")
        parse_reading(request, words, several_reads=True)
        return
    together[b"open"] = b""
    options.require_together(together, ())
    _join(request, ones, together, max(given_ms, default=wait_ms))


def parse_touching(request: LineRequest, words: list[bytes]) -> None:
    """`touch name[/id=n] seconds [noreply]`. Source: memcached's doc/protocol.txt, "Touch"."""
    if len(words) > 2:
        _take_noreply(request, words)
    if len(words) != 2:
        raise MalformedRequest("a touch is: touch <queue>[/id=<n>] <seconds> [noreply]")
    _read_open(request, words[0])
    request.expiry = _number(words[1], "time in seconds", MAX_DELAY_MS // 1000)


def _read_open(request: LineRequest, word: bytes) -> None:
    """The key means an item that is open."""
    request.key = word
    name, *given = word.split(b"/")
    _set_name(request, name)
    if given:
        found = split(given, (b"id",), request.verb)
        request.asked = options.ReadOptions(item_id=value_of(found, b"id") or 0)


def parse_history(request: LineRequest, words: list[bytes]) -> None:
    """`history name[/id=n]`."""
    if len(words) != 1:
        raise MalformedRequest("a history is: history <queue>[/id=<n>]")
    _read_open(request, words[0])


def parse_kicking(request: LineRequest, words: list[bytes]) -> None:
    """`kick name most [noreply]`"""
    if len(words) > 2:
        _take_noreply(request, words)
    if len(words) != 2:
        raise MalformedRequest("a kick is: kick <queue> <most items> [noreply]")
    _set_key(request, words[0])
    request.told = words[1]
    request.most = _number(words[1], "number of items", MAX_READS, 1)


def parse_dead(request: LineRequest, words: list[bytes]) -> None:
    """`dead name [most]`"""
    if not 1 <= len(words) <= 2:
        raise MalformedRequest("a dead is: dead <queue> [<most items>]")
    _set_key(request, words[0])
    request.most = _number(words[1], "number of items", MAX_READS, 1) if len(words) == 2 else 0


def parse_dead_change(request: LineRequest, words: list[bytes]) -> None:
    """`put_back name/id=n`, `put_back name most`, and `drop` in the same forms."""
    verb = request.verb.decode()
    if 1 <= len(words) <= 2:
        _read_open(request, words[0])
    if len(words) != (1 if request.asked is not None else 2):
        raise MalformedRequest(f"a {verb} is: {verb} <queue>/id=<n>, or {verb} <queue> <most items>")
    if request.asked is None:
        request.told = words[1]
        request.most = _number(words[1], "number of items", MAX_READS, 1)


def parse_pausing(request: LineRequest, words: list[bytes]) -> None:
    """`pause name in|out|all|none [seconds] [noreply]`."""
    if len(words) > 2:
        _take_noreply(request, words)
    if not 2 <= len(words) <= 3:
        raise MalformedRequest("a pause is: pause <queue> in, out, all or none [<seconds>] [noreply]")
    _set_key(request, words[0])
    request.told = b" ".join(words[1:])
    request.pause = pause_of(words[1])
    if len(words) == 3:
        if request.pause is Pause.NONE:
            raise ClientError("a pause none with a time: it ends the pause at once")
        request.expiry = _number(words[2], "time in seconds", MAX_DELAY_MS // 1000, 1)


def parse_monitor(request: LineRequest, words: list[bytes]) -> None:
    """`monitor name seconds [most]`. Source: Kestrel's guide, "Memcache commands"."""
    if not 2 <= len(words) <= 3:
        raise MalformedRequest("a monitor is: monitor <queue> <seconds> [<most items>]")
    _set_key(request, words[0])
    request.wait_ms = _number(words[1], "time in seconds", MAX_WAIT_MS // 1000) * 1000
    if len(words) == 3:
        request.most = _number(words[2], "number of items", MAX_READS, 1)
    request.opens = True


def parse_confirm(request: LineRequest, words: list[bytes]) -> None:
    """`confirm name count`. Source: Kestrel's guide, "Memcache commands"."""
    if len(words) != 2:
        raise MalformedRequest("a confirm is: confirm <queue> <number of items>")
    _set_key(request, words[0])
    request.most = _number(words[1], "number of items", MAX_READS)


def parse_naming(request: LineRequest, words: list[bytes]) -> None:
    """`delete name [0] [noreply]`, `flush name [noreply]`: memcached's delete may carry a time, which is ignored."""
    if len(words) > 1:  # a queue may be called noreply
        _take_noreply(request, words)
    if len(words) == 2 and words[1].isdigit():
        words.pop()
    if len(words) != 1:
        raise MalformedRequest("a queue name is missing, or there are too many words")
    _set_key(request, words[0])


def parse_bare(request: LineRequest, words: list[bytes]) -> None:
    """`stats`, `version`, `quit` and others that stand alone."""
    if words:
        raise MalformedRequest(f'"{excerpt(words[0])}" is not expected here')


def parse_any(request: LineRequest, words: list[bytes]) -> None:
    """`help`, whatever stands behind it."""


def parse_status(request: LineRequest, words: list[bytes]) -> None:
    """`status` asks for it, `status word` changes it."""
    if len(words) > 1:
        raise MalformedRequest("a status is: status, or status <word>")
    if words:
        request.key = words[0]
    else:
        request.free = True


def parse_backup(request: LineRequest, words: list[bytes]) -> None:
    if len(words) != 1 or not BACKUP_NAME.fullmatch(words[0]):
        raise MalformedRequest(
            "a backup is: backup <name>, with up to 100 of the letters A-Z a-z 0-9 . _ -, no dot first"
        )
    request.key = words[0]


def parse_describing(request: LineRequest, words: list[bytes]) -> None:
    """`dump_config [name]`."""
    if len(words) > 1:
        raise MalformedRequest("one queue at a time, or none for all")
    if words:
        _set_key(request, words[0])


def parse_naming_several(request: LineRequest, words: list[bytes]) -> None:
    """`dump_stats [name]...`"""
    for word in words:
        _set_name(request, word)
    request.targets = tuple(dict.fromkeys(words))
    request.key = b" ".join(words)
    request.queue = b""  # they are names of queues, whatever they would be in a get


def parse_stats(request: LineRequest, words: list[bytes]) -> None:
    """`stats [kind [argument]...]`"""
    request.key = words[0].lower() if words else b""


def parse_flush_all(request: LineRequest, words: list[bytes]) -> None:
    """`flush_all [delay] [noreply]`. The command refuses a delay that is not 0."""
    _take_noreply(request, words)
    if len(words) == 1:
        request.expiry = _number(words.pop(), "delay", 2**31 - 1)
    parse_bare(request, words)


def parse_of_memcached(request: LineRequest, words: list[bytes]) -> None:
    """A line of memcached's that no item follows. It is answered with an error."""
    _take_noreply(request, words)


def parse_storing_of_memcached(request: LineRequest, words: list[bytes]) -> None:
    """A line of memcached's that an item follows, in whatever form: nothing can be read behind it."""
    raise MalformedRequest(f"there is no {excerpt(request.verb)} in a queue server: set puts an item into a queue")
