"""Fuzzing the readers of Kestrel's text protocol and thrift: however the bytes are cut, they mean the same.

    python -m tests.fuzz.fuzz_kestrel -runs=100000

Inputs are random mutations of a few conversations; -runs=, -seed= and -max_total_time= mean what they mean for
fuzz_protocol.
"""

import random
import sys
import time
from typing import Any

from darner_core.engines.jobs import MAX_DELAY_MS, MAX_KEY_BYTES, MAX_PRI
from darner_core.errors import MalformedRequest, RequestError
from darner_core.protocols.contract import Command, Request
from darner_core.protocols.kestrel_text.reader import (
    TextReader,
    TextRequest,
    parse_abort,
    parse_add,
    parse_bare,
    parse_confirm,
    parse_get,
    parse_monitor,
    parse_naming,
    parse_pause,
    parse_put,
    parse_reading,
    parse_status,
    parse_touch,
)
from darner_core.protocols.thrift import messages
from darner_core.protocols.thrift.reader import CALL, FrameReader, check_arguments, read_message
from tests.fuzz.fuzz_protocol import MAX_LINE, MOST_BYTES, mutations

MAX_ITEM_BYTES = 100

PARSERS: dict[bytes, Any] = {
    b"put": parse_put, b"add": parse_add, b"get": parse_get, b"peek": parse_reading, b"monitor": parse_monitor,
    b"confirm": parse_confirm, b"abort": parse_abort, b"reject": parse_confirm, b"touch": parse_touch,
    b"kick": parse_confirm, b"pause": parse_pause, b"flush": parse_naming, b"delete": parse_naming,
    b"status": parse_status, b"version": parse_bare, b"quit": parse_bare,
}  # fmt: skip
SERVICE = messages.load_idl().Kestrel


def _run(*_: object) -> bytes:
    raise AssertionError("reading a request does not run it")


TABLE = {verb: Command(parse, _run) for verb, parse in PARSERS.items()}


def decode(frame: bytes) -> Request:
    """The part of a call that can be understood, as the service reads it."""
    method, kind, sequence, at = read_message(frame)
    if kind != CALL:
        raise MalformedRequest("no call")
    found = getattr(SERVICE, f"{method.decode('latin-1')}_args", None)
    if found is None:
        return messages.ThriftRequest(_run, b"unknown", sequence=sequence)
    arguments = found()
    check_arguments(frame, at, arguments.thrift_spec)
    messages.decode(frame[at:], arguments)
    return messages.ThriftRequest(_run, method, sequence=sequence, arguments=arguments)


def call(method: str, **values: Any) -> bytes:
    arguments = getattr(SERVICE, f"{method}_args")(**values)
    return messages.encode(method, CALL, 7, arguments)


SEEDS = [
    b"\x05\x00put q:\none\ntwo\n\nget q\nconfirm q 1\n",
    b"\x03\x00put q 500:\r\none\r\n\r\nmonitor q 10 5\r\npeek q 5\r\nstatus\r\n",
    b"\x07\x00flush q\ndelete q\nversion\nstatus readonly\nput\nput q\nget q:\nx\n\nquit\n",
    b"\x05\x00put q/delay=1000/pri=5/ttr=60000 500:\none\ntwo\n\nadd q/key=k:\nx\n\nget q/ttr=5 10\nget q/ttr\n",
    b"\x03\x00monitor q/ttr=5 10 3\nabort q/delay=5/pri=3 2\nreject q 1\ntouch q 500\nkick q 3\n",
    b"\x06\x00pause q in\npause q all 500\npause q none\nput q/key=:\nx\n\nadd q/key=k\n",
    b"\x04\x01" + call("put", queue_name=b"q", items=[b"one", b"two"], expiration_msec=5),
    b"\x09\x01" + call("get", queue_name=b"q", max_items=3, timeout_msec=1, auto_abort_msec=9) + call("get_version"),
    b"\x02\x01" + call("confirm", queue_name=b"q", ids={1, 2}) + call("peek", queue_name=b"q"),
    b"\x05\x01" + call("put_jobs", queue_name=b"q", items=[b"one"], delay_msec=5, priority=2**32 - 1, ttr_msec=9),
    b"\x08\x01" + call("put_unique", queue_name=b"q", key=b"k", item=b"one") + call("peek_jobs", queue_name=b"q"),
    b"\x07\x01"
    + call("get_jobs", queue_name=b"q", max_items=3, timeout_msec=1, ttr_msec=9)
    + call("touch", queue_name=b"q", ids={1, 2**52}, ttr_msec=5),
    b"\x03\x01"
    + call("abort_later", queue_name=b"q", ids={1}, delay_msec=5, priority=3)
    + call("reject", queue_name=b"q", ids={1}),
    b"\x04\x01" + call("kick", queue_name=b"q", max_items=3) + call("pause", queue_name=b"q", what=3, duration_msec=5),
]


def heard(pieces: list[bytes], reader: Any) -> tuple[list[str], str]:
    """(the requests as text, what is wrong behind them)"""
    requests: list[str] = []
    for piece in pieces:
        if reader.error is None:
            requests += [shown(request) for request, _ in reader.requests(piece)]
    assert reader.error is None or isinstance(reader.error, RequestError)
    return requests, str(reader.error or "")


def shown(request: Any) -> str:
    if isinstance(request, messages.ThriftRequest):
        return f"{request.verb!r} {request.sequence} {request.arguments}"
    if request.verb == b"":
        answer: bytes = request.run()
        assert answer.count(b"\n") == 1
        return repr(answer)
    assert isinstance(request, TextRequest)
    if request.job is not None:
        delay_ms, pri, ttr_ms, key = request.job[:4]
        assert (0 <= delay_ms <= MAX_DELAY_MS, 0 <= pri <= MAX_PRI, 0 <= ttr_ms <= MAX_DELAY_MS) == (True, True, True)
        assert len(key) <= MAX_KEY_BYTES
        assert not key or len(request.items or ()) == 1
    return str(request)


def new_reader(kind: int) -> Any:
    return FrameReader(decode) if kind % 2 else TextReader(TABLE, MAX_LINE, MAX_ITEM_BYTES)


def check(data: bytes) -> None:
    """The first byte says how the rest is cut, the second which protocol it is. Raises AssertionError, or whatever the
    parser should not."""
    if len(data) < 2:
        return
    step, kind, data = 1 + data[0] % 64, data[1], data[2 : 2 + MOST_BYTES]
    whole = heard([data], new_reader(kind))
    pieces = [data[i : i + step] for i in range(0, len(data), step)]
    assert heard(pieces, new_reader(kind)) == whole, "cut in pieces, it means something else"


def run_random(runs: int, seed: int, most_s: float) -> int:
    """How many inputs were tried."""
    until, tried = time.monotonic() + most_s, 0
    for data in mutations(SEEDS, random.Random(seed)):
        if tried >= runs or time.monotonic() >= until:
            break
        try:
            check(data)
        except BaseException:
            print(f"seed {seed}, input {tried}: {data!r}", file=sys.stderr)
            raise
        tried += 1
    return tried


def main(arguments: list[str]) -> None:
    options = dict(argument[1:].split("=", 1) for argument in arguments[1:] if "=" in argument)
    began = time.monotonic()
    most_s = float(options.get("max_total_time", 0)) or 1e9
    tried = run_random(int(options.get("runs", 10**12)), int(options.get("seed", 0)), most_s)
    print(f"{tried} random mutations of what Kestrel's clients say in {time.monotonic() - began:.0f} s, nothing found")


if __name__ == "__main__":
    main(sys.argv)
