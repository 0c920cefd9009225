"""Read small files ahead and tag them together: ten rows fill no batch, and between files the network would wait."""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from nerd_onnx.errors import NerdError
from nerd_onnx.formats.interfaces import RowBatch
from nerd_onnx.formats.text_arrays import each_text
from nerd_onnx.inference.decoding import Spans
from nerd_onnx.options import TaggedTexts
from nerd_onnx.storage.location import Location
from nerd_onnx.tagging.file_pairs import FilePair
from nerd_onnx.tagging.pipeline import TagStream, open_pair_reader
from nerd_onnx.tagging.plan import Plan
from nerd_onnx.tagging.run_meter import RunMeter

SMALL_FILE_BYTES = 1 << 19
_NO_TEXTS = TaggedTexts((), Spans.empty(), np.empty(0, np.int64))


class ReadAhead:
    """
    Finds the entities of small files' texts before these files are opened for writing.

    Successive small files form a group, which is tagged as one batch. While the files of one group are written, the
    next group is in the network. The results are looked up by the text itself, so nothing here decides which rows a
    file has: a file that cannot be read ahead, or that changes afterwards, is tagged when it is written.

    A small JSON Lines file that becomes Parquet is parsed three times: here for its texts, then for the types of its
    columns, then for its rows. The latter two must read the file as it is when it is written.

    :param pairs: the files of the run, in order
    :param is_due: whether a file has still to be tagged; called just before the file is read
    :param meter: gets the progress of the run
    """

    def __init__(
        self,
        plan: Plan,
        pairs: Sequence[FilePair],
        is_due: Callable[[FilePair], bool],
        meter: RunMeter | None = None,
    ) -> None:
        self._plan = plan
        self._pairs = pairs
        self._is_due = is_due
        self._meter = meter

        # Lenient, so that a text that fails does not fail other files; its own file tags it again and reports it.
        self._groups = plan.tagger.tag_items(self._read_groups(), lenient=True)

        self._group = _Group(end=0)
        self._tagged = _NO_TEXTS
        self._places: dict[str | None, int] = {}

    def tag_stream_of(self, number: int) -> TagStream:
        """
        Return the function that tags the texts of a file.

        :param number: index of the file among the pairs; must not decrease from call to call
        """
        while self._group.end <= number:
            self._take_group()
        return self._look_up if self._pairs[number].name in self._group.names else self._plan.tagger.tag_items

    def close(self) -> None:
        """Cancel the groups that are not tagged yet."""
        self._groups.close()

    def _take_group(self) -> None:
        """Wait for the results of the next group; the one after the last group is empty."""
        self._group, self._tagged = next(self._groups, (_Group(end=len(self._pairs)), _NO_TEXTS))
        reasons = self._tagged.reasons
        self._places = {text: i for i, text in enumerate(self._tagged.texts) if i not in reasons}

    def _look_up(
        self, items: Iterable[tuple[RowBatch, Sequence[str | None]]], *, lenient: bool
    ) -> Iterator[tuple[RowBatch, TaggedTexts]]:
        """Look up the results of each text; a batch with a text that was not read ahead is tagged now."""
        for rows, texts in items:
            # Index 0 is the null text, -1 stands for a text that was not read ahead.
            places = [0 if text is None else self._places.get(text, -1) for text in texts]
            if min(places, default=0) < 0:
                yield from self._plan.tagger.tag_items([(rows, texts)], lenient=lenient)
            else:
                yield rows, self._tagged.taken(np.array(places, dtype=np.int64))

    def _read_groups(self) -> Iterator[tuple[_Group, list[str | None]]]:
        """Yield each group of files with its different texts."""
        group = _Group(end=0)
        for number, pair in enumerate(self._pairs):
            texts = self._texts_of(pair)

            # A file that is not read ahead ends the group: reading on would delay its own turn, and a folder of such
            # files would be read to its end before the first output is written.
            if texts is None:
                group.end = number + 1
                yield self._announced(group)
                group = _Group(end=number + 1)
                continue

            if group.names and not self._fits(group.rows + len(texts), group.size + texts.nbytes):
                yield self._announced(group)
                group = _Group(end=number)
            group.add(pair.name, texts)

        if group.names:
            yield self._announced(group)

    def _announced(self, group: _Group) -> tuple[_Group, list[str | None]]:
        """Return a group with its texts, after a report to the meter."""
        if self._meter is not None:
            self._meter.expect_files(group.names)
        return group, list(group.texts)

    def _fits(self, rows: int, size: int) -> bool:
        """Whether this number of rows and bytes is at most a batch."""
        return rows <= self._plan.batch_rows and size <= self._plan.limits.batch

    def _texts_of(self, pair: FilePair) -> pa.Array | None:
        """Return the texts of a file; None if it is not small, not due, without rows, or cannot be read."""
        parts: list[pa.Array] = []
        rows = size = 0
        try:
            if not _is_small(pair.input) or not self._is_due(pair):
                return None

            with open_pair_reader(self._plan, pair, texts_only=True) as source:
                for batch in source.batches():
                    found = [each_text(texts) for texts in batch.all_texts]
                    rows += sum(map(len, found))
                    size += sum(texts.nbytes for texts in found)
                    if not self._fits(rows, size):
                        return None

                    parts += found
        except (NerdError, OSError):
            return None  # the error is reported when the file is opened for writing

        return pa.concat_arrays(parts) if parts else None


class _Group:
    """
    Successive files whose texts are tagged together.

    :param end: index of the first file after the group
    :ivar texts: the different texts of the files, after a null, which has index 0
    :ivar names: names of the files
    :ivar rows: number of texts, repeated ones included
    :ivar size: bytes of these texts
    """

    def __init__(self, end: int) -> None:
        self.end = end
        self.texts: dict[str | None, None] = {None: None}
        self.names: set[str] = set()
        self.rows = self.size = 0

    def add(self, name: str, texts: pa.Array) -> None:
        """Add the file that follows the group."""
        self.texts.update(dict.fromkeys(texts.to_pylist()))
        self.names.add(name)
        self.rows, self.size = self.rows + len(texts), self.size + texts.nbytes
        self.end += 1


def _is_small(path: Location) -> bool:
    """Whether a file is local, can be read twice, and is small."""
    if path.is_remote:
        return False

    found = Path(path).stat()
    return stat.S_ISREG(found.st_mode) and found.st_size <= SMALL_FILE_BYTES
