"""The loop between a source and a target: what is confirmed, and when."""

from typing import Any

import pytest

from darner_core.ctl.errors import CtlError
from darner_core.ctl.moving.mover import BATCH_BYTES, Mover
from darner_core.ctl.moving.places import Item, Refusal
from tests.support.moving import FromList, is_source


class Into:
    """A target that refuses these bodies, the first so many times."""

    def __init__(self, refused: dict[bytes, int] | None = None) -> None:
        self.refused = refused or {}
        self.stored: list[bytes] = []
        self.keys: list[bytes] = []
        self._asked: list[bytes] = []

    def put(self, queue: bytes, item: Item) -> None:
        self._asked.append(b"".join(item.pieces()))
        self.keys.append(item.key)

    def settle(self) -> list[Refusal]:
        refusals = []
        for place, body in enumerate(self._asked):
            if self.refused.get(body, 0) > 0:
                self.refused[body] -= 1
                refusals.append(Refusal(place, "full"))
            else:
                self.stored.append(body)
        self._asked = []
        return refusals

    def close(self) -> None: ...


BODIES = [b"%d" % number for number in range(25)]


def mover(source: FromList, target: Into, **options: Any) -> Mover:
    return Mover(is_source(source), target, wait=lambda seconds: None, **options)


def test_nothing_is_confirmed_before_it_is_stored() -> None:
    source, target = FromList(BODIES), Into()

    def look() -> None:
        assert target.stored[: len(source.confirmed) + 1] != source.confirmed
        assert set(source._taken) <= set(target.stored)

    source.before_confirm = look
    moved = mover(source, target).move(b"q")
    assert (moved.items, source.confirmed, target.stored) == (25, BODIES, BODIES)


def test_what_is_refused_is_tried_again_and_then_confirmed() -> None:
    source, target = FromList(BODIES), Into({b"3": 2, b"7": 1})
    moved = mover(source, target).move(b"q")
    assert (moved.items, moved.refused) == (25, "")
    assert sorted(target.stored) == sorted(BODIES)
    assert source.waiting == []


def test_what_stays_refused_stays_where_it_was() -> None:
    source, target = FromList(BODIES), Into({b"3": 1000})
    moved = mover(source, target, patience_s=0).move(b"q")
    assert moved.refused == "full"
    assert b"3" in source.waiting
    assert sorted(source.confirmed) == sorted(target.stored)


def test_it_stops_between_batches() -> None:
    source, target = FromList(BODIES), Into()
    asked = iter([False, True])
    moved = mover(source, target, stop=lambda: next(asked)).move(b"q")
    assert (moved.items, target.stored, moved.left) == (10, source.confirmed, "15 waiting")


def test_batches_of_large_items_are_short() -> None:
    source, target = FromList([bytes(BATCH_BYTES // 4) + b"%d" % number for number in range(15)]), Into()
    mover(source, target).move(b"q")
    assert source.asked[0] == 10
    assert max(source.asked[1:]) <= 4


def test_with_keys_each_item_has_its_own() -> None:
    source, target = FromList(BODIES), Into()
    mover(source, target, key_prefix=b"k-").move(b"q")
    assert [key.rpartition(b"-")[0] for key in target.keys[:2]] == [b"k-1", b"k-2"]
    assert len(set(target.keys)) == 25


def test_keys_need_ids() -> None:
    class WithoutIds(FromList):
        def batch(self, queue: bytes, most: int) -> Any:
            return (Item(item.size, item.body) for item in super().batch(queue, most))

    with pytest.raises(CtlError, match="does not tell ids"):
        mover(WithoutIds(BODIES), Into(), key_prefix=b"k-").move(b"q")


def test_another_item_under_the_same_id_has_another_key() -> None:
    """An old server without its data begins with the first id again."""
    keys = []
    for body in (b"one", b"other"):
        target = Into()
        mover(FromList([body]), target, key_prefix=b"k-").move(b"q")
        keys += target.keys
    assert len(set(keys)) == 2
