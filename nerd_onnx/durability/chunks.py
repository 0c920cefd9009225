"""The files of a work folder that hold the results of tagging, chunk by chunk, and the check that they are intact."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

import pyarrow as pa

from nerd_onnx.durability.events import ChunkEvent
from nerd_onnx.storage.regular_file import regular_sha256

_TOKENS = "tokens"
_TEXTS = "texts"


@dataclass(frozen=True)
class Results:
    """
    The results of one batch of rows.

    :param entities: the entities column. *Shape:* (rows,)
    :param reasons: why a row could not be tagged; null for tagged rows. *Shape:* (rows,)
    :param tokens: number of tokens of all texts
    :param texts: fingerprint of the texts, see :func:`texts_fingerprint`; empty if the results are not stored
    """

    entities: pa.Array
    reasons: pa.Array
    tokens: int
    texts: str = ""

    def __len__(self) -> int:
        return len(self.entities)

    def write(self, writer: pa.ipc.RecordBatchStreamWriter, schema: pa.Schema) -> None:
        """Write the results as one batch of a chunk."""
        batch = pa.RecordBatch.from_arrays([self.entities, self.reasons], schema=schema)
        writer.write_batch(batch, custom_metadata={_TOKENS: str(self.tokens), _TEXTS: self.texts})


def chunk_schema(entities: pa.Field) -> pa.Schema:
    """Return the schema of chunks. ``entities`` is name and type of the entities column."""
    return pa.schema([entities, pa.field("reasons", pa.string())])


def chunk_path(folder: str, number: int) -> str:
    """Return the path of a chunk in a work folder. ``number`` counts from 0."""
    return os.path.join(folder, f"chunk-{number:06}.arrow")


def read_chunk(path: str) -> Iterator[Results]:
    """Yield the results of a chunk that is intact, in the batches in which they were stored."""
    with pa.OSFile(os.fsencode(path), "rb") as file, pa.ipc.open_stream(file) as reader:
        for batch, facts in reader.iter_batches_with_custom_metadata():
            batch.validate(full=True)
            yield Results(
                batch.column(0), batch.column(1), int(facts[_TOKENS.encode()]), facts[_TEXTS.encode()].decode()
            )


def intact_chunks(folder: str, chunks: Sequence[ChunkEvent], schema: pa.Schema) -> int:
    """
    Return the number of chunks before the first damaged one. All of them are read.

    :param folder: the work folder
    :param chunks: what the journal records of them
    :param schema: see :func:`chunk_schema`
    """
    for number, chunk in enumerate(chunks):
        if not _is_intact(chunk_path(folder, number), chunk, schema):
            return number
    return len(chunks)


def _is_intact(path: str, chunk: ChunkEvent, schema: pa.Schema) -> bool:
    """Whether a chunk has the recorded bytes, and these are results of the recorded number of rows and tokens."""
    # Values that fit the hash and are no results, as only a person can write them, raise one of these errors.
    with suppress(OSError, pa.ArrowException, ValueError, KeyError, TypeError):
        if os.stat(path).st_size != chunk.size or regular_sha256(path) != chunk.sha256:
            return False
        with pa.OSFile(os.fsencode(path), "rb") as file, pa.ipc.open_stream(file) as reader:
            if not reader.schema.equals(schema):
                return False

        rows = tokens = 0
        for results in read_chunk(path):
            rows, tokens = rows + len(results), tokens + results.tokens
        return (rows, tokens) == (chunk.rows, chunk.tokens)
    return False
