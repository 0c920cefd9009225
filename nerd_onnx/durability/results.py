"""The results of tagging one input, stored in chunks that survive a crash."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import IO

import pyarrow as pa

from nerd_onnx.durability.journal import Event, Journal
from nerd_onnx.errors import OutputError
from nerd_onnx.stages import stage
from nerd_onnx.storage.atomic_file import sync_folder
from nerd_onnx.storage.closing import Closing
from nerd_onnx.storage.output_place import output_errors, output_name

CHUNK_TOKENS = 500_000  # half a minute of work on two cores: a crash may cost so much
_PART = "chunk.part"
_TOKENS = "tokens"


@dataclass(frozen=True)
class Results:
    """
    The results of one batch of rows.

    :param entities: the entities column. *Shape:* (rows,)
    :param reasons: why a row could not be tagged; null for tagged rows. *Shape:* (rows,)
    :param tokens: number of tokens of all texts
    """

    entities: pa.Array
    reasons: pa.Array
    tokens: int

    def __len__(self) -> int:
        return len(self.entities)


class ResultLog(Closing):
    """
    The results of one input, batch by batch: those that an earlier run stored, followed by new ones.

    New results are collected in a chunk. A full chunk is flushed, renamed into place and recorded in the journal, in
    this order: a chunk that the journal does not name does not exist. Stored chunks are verified by their SHA-256; the
    first damaged chunk and all after it are discarded, and their rows are tagged again.

    :param output: the output, for messages
    :param folder: the work folder
    :param journal: records the input's chunks
    :param entities: name and type of the new column
    :param chunk_rows: close a chunk at this number of rows; None to close it at :data:`CHUNK_TOKENS` tokens
    :ivar tokens: number of tokens appended since the last chunk
    """

    def __init__(self, output: str, folder: str, journal: Journal, entities: pa.Field, chunk_rows: int | None) -> None:
        self.output = output
        self._folder = folder
        self._journal = journal
        self._schema = pa.schema([entities, pa.field("reasons", pa.string())])
        self._chunk_rows = chunk_rows
        self._file: IO[bytes] | None = None
        self._writer: pa.ipc.RecordBatchStreamWriter | None = None
        self._rows = 0
        self.tokens = 0

        intact = next((i for i, chunk in enumerate(self._chunks) if not self._is_intact(chunk)), len(self._chunks))
        if intact < len(self._chunks):
            journal.append("keep", chunks=intact)

    @property
    def stored_rows(self) -> int:
        """Number of rows whose results are stored."""
        return sum(int(chunk["rows"]) for chunk in self._chunks)

    @property
    def stored_tokens(self) -> int:
        """Number of tokens of these rows."""
        return sum(int(chunk["tokens"]) for chunk in self._chunks)

    def stored(self) -> Iterator[Results]:
        """Yield the stored results, in the batches in which they were appended."""
        # A copy, because new chunks may be added while these are read.
        for chunk in list(self._chunks):
            with pa.OSFile(os.fsencode(self._path(chunk["file"])), "rb") as file, pa.ipc.open_stream(file) as reader:
                for batch, facts in reader.iter_batches_with_custom_metadata():
                    yield Results(batch.column(0), batch.column(1), int(facts[_TOKENS.encode()]))

    @stage("write")
    def append(self, results: Results) -> None:
        """
        Append the results of the next batch, and close the chunk when it is full.

        :raises OutputError: if the disk cannot be written
        """
        with self._dropped_on_failure():
            writer = self._writer or self._open()
            batch = pa.RecordBatch.from_arrays([results.entities, results.reasons], schema=self._schema)
            writer.write_batch(batch, custom_metadata={_TOKENS: str(results.tokens)})

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
        if self._writer is None or self._file is None:
            return

        # The order matters: content on disk, then the name, then the folder, then the journal that refers to it.
        name = f"chunk-{len(self._chunks):06}.arrow"
        with self._dropped_on_failure():
            self._writer.close()
            self._file.flush()
            os.fsync(self._file.fileno())
            size, digest = os.fstat(self._file.fileno()).st_size, _sha256(self._path(_PART))

            os.replace(self._path(_PART), self._path(name))
            sync_folder(self._folder)
            self._journal.append("chunk", file=name, rows=self._rows, tokens=self.tokens, size=size, sha256=digest)

        self.close()

    def remove(self) -> None:
        """Delete all chunks."""
        self.close()
        for name in os.listdir(self._folder):
            if name.startswith("chunk"):
                with suppress(OSError):
                    os.unlink(self._path(name))

    def close(self) -> None:
        """Discard the results appended since the last chunk."""
        if self._file is not None:
            with suppress(OSError, pa.ArrowException):
                self._file.close()
        self._file = self._writer = None
        self._rows = 0
        self.tokens = 0

    @property
    def _chunks(self) -> list[Event]:
        return self._journal.progress.chunks

    def _path(self, name: str) -> str:
        return os.path.join(self._folder, name)

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
        self._file = open(self._path(_PART), "wb")  # noqa: SIM115 - closed with its chunk
        options = pa.ipc.IpcWriteOptions(compression="zstd")
        self._writer = pa.ipc.new_stream(self._file, self._schema, options=options)
        return self._writer

    def _is_intact(self, chunk: Event) -> bool:
        """Whether a chunk is on disk as the journal records it."""
        with suppress(OSError):
            path = self._path(chunk["file"])
            size: int = chunk["size"]
            return os.stat(path).st_size == size and _sha256(path) == str(chunk["sha256"])
        return False


def results_mismatch(output: str) -> OutputError:
    """Return the error for stored results that do not match the rows of the input."""
    return OutputError(
        f"{output_name(output)}: the stored results do not match the rows of the input; start again with --overwrite",
        reason="results-mismatch",
        file=output_name(output),
    )


def _sha256(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
