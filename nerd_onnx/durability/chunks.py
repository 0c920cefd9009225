"""The files of a work folder that hold the results of tagging, chunk by chunk, and the check that they are intact."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import pyarrow as pa

from nerd_onnx.durability.events import ChunkEvent
from nerd_onnx.storage.regular_file import open_regular

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


def read_chunk(path: str, chunk: ChunkEvent, schema: pa.Schema) -> list[Results] | None:
    """
    Return the results of a chunk, in the batches in which they were stored; None if it is damaged.

    It is damaged if its bytes are not those that were recorded, or are not results of the recorded rows and tokens.

    :param chunk: what the journal records of it
    :param schema: see :func:`chunk_schema`
    """
    # Values that fit the hash and are no results, as only a person can write them, raise one of these errors.
    with suppress(OSError, pa.ArrowException, ValueError, KeyError, TypeError):
        with open_regular(path) as file:
            # Compared before the read: the journal may name a size that no memory has.
            if os.fstat(file.fileno()).st_size != chunk.size:
                return None

            # A chunk is half a minute of work and fits into memory. Read once, what is used is what was compared.
            content = file.read(chunk.size)

        if len(content) != chunk.size or hashlib.sha256(content).hexdigest() != chunk.sha256:
            return None

        with pa.ipc.open_stream(content) as reader:
            if not reader.schema.equals(schema):
                return None

            found = [_results(*read) for read in reader.iter_batches_with_custom_metadata()]

        counts = sum(map(len, found)), sum(results.tokens for results in found)
        return found if counts == (chunk.rows, chunk.tokens) else None

    return None


def _results(batch: pa.RecordBatch, facts: Mapping[bytes, bytes]) -> Results:
    # pyarrow checks no offsets when it reads: those of a forged chunk would lead outside of its buffers.
    batch.validate(full=True)
    return Results(batch.column(0), batch.column(1), int(facts[_TOKENS.encode()]), facts[_TEXTS.encode()].decode())


def intact_chunks(folder: str, chunks: Sequence[ChunkEvent], schema: pa.Schema) -> int:
    """
    Return the number of chunks before the first damaged one. All of them are read.

    :param folder: the work folder
    :param chunks: what the journal records of them
    :param schema: see :func:`chunk_schema`
    """
    for number, chunk in enumerate(chunks):
        if read_chunk(chunk_path(folder, number), chunk, schema) is None:
            return number
    return len(chunks)
