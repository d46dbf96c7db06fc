"""The model of the server's promises: it accepts what may happen, and nothing else.

Each test is a conversation that the model is told of, with the answers of a server that keeps its promises or breaks
them. The links are real; there is no socket and no server.
"""

from collections.abc import Callable

import pytest

from loadtest.crash.books import Book, Item, Op
from loadtest.crash.links import Link
from loadtest.crash.promises import Model
from loadtest.errors import Violation

SIZE = 20
END, STORED, DELETED = b"END\r\n", b"STORED\r\n", b"DELETED\r\n"


class Story:
    """One queue, told briefly."""

    def __init__(self) -> None:
        self.model = Model()
        self.links: list[Link] = []

    @property
    def book(self) -> Book:
        return self.model.book(b"work")

    def link(self) -> Link:
        self.links.append(Link(self.model))
        return self.links[-1]

    def send(self, link: Link, verb: str, **how: bool) -> Op:
        """A request goes out."""
        item = self.model.new_item(self.book, SIZE, link) if verb == "set" else None
        op = Op(verb, self.book, item, **how)
        link.sending(op)
        return op

    def put(self, link: Link, **how: bool) -> Item:
        """A set that is answered."""
        op = self.send(link, "set", **how)
        if not op.noreply:
            link.answered(STORED)
        assert op.item is not None
        return op.item

    def get(self, link: Link, item: Item | None, **how: bool) -> None:
        """A get that is answered with this."""
        self.send(link, "get", **how)
        self.answer(link, item)

    def answer(self, link: Link, item: Item | None) -> None:
        if item is None:
            link.answered(END)
        else:
            link.item(item.flags, item.body())

    def kill(self) -> None:
        """The server is killed and started again."""
        self.model.alive = False
        for link in self.links:
            link.lost()
        self.links = []
        self.model.settled()

    def drained(self, *items: Item) -> None:
        """After a restart, these come out, and no more."""
        link = self.link()
        for item in items:
            self.get(link, item)
        self.get(link, None)
        self.model.judge([self.book])


@pytest.fixture
def story() -> Story:
    return Story()


# -- sets


def test_what_was_answered_stored_has_to_be_there(story: Story) -> None:
    link = story.link()
    first, second = story.put(link), story.put(link)
    story.kill()
    story.drained(first, second)
    first, second = story.put(link), story.put(link)
    story.kill()
    with pytest.raises(Violation, match="queue work: LOST 1 items"):
        story.drained(second)


@pytest.mark.parametrize("there", [True, False])
def test_a_set_without_an_answer_may_have_been_done(story: Story, there: bool) -> None:
    link = story.link()
    first = story.put(link)
    item = story.send(link, "set").item
    assert item is not None
    story.kill()
    story.drained(first, *[item] * there)


def test_it_has_been_done_if_a_later_one_of_its_connection_has(story: Story) -> None:
    link = story.link()
    story.send(link, "set")
    later = story.send(link, "set").item
    assert later is not None
    story.kill()
    with pytest.raises(Violation, match="LOST 1 items"):
        story.drained(later)


def test_a_set_with_noreply_has_been_done_when_a_later_answer_is_there(story: Story) -> None:
    link = story.link()
    story.put(link, noreply=True)
    story.get(link, None, peeks=True)
    story.kill()
    with pytest.raises(Violation, match="LOST 1 items"):
        story.drained()


def test_an_item_that_nobody_put_is_none(story: Story) -> None:
    link = story.link()
    unsent = story.model.new_item(story.book, SIZE, link, cut_short=True)
    with pytest.raises(Violation, match="never sent to its end"):
        story.get(link, unsent)
    with pytest.raises(Violation, match="nobody put"):
        story.get(link, Item(4711, SIZE, story.book, link))


def test_an_item_has_to_come_out_as_it_went_in(story: Story) -> None:
    link = story.link()
    item = story.put(link)
    story.send(link, "get")
    with pytest.raises(Violation, match="changed"):
        link.item(item.flags, item.body()[:-1] + b"\0")


# -- gets


def test_what_was_handed_out_never_comes_back(story: Story) -> None:
    link = story.link()
    item = story.put(link)
    story.get(link, item)
    story.kill()
    with pytest.raises(Violation, match="came back though it was gone"):
        story.drained(item)


def test_a_get_without_an_answer_may_have_taken_one_item(story: Story) -> None:
    link = story.link()
    items = [story.put(link) for _ in range(3)]
    story.send(story.link(), "get")
    story.kill()
    story.drained(*items[1:])
    items = [story.put(link) for _ in range(3)]
    story.send(story.link(), "get")
    story.kill()
    with pytest.raises(Violation, match="LOST 2 items"):
        story.drained(*items[2:])


def test_what_was_open_at_the_kill_is_there_again(story: Story) -> None:
    link = story.link()
    item = story.put(link)
    story.get(link, item, opens=True)
    story.kill()
    with pytest.raises(Violation, match="LOST 1 items"):
        story.drained()


