"""An aside whose record is lost, and the queue to which its large items belong."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from darner_core.storage import records
from darner_core.tools.check import DAMAGED, WHOLE, check
from darner_core.tools.repair import DROPPED, repair
from tests.support.damaged import body
from tests.support.damaged_asides import Opened, opened, upload
from tests.tools.test_aside_copy import altered, found_in, repaired
from tests.tools.test_repair import quiet

LARGE = next(number for number in range(1, 1000) if len(body(b"m", number)) == len(body(b"n", number)) > 1)


def put_aside(engine: Opened, name: bytes) -> None:
    queue = engine.registry.queues[name]
    large = upload(engine.storage, queue, body(name, LARGE))
    engine.asides.of(queue).put(large, LARGE, 0, 512, 2 * queue.tail)
    engine.asides.of(queue).put(body(name, 1), 1, 0, 512, 2 * queue.tail)


def make(path: Path, change: Callable[[Opened], None] = lambda engine: None) -> Path:
    """A queue `m` with items aside, of which one is large, and a queue `n` with a large item in its line."""
    engine = Opened(path)
    for name in (b"m", b"n"):
        engine.registry.create(name).put(body(name, 2), 2, 0)
    line = engine.registry.queues[b"n"]
    line.put(upload(engine.storage, line, body(b"n", LARGE)), LARGE, 0)
    put_aside(engine, b"m")
    change(engine)
    engine.journal.commit()
    engine.storage.close()
    return path


def lose_record(batch: Any, handles: Any) -> None:
    batch.delete(b"jm", handles[-2])


def test_it_goes_to_the_queue_that_has_the_chunks_and_no_other_use_for_them(tmp_path: Path) -> None:
    directory = make(tmp_path / "data")
    whole = found_in(directory)
    altered(directory, lose_record)
    said: list[str] = []
    assert check(str(directory), said.append, quiet.progress) == DAMAGED
    assert "the chunks of its large items are those of queue m, so --repair gives it to that" in said[0]
    repaired(directory, WHOLE)
    assert found_in(directory) == whole


def lose_item(engine: Opened) -> None:
    record, storage = engine.registry.queues[b"m"].log.record, engine.storage
    key = records.item_key(record.number, 1)
    engine.journal.also.append(lambda batch: batch.put(key, b"\x09" * 30, storage.handles[record.family]))


def test_if_two_queues_have_such_chunks_it_goes_to_neither(tmp_path: Path) -> None:
    def drop_line(engine: Opened) -> None:
        queue = engine.registry.queues[b"n"]
        queue.put(b"", 0, 0)
        # The chunks stay, as if the record of the item were lost.
        key, family = records.item_key(queue.log.record.number, 2), queue.log.record.family
        engine.journal.also.append(lambda batch: batch.delete(key, engine.storage.handles[family]))

    assert_nameless(make(tmp_path / "data", drop_line))


def test_if_the_queue_may_need_them_itself_it_goes_to_nobody(tmp_path: Path) -> None:
    assert_nameless(make(tmp_path / "data", lose_item))


def assert_nameless(directory: Path) -> None:
    altered(directory, lose_record)
    said: list[str] = []
    assert repair(str(directory), 4, said.append, quiet.progress) == DROPPED, said
    with opened(directory) as engine:
        (name,) = set(engine.registry.queues) - {b"m", b"n"}
        assert name.startswith(b"recovered-")
        assert engine.aside(name).items == 1
        with pytest.raises(KeyError):
            engine.aside(b"m")


def test_of_two_that_are_lost_each_goes_to_its_own(tmp_path: Path) -> None:
    def change(batch: Any, handles: Any) -> None:
        lose_record(batch, handles)
        batch.delete(b"jn", handles[-2])

    directory = make(tmp_path / "data", lambda engine: put_aside(engine, b"n"))
    whole = found_in(directory)
    altered(directory, change)
    repaired(directory, WHOLE)
    assert found_in(directory) == whole
