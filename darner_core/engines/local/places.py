"""Where a new queue or cursor goes on disk: a number that none has had, and a column family.

The first `max_column_families` queues have a column family each. A later one goes into the family with the fewest
queues. The family of a deleted queue is used again.
"""

from collections.abc import Collection

from darner_core.storage.storage import Storage


class Places:
    """`family_users` is how many queues each family has. The caller keeps it up to date."""

    def __init__(self, storage: Storage) -> None:
        self.family_users = [0] * len(storage.families)
        self._storage = storage
        self._next_number = 1
        self._taken: set[int] = set()

    def pass_over(self, numbers: Collection[int]) -> None:
        """Never give out these, which are all that the disk knows of."""
        self._next_number = self._storage.fresh_number(numbers)
        self._taken = {number for number in numbers if number >= self._next_number}

    def new_number(self) -> int:
        while self._next_number in self._taken:
            self._next_number += 1
        self._next_number += 1
        return self._next_number - 1

    def family(self) -> int:
        """The family for a new queue: not a damaged one, if any is whole."""
        damaged = self._storage.damaged_families
        usable = [family for family in range(len(self.family_users)) if family not in damaged]
        return min(usable or [0], key=self.family_users.__getitem__)