@pytest.mark.parametrize("there", [True, False])
def test_a_close_without_an_answer_may_have_been_done(story: Story, there: bool) -> None:
    link = story.link()
    item = story.put(link)
    story.get(link, item, opens=True)
    story.send(link, "get", closes=True)
    story.kill()
    story.drained(*[item] * there)


def test_what_was_closed_never_comes_back(story: Story) -> None:
    link = story.link()
    item = story.put(link)
    story.get(link, item, opens=True)
    story.get(link, None, closes=True)
    story.kill()
    with pytest.raises(Violation, match="came back"):
        story.drained(item)


def test_one_item_is_open_on_one_connection(story: Story) -> None:
    link = story.link()
    item = story.put(link)
    story.get(link, item, opens=True)
    with pytest.raises(Violation, match="while another connection has it open"):
        story.get(story.link(), item)


def test_what_was_given_back_goes_to_the_next(story: Story) -> None:
    link, other = story.link(), story.link()
    item = story.put(link)
    story.get(link, item, opens=True)
    story.get(link, None, aborts=True)
    story.get(other, item, opens=True)
    other.lost()
    story.get(link, item)
    story.kill()
    story.drained()


# -- order


def test_an_earlier_item_comes_first(story: Story) -> None:
    link, other = story.link(), story.link()
    first = story.put(link)
    second = story.put(other)
    story.get(link, second)
    with pytest.raises(Violation, match="behind an item that was put after it"):
        story.get(link, first)


def test_unless_it_was_open_meanwhile(story: Story) -> None:
    link, other = story.link(), story.link()
    first, second = story.put(link), story.put(link)
    story.get(other, first, opens=True)
    story.get(link, second)
    story.kill()
    story.drained(first)


def test_of_sets_that_overlapped_either_may_be_first(story: Story) -> None:
    link, other = story.link(), story.link()
    first, second = story.send(link, "set").item, story.send(other, "set").item
    assert first is not None
    assert second is not None
    other.answered(STORED)
    link.answered(STORED)
    story.kill()
    story.drained(second, first)


# -- flush and delete


@pytest.mark.parametrize(("verb", "line"), [("flush", END), ("delete", DELETED)])
def test_what_was_dropped_never_comes_back(story: Story, verb: str, line: bytes) -> None:
    link = story.link()
    item = story.put(link)
    story.send(link, verb)
    link.answered(line)
    story.kill()
    with pytest.raises(Violation, match=f"came after the queue was {verb}e?(ed|d)"):
        story.drained(item)


def test_a_flush_leaves_what_is_open_and_what_comes_later(story: Story) -> None:
    link, other = story.link(), story.link()
    held, _ = story.put(link), story.put(link)
    story.get(other, held, opens=True)
    story.send(link, "flush")
    link.answered(END)
    later = story.put(link)
    story.kill()
    story.drained(held, later)


def test_a_delete_without_an_answer_is_not_to_blame_for_an_item_that_was_perhaps_never_put(story: Story) -> None:
    story.send(story.link(), "set")
    story.kill()
    link = story.link()
    item = story.put(link)
    story.send(link, "delete")
    story.kill()
    story.drained(item)


def test_a_delete_takes_what_is_open_too(story: Story) -> None:
    link, other = story.link(), story.link()
    held = story.put(link)
    story.get(other, held, opens=True)
    story.send(link, "delete")
    link.answered(DELETED)
    story.kill()
    with pytest.raises(Violation, match="came after the queue was deleted"):
        story.drained(held)


@pytest.mark.parametrize("left", [slice(0, 0), slice(0, 3)])
def test_a_flush_without_an_answer_is_done_or_not(story: Story, left: slice) -> None:
    link = story.link()
    items = [story.put(link) for _ in range(3)]
    story.send(link, "flush")
    story.kill()
    story.drained(*items[left])


@pytest.mark.parametrize("left", [slice(0, 1), slice(1, 3)])
def test_but_not_in_part(story: Story, left: slice) -> None:
    link = story.link()
    items = [story.put(link) for _ in range(3)]
    story.send(link, "flush")
    story.kill()
    with pytest.raises(Violation, match="a flush that was not answered removed a part"):
        story.drained(*items[left])


# -- what requests are answered with


@pytest.mark.parametrize("verb", ["set", "get", "flush", "delete"])
def test_an_error_is_no_answer(story: Story, verb: str) -> None:
    link = story.link()
    story.send(link, verb)
    with pytest.raises(Violation, match=f"{verb} was answered b'SERVER_ERROR"):
        link.answered(b"SERVER_ERROR no\r\n")


def test_small_items_carry_their_number_in_their_flags(story: Story) -> None:
    make: Callable[[int], Item] = lambda size: story.model.new_item(story.book, size, story.link())  # noqa: E731
    for size in (0, 1, 7):
        assert make(size).flags == story.model.serial
        assert len(make(size).body()) == size
    assert {make(8).flags for _ in range(10)} > {0}
