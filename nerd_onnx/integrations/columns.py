"""Turn a column of texts into a column of entities, batch by batch. The other modules share this function."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from nerd_onnx.formats.columns import text_values
from nerd_onnx.tagger import Tagger

_BATCH_ROWS = 2048


def entities_of(tagger: Tagger, texts: pa.Array | pa.ChunkedArray) -> pa.ChunkedArray:
    """
    Return the entities of a column of texts.

    :param texts: an array of any string type. *Shape:* (rows,)
    :return: one list of entities per row, null for null. *Shape:* (rows,)
    :raises InputError: when the column does not contain strings
    """
    # As a stream, so that one batch is tokenized while the network runs another.
    tagged = tagger.tag_stream(_batches(tagger.options.columns_of_texts("a column of texts")[0], texts))
    return pa.chunked_array([tagger.entity_column(batch) for batch in tagged], tagger.entity_field().type)


def _batches(name: str, texts: pa.Array | pa.ChunkedArray) -> Iterator[list[str | None]]:
    # A table takes an array as well as a column in chunks.
    for batch in pa.table([texts], [name]).to_batches(max_chunksize=_BATCH_ROWS):
        yield text_values(batch, name)
