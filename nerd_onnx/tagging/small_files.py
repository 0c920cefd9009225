"""Small files tagged together, ahead of their turn: ten rows fill no batch, and between files the network waits."""

from __future__ import annotations

import stat
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from nerd_onnx.errors import NerdError
from nerd_onnx.inference.decoding import Spans
from nerd_onnx.storage.location import is_uri
from nerd_onnx.tagger import TaggedTexts, Tagger
from nerd_onnx.tagging.file_pairs import FilePair
from nerd_onnx.tagging.job import TagJob
from nerd_onnx.tagging.pipeline import TagStream, batch_rows_of, limits_of, open_pair_source

SMALL_FILE_BYTES = 1 << 19
_NOTHING = TaggedTexts((), Spans.empty(), np.empty(0, np.int64))


class ReadAhead:
    """
    The entities of small files' texts, found before the files are opened to be written.

    Groups of successive small files are read as one batch, and while the files of one group are written, the next is
    in the network. What is kept is looked up by the text itself, so nothing here decides what a file's rows are: a
    file that cannot be read, or that changed meanwhile, is simply tagged in its own turn.

    :param pairs: the files of the run, in order
    :param is_due: whether a file is still to be tagged; asked when it would be read
    """

    def __init__(
        self, tagger: Tagger, job: TagJob, pairs: Sequence[FilePair], is_due: Callable[[FilePair], bool]
    ) -> None:
        self._tagger = tagger
        self._job = job
        self._pairs = pairs
        self._is_due = is_due
        self._most_rows, self._most_bytes = batch_rows_of(job), limits_of(tagger, job).batch
        # Lenient, so that a text that fails harms no other file; it is left to its own.
        self._tagged = tagger.tag_stream(self._groups(), lenient=True)
        self._begun: deque[tuple[int, frozenset[str]]] = deque()
        self._end, self._names = 0, frozenset[str]()
        self._places: dict[str | None, int] = {}
        self._group = _NOTHING

    def tag_stream_of(self, number: int) -> TagStream:
        """
        Give what tags the texts of a file.

        :param number: its place among the pairs; asked for in order
        """
        while self._end <= number:
            self._advance()
        return self._known if self._pairs[number].name in self._names else self._tagger.tag_stream

    def close(self) -> None:
        """Leave what is not begun."""
        self._tagged.close()

    def _advance(self) -> None:
        """Take the results of the next group of files; behind the last one there are none."""
        group = next(self._tagged, None)
        self._group = group or _NOTHING
        self._end, self._names = self._begun.popleft() if group else (len(self._pairs), frozenset())
        self._places = {text: i for i, text in enumerate(self._group.texts) if i not in self._group.reasons}

    def _known(self, batches: Iterable[Sequence[str | None]], *, lenient: bool) -> Iterator[TaggedTexts]:
        """Look texts up; a batch with one that is not there is tagged."""
        for texts in batches:
            places = [0 if text is None else self._places.get(text, -1) for text in texts]
            if min(places, default=0) < 0:
                yield from self._tagger.tag_stream([texts], lenient=lenient)
            else:
                yield self._group.taken(np.array(places, dtype=np.int64))

    def _groups(self) -> Iterator[list[str | None]]:
        """Yield the different texts of one group of files after the other."""
        group = _Group()
        for number, pair in enumerate(self._pairs):
            found = self._texts_of(pair)
            if found is None:  # its turn comes first: a folder of such files would be read to its end
                yield self._begin(group, end=number + 1)
                group = _Group()
                continue
            if group.names and not self._fits(group.rows + len(found), group.size + found.nbytes):
                yield self._begin(group, end=number)
                group = _Group()
            group.add(pair.name, found)
        if group.names:
            yield self._begin(group, end=len(self._pairs))

    def _begin(self, group: _Group, *, end: int) -> list[str | None]:
        self._begun.append((end, frozenset(group.names)))
        return list(group.texts)

    def _fits(self, rows: int, size: int) -> bool:
        """Tell whether so many rows and bytes are no more than a batch."""
        return rows <= self._most_rows and size <= self._most_bytes

    def _texts_of(self, pair: FilePair) -> pa.Array | None:
        """Read the texts of a small file that is to be tagged and can be read; None for others."""
        parts: list[pa.Array] = []
        rows = size = 0
        try:
            if not _is_small(pair.input) or not self._is_due(pair):
                return None
            with open_pair_source(self._tagger, self._job, pair) as source:
                for batch in source.batches():
                    rows, size = rows + batch.num_rows, size + batch.texts.nbytes
                    if not self._fits(rows, size):
                        return None
                    parts.append(batch.texts)
        except (NerdError, OSError):
            return None  # its own turn will say what is wrong
        return pa.concat_arrays(parts) if parts else None


class _Group:
    """
    Files whose texts are tagged together.

    :ivar texts: their different texts, behind a null
    :ivar size: bytes of all their texts
    """

    def __init__(self) -> None:
        self.texts: dict[str | None, None] = {None: None}
        self.names: set[str] = set()
        self.rows = self.size = 0

    def add(self, name: str, texts: pa.Array) -> None:
        """Add a file."""
        self.texts.update(dict.fromkeys(texts.to_pylist()))
        self.names.add(name)
        self.rows, self.size = self.rows + len(texts), self.size + texts.nbytes


def _is_small(path: str) -> bool:
    """Tell whether a file lies here, can be read twice, and is small."""
    if is_uri(path):
        return False
    found = Path(path).stat()
    return stat.S_ISREG(found.st_mode) and found.st_size <= SMALL_FILE_BYTES
