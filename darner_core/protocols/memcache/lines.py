"""The forms of line that the memcache text protocol has here: each parser fills in a request from the words behind its
verb, or raises the RequestError that is answered. `commands` knows which verb has which form, `reader` has the grammar.
"""

from collections.abc import Iterable

from darner_core.errors import ClientError, MalformedRequest
from darner_core.nearest import did_you_mean
from darner_core.protocols.grammar import MAX_WAIT_MS, excerpt, require_name
from darner_core.protocols.memcache.dialects import EXCLUSIVE
from darner_core.protocols.memcache.reader import LineRequest

MAX_FLAGS = 2**32 - 1  # memcached stores 32 bits
MAX_NAMES = 64  # in one get: a client that waits stands in the line of each queue
MAX_READS = 2**31 - 1  # in one monitor or confirm


def _number(word: bytes, what: str, highest: int, lowest: int = 0) -> int:
    # isdigit() first: int() also takes "1_000", " 1" and digits of other scripts.
    digits = word[1:] if lowest < 0 and word[:1] == b"-" else word
    if digits.isdigit() and len(digits) <= 20:
        number = int(word)
        if lowest <= number <= highest:
            return number
    raise MalformedRequest(f'bad {what} "{excerpt(word)}": a number from {lowest} to {highest}')


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
    """`set name[/sync] flags expiry bytes [noreply]`. Source: memcached's doc/protocol.txt, "Storage commands"."""
    if len(words) == 5 and words[4].lower() == b"noreply":
        request.noreply = True
    elif len(words) != 4:
        raise MalformedRequest("a set is: set <queue>[/sync] <flags> <expiry> <bytes> [noreply]")
    name, *options = words[0].split(b"/")
    _set_name(request, name)
    for option in options:
        if option.lower() != b"sync":
            raise MalformedRequest(f'unknown option "/{excerpt(option)}" for set: /sync is the only one')
        request.sync = True
    request.key = words[0]
    request.flags = _number(words[1], "flags", MAX_FLAGS)
    request.expiry = _number(words[2], "expiry", 2**63 - 1, -(2**63))
    request.body_bytes = _number(words[3], "size", 2**63 - 1)


READ_OPTIONS = frozenset((b"open", b"close", b"abort", b"peek"))
_SHOWN_OPTIONS = ("/open", "/close", "/abort", "/peek", "/t=<ms>")


def parse_reading(
    request: LineRequest, words: list[bytes], exclusive: Iterable[tuple[bytes, bytes]] = EXCLUSIVE
) -> None:
    """`get name[/open][/close][/abort][/peek][/t=ms]`, the options in any order, but no pair in `exclusive`.

    Source: Kestrel's guide, "Memcache commands"; Darner's README.
    """
    if len(words) != 1:
        raise MalformedRequest("a get is: get <queue>[/open][/close][/abort][/peek][/t=<ms>], one queue at a time")
    request.key = words[0]
    name, *options = words[0].split(b"/")
    _set_name(request, name)
    chosen = set()
    for option in options:
        lowered = option.lower()
        if lowered in READ_OPTIONS:
            chosen.add(lowered)
        elif lowered.startswith(b"t="):
            request.wait_ms = _number(option[2:], "timeout", MAX_WAIT_MS)
            chosen.add(b"t")
        else:
            near = did_you_mean(f"/{excerpt(lowered)}", _SHOWN_OPTIONS, "/open, /close, /abort, /peek and /t=<ms>")
            raise MalformedRequest(f'unknown option "/{excerpt(option)}" for get: {near}')
    for pair in exclusive:
        if chosen.issuperset(pair):
            raise ClientError(f"cannot {pair[0].decode()} and {pair[1].decode()} in one get")
    request.opens, request.closes = b"open" in chosen, b"close" in chosen
    request.aborts, request.peeks = b"abort" in chosen, b"peek" in chosen
    request.with_cas = request.verb == b"gets"
    request.plain = not chosen and not request.with_cas


def parse_opening(request: LineRequest, words: list[bytes], wait_ms: int) -> None:
    """`get name[/t=ms]...`: opens an item of the first of these queues that has one, and waits for it for `wait_ms`, or
    for the longest time that is given. A get of one queue may have the options of `parse_reading`: with one of them it
    is as there, and with /open alone it does not wait.

    Source: Kyoto Tycoon's memcached plug-in, option "q".
    """
    if not 1 <= len(words) <= MAX_NAMES:
        raise MalformedRequest(f"a get is: get <queue>[/t=<ms>] ..., 1 to {MAX_NAMES} queues")
    several: dict[bytes, LineRequest] = {}
    given_ms: list[int] = []
    has_options = False
    for word in words:
        one = LineRequest(request.run, request.verb)
        parse_reading(one, [word])
        several.setdefault(one.queue, one)
        has_options |= one.opens or one.closes or one.aborts or one.peeks
        if b"/t=" in word.lower():
            given_ms.append(one.wait_ms)
    ones = tuple(several.values())
    if has_options:
        if len(words) > 1:
            raise ClientError("a get of several queues can have /t=<ms> alone")
        parse_reading(request, words[:1])
        return
    for one in (request, *ones):
        one.opens, one.plain, one.with_cas = True, False, request.verb == b"gets"
        one.wait_ms = max(given_ms, default=wait_ms)
    request.key, request.queue = ones[0].key, ones[0].queue
    if len(ones) > 1:
        request.several, request.targets = ones, tuple(several)


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
