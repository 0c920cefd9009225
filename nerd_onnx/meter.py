"""How far texts are through a network: counted by its threads, read by another thread that shows it."""

from __future__ import annotations

import threading
from collections import deque


class NetworkMeter:
    """
    The progress of items of texts through a network.

    Items pass the network in order. So the number of characters that are done says which items are done, and how far
    the next one is. Each item is a share of the whole work, which the caller sets with :meth:`expect`.

    :ivar tokens: number of tokens that the network has read
    """

    def __init__(self) -> None:
        self.tokens = 0
        self._lock = threading.Lock()

        self._given = 0
        self._done = 0.0
        self._expected = 0.0

        # Items that are not settled: number of characters up to the item's end, and its share.
        self._items: deque[tuple[int, float]] = deque()
        self._settled_end, self._settled_share = 0, 0.0

    def expect(self, share: float) -> None:
        """Set the share of the next item; an item without one is a share of 0."""
        self._expected = share

    def begin(self, characters: int) -> int:
        """
        Record that an item is handed to the network.

        :return: the place to :meth:`settle` when the item is done
        """
        with self._lock:
            self._given += characters
            self._items.append((self._given, self._expected))
            self._expected = 0.0

            return self._given

    def advance(self, characters: float, tokens: int) -> None:
        """Record that the network has read a part of an item; called by any thread."""
        with self._lock:
            self.tokens += tokens
            # Texts that fail are tagged a second time; nothing is done before it was given.
            self._done = min(self._done + characters, self._given)

    def settle(self, place: int) -> None:
        """Record that an item is done, also the parts of it that the network does not read, such as white space."""
        with self._lock:
            self._done = max(self._done, place)
            while self._items and self._items[0][0] <= place:
                self._settled_end, share = self._items.popleft()
                self._settled_share += share

    def share(self) -> float:
        """Return the share that is done: the sum over the items, with the part of each that is done."""
        with self._lock:
            begin, done = self._settled_end, self._settled_share
            for end, share in self._items:
                part = (self._done - begin) / (end - begin) if end > begin else 0.0
                done += share * min(1.0, max(0.0, part))
                begin = end
            return done
