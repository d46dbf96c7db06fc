"""What no client may do now, and why: one object for the status, a full disk, and a server that is stopping.

The server and its status change it; operations and protocols look at it. What one client may not do as long as it is
connected, because it came beyond a connection limit, is decided where its vocabulary is made.
"""


class Availability:
    __slots__ = ("no_room", "no_writes", "no_reads", "stopping")

    def __init__(self) -> None:
        self.no_room = ""  # why no item is taken: the disk is full, or cannot be written; "": items are taken
        self.no_writes = ""  # why the status refuses what writes; "": it does not
        self.no_reads = ""  # why the status refuses what reads
        self.stopping = False

    @property
    def waits_end(self) -> bool:
        """Whether no client may wait for an item."""
        return self.stopping or bool(self.no_reads)
