"""The results of tagging one input: those that an earlier run stored, followed by new ones."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

import pyarrow as pa

from nerd_onnx.durability.chunks import Results, chunk_path, chunk_schema, read_chunk
from nerd_onnx.durability.events import ChunkEvent, KeepEvent
from nerd_onnx.durability.journal import Journal
from nerd_onnx.errors import OutputError
from nerd_onnx.stages import stage
from nerd_onnx.storage.atomic_file import Target, open_own_file
from nerd_onnx.storage.closing import Closing
from nerd_onnx.storage.location import Location
from nerd_onnx.storage.output_place import output_errors, output_name

CHUNK_TOKENS = 500_000  # half a minute of work on two cores: a crash may cost so much


class ResultLog(Closing):
    """
    The results of one input, batch by batch: those that an earlier run stored, followed by new ones.

    New results are collected in a chunk. A full chunk is written atomically and then recorded in the journal, in this
    order: a chunk that the journal does not name does not exist. A stored chunk is compared with the journal when it is
    read; the first damaged chunk and all after it are discarded, and their rows are tagged again.

    :param output: the output, for messages
    :param folder: the work folder
    :param journal: records the input's chunks
    :param entities: name and type of the new column
    :param chunk_rows: close a chunk at this number of rows; None to close it at :data:`CHUNK_TOKENS` tokens
    :ivar tokens: number of tokens appended since the last chunk
    :ivar resumed_rows: number of rows whose results an earlier run stored, without those that were discarded
    :ivar resumed_tokens: number of tokens of these rows
    :ivar damaged_chunks: number of chunks that were discarded
    """

    def __init__(
        self, output: Location, folder: str, journal: Journal, entities: pa.Field, chunk_rows: int | None
    ) -> None:
        self.output = output
        self._folder = folder
        self._journal = journal
        self._schema = chunk_schema(entities)
        self._chunk_rows = chunk_rows

        self._target: Target | None = None
        self._writer: pa.ipc.RecordBatchStreamWriter | None = None
        self._rows = 0
        self.tokens = 0

        self.resumed_rows = journal.progress.stored_rows
        self.resumed_tokens = journal.progress.stored_tokens
        self.damaged_chunks = 0

    def stored(self) -> Iterator[Results]:
        """
        Yield the stored results before the first damaged chunk, in the batches in which they were appended.

        To be called before results are appended.

        :raises OutputError: if the journal cannot be written
        """
        # A copy: the event that discards chunks removes them from the list.
        chunks = tuple(self._journal.progress.chunks)
        for number, chunk in enumerate(chunks):
            found = read_chunk(chunk_path(self._folder, number), chunk, self._schema)
            if found is None:
                self._discard(chunks[number:], kept=number)
                return
            yield from found

    def _discard(self, chunks: Sequence[ChunkEvent], *, kept: int) -> None:
        """Record that the chunks from a damaged one on do not count. Their rows are tagged and stored again."""
        self._journal.append(KeepEvent(kept))

        self.damaged_chunks = len(chunks)
        self.resumed_rows -= sum(chunk.rows for chunk in chunks)
        self.resumed_tokens -= sum(chunk.tokens for chunk in chunks)

    @stage("write")
    def append(self, results: Results) -> None:
        """
        Append the results of the next batch, and close the chunk when it is full.

        :raises OutputError: if the disk cannot be written
        """
        with self._dropped_on_failure():
            results.write(self._writer or self._open(), self._schema)

        self._rows += len(results)
        self.tokens += results.tokens

        full = self.tokens >= CHUNK_TOKENS if self._chunk_rows is None else self._rows >= self._chunk_rows
        if full:
            self.close_chunk()

    def close_chunk(self) -> None:
        """
        Store the results appended since the last chunk so that they survive a crash; do nothing without any.

        :raises OutputError: if the disk cannot be written
        """
        if self._writer is None or self._target is None:
            return

        # The order matters: content on disk, then the name, then the folder, then the journal that refers to it.
        with self._dropped_on_failure():
            self._writer.close()
            record = self._target.flush()
            if record is None:
                raise OSError(None, "a chunk of the work folder is not a file")

            self._target.commit()
            self._journal.append(
                ChunkEvent(
                    self._journal.progress.stored_rows, self._rows, self.tokens, size=record.size, sha256=record.sha256
                )
            )

        self.close()

    def remove(self) -> None:
        """Delete all chunks."""
        self.close()
        with suppress(OSError):
            for name in os.listdir(self._folder):
                if name.startswith("chunk"):
                    os.unlink(os.path.join(self._folder, name))

    def close(self) -> None:
        """Discard the results appended since the last chunk."""
        if self._target is not None:
            with suppress(OSError, pa.ArrowException):
                self._target.discard()

        self._target = self._writer = None
        self._rows = 0
        self.tokens = 0

    @contextmanager
    def _dropped_on_failure(self) -> Iterator[None]:
        """Discard the open chunk on any failure: it may end in the middle of a batch."""
        try:
            with output_errors(self.output):
                yield
        except BaseException:
            self.close()
            raise

    def _open(self) -> pa.ipc.RecordBatchStreamWriter:
        if not os.path.isdir(self._folder):
            raise work_folder_lost(self.output, self._folder)

        # A chunk of this number may be there that the journal does not name.
        path = chunk_path(self._folder, len(self._journal.progress.chunks))
        self._target = open_own_file(path)
        options = pa.ipc.IpcWriteOptions(compression="zstd")
        self._writer = pa.ipc.new_stream(self._target.file, self._schema, options=options)
        return self._writer


def work_folder_lost(output: Location, folder: str) -> OutputError:
    """Return the error for a work folder that somebody removed or moved during the run."""
    return OutputError(
        f"{output_name(output)}: its work folder {output_name(folder)} was removed or moved during the run; start the "
        "run again",
        reason="work-folder-lost",
        file=output_name(output),
        folder=output_name(folder),
    )


def results_mismatch(output: Location) -> OutputError:
    """Return the error for stored results that do not match the rows of the input."""
    return OutputError(
        f"{output_name(output)}: the stored results do not match the rows of the input; start again with --overwrite",
        reason="results-mismatch",
        file=output_name(output),
    )
