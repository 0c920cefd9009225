"""How far a run is, for a display in another thread."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from nerd_onnx.errors import NerdError
from nerd_onnx.formats.open_input import Reader
from nerd_onnx.meter import NetworkMeter
from nerd_onnx.storage.input_stream import is_stream
from nerd_onnx.tagging.file_pairs import FilePair


class RunMeter:
    """
    The progress of a run. The run reports here what it reads and finishes; a display reads it from another thread.

    A file is a share of the run by its bytes, a batch of rows a share of its file by the bytes or rows read, and within
    a batch the characters count that are through the network. So the share moves within a batch and within a long text.

    :ivar network: counts tokens
    :ivar file: name of the file that is tagged
    :ivar rows: number of rows that are written, also those that an earlier run tagged
    """

    def __init__(self) -> None:
        self.network = NetworkMeter()
        self.file = ""
        self.rows = 0
        self._begin = time.monotonic()
        self._limit: int | None = None

        # Share of each file, and how much of it is done or expected of the network.
        self._shares: dict[str, float] = {}
        self._granted: dict[str, float] = {}

        # What is done without the network; a part of it is the work of an earlier run.
        self._beside = 0.0
        self._earlier = 0.0

    def begin(self, pairs: Sequence[FilePair], limit: int | None) -> None:
        """
        Start the clock.

        :param pairs: the files of the run
        :param limit: maximum number of rows per file
        """
        self._limit = limit
        sizes = _sizes(pairs, limit)
        total = sum(sizes.values())
        self._shares = {name: size / total for name, size in sizes.items()}

        self._begin = time.monotonic()

    def expect_files(self, names: Iterable[str]) -> None:
        """Record that the network gets all texts of these files next."""
        self.network.expect(sum(self._grant(name, 1.0) for name in names))

    def read(self, name: str, source: Reader) -> float:
        """Record that a batch of rows was read, and return its share of the run."""
        self.file = name
        share = self._grant(name, _share_read(source, self._limit) or 0.0)
        self.network.expect(share)
        return share

    def wrote(self, rows: int, share: float, *, is_earlier: bool) -> None:
        """
        Record that a batch of rows was written.

        :param rows: number of rows that are written by now
        :param share: what :meth:`read` returned for the batch
        :param is_earlier: its results are those of an earlier run
        """
        self.rows = rows
        if is_earlier:
            self._beside += share
            self._earlier += share

    def end_file(self, name: str, *, is_earlier: bool) -> None:
        """
        Record that a file is finished.

        :param is_earlier: an earlier run finished it
        """
        rest = self._grant(name, 1.0)
        self._beside += rest
        self._earlier += rest if is_earlier else 0.0

    def _grant(self, name: str, part: float) -> float:
        """Return the share of the run from what was granted of a file to a part of it, 0 to 1, and grant that."""
        before = self._granted.get(name, 0.0)
        share = max(0.0, self._shares.get(name, 0.0) * part - before)
        self._granted[name] = before + share
        return share

    @property
    def knows_sizes(self) -> bool:
        """Whether the size of the input is known."""
        return bool(self._shares)

    @property
    def share(self) -> float | None:
        """The share of the run that is done, 0 to 1; None if the size of the input is not known."""
        return min(1.0, self.network.share() + self._beside) if self._shares else None

    @property
    def seconds(self) -> float:
        """Seconds since the run began."""
        return max(time.monotonic() - self._begin, 1e-9)

    @property
    def tokens_per_s(self) -> float:
        """Tokens per second of this run, without those that an earlier run tagged."""
        return self.network.tokens / self.seconds

    @property
    def seconds_left(self) -> float | None:
        """Seconds to the end at the speed of this run so far; None if it is not known."""
        share = self.share
        if share is None or share <= self._earlier:
            return None
        return self.seconds * (1 - share) / (share - self._earlier)


def _sizes(pairs: Sequence[FilePair], limit: int | None) -> dict[str, int]:
    """Return the size of each file; 1 for all if sizes say little or cost requests; empty if one is a stream."""
    try:
        if any(is_stream(pair.input) for pair in pairs):
            return {}
        if limit is None and not any(pair.input.is_remote for pair in pairs):
            return {pair.name: max(1, Path(pair.input).stat().st_size) for pair in pairs}
    except (NerdError, OSError):
        pass  # the error is reported when the file is opened
    return {pair.name: 1 for pair in pairs}


def _share_read(source: Reader, limit: int | None) -> float | None:
    """Return the share of a file's rows to read that was read, 0 to 1; None if it is not known."""
    if limit is None:
        return source.progress()
    if source.num_rows is not None:
        return source.rows_read / source.num_rows if source.num_rows else 1.0
    # The limit may be greater than the number of rows.
    return max(source.progress() or 0.0, min(1.0, source.rows_read / limit)) if limit else 1.0
