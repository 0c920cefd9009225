"""Join the chunks of a column so that the buffers depend on the values alone, and not on where the chunks end."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from nerd_onnx.formats.text_arrays import PLAIN_OF_VIEW


def joined(column: pa.ChunkedArray) -> pa.Array:
    """
    Return the values of a column as one array. *Shape:* (rows,)

    An output must not depend on the batches in which it was tagged. So it must not contain other bytes of a chunk's
    buffers, such as those after its values. pyarrow keeps the parts of each chunk for views, dense unions and runs, so
    these types are written anew. Inside of other types they are left as they are.
    """
    kind, chunks = column.type, column.chunks
    if isinstance(kind, pa.BaseExtensionType):
        storage = pa.chunked_array([chunk.storage for chunk in chunks], kind.storage_type)
        return pa.ExtensionArray.from_storage(kind, joined(storage))

    if kind in PLAIN_OF_VIEW:
        plain = pa.chunked_array([chunk.cast(PLAIN_OF_VIEW[kind]) for chunk in chunks])
        return joined(plain).cast(kind)
    if pa.types.is_run_end_encoded(kind):
        values = pa.chunked_array([pc.run_end_decode(chunk) for chunk in chunks])
        return pc.run_end_encode(joined(values), run_end_type=kind.run_end_type)

    # With nothing behind it, so that a single chunk is copied too.
    whole = pa.concat_arrays([*chunks, chunks[0].slice(0, 0)])

    if pa.types.is_union(kind) and kind.mode == "dense":
        return whole.take(pa.array(range(len(whole))))
    return whole
