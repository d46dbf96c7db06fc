"""Places in order, in memory: what RocksDB is to an aside on disk. One of a million comes or goes in microseconds.

They lie in pieces, because to move half of a million pointers takes a millisecond.
"""

from bisect import bisect_left, bisect_right, insort

from darner_core.storage.job_records import Place

PIECE = 1000  # places in one piece; it is cut in two when it has twice as many


class SortedPlaces:
    def __init__(self) -> None:
        self._pieces: list[list[Place]] = []  # none of them empty
        self._firsts: list[Place] = []  # by piece: none of it is before that, all before is in earlier ones

    def add(self, place: Place) -> None:
        """One that is not there."""
        if not self._pieces:
            self._pieces, self._firsts = [[place]], [place]
            return
        at = self._piece_of(place)
        piece = self._pieces[at]
        insort(piece, place)
        if piece[0] < self._firsts[at]:
            self._firsts[at] = piece[0]
        if len(piece) >= 2 * PIECE:
            self._pieces.insert(at + 1, piece[PIECE:])
            self._firsts.insert(at + 1, piece[PIECE])
            del piece[PIECE:]

    def remove(self, place: Place) -> None:
        """One that is there."""
        at = self._piece_of(place)
        piece = self._pieces[at]
        del piece[bisect_left(piece, place)]
        if not piece:
            del self._pieces[at], self._firsts[at]

    def some_from(self, begin: Place, most: int) -> list[Place]:
        """Up to `most`, in order, from `begin` on."""
        found: list[Place] = []
        for at in range(self._piece_of(begin), len(self._pieces)):
            piece = self._pieces[at]
            start = 0 if found else bisect_left(piece, begin)
            found += piece[start : start + most - len(found)]
            if len(found) == most:
                break
        return found

    def some_before(self, end: Place, most: int) -> list[Place]:
        """Up to `most` that are before `end`, the last one first."""
        found: list[Place] = []
        for at in range(self._piece_of(end), -1, -1) if self._pieces else ():
            piece = self._pieces[at]
            stop = len(piece) if found else bisect_left(piece, end)
            found += reversed(piece[max(0, stop - most + len(found)) : stop])
            if len(found) == most:
                break
        return found

    def _piece_of(self, place: Place) -> int:
        """The number of the piece in which it would be."""
        return max(0, bisect_right(self._firsts, place) - 1)
