"""Hugging Face datasets: a function for ``Dataset.map``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import pyarrow as pa

from nerd_onnx.errors import ModelError, OutputError
from nerd_onnx.formats.columns import column_exists
from nerd_onnx.formats.text_arrays import find_text_column
from nerd_onnx.integrations.columns import entities_of
from nerd_onnx.tagger import Tagger


def map_function(tagger: Tagger) -> Callable[[pa.Table], pa.Table]:
    """
    Return the function for ``dataset.with_format("arrow").map(function, batched=True)``.

    The function can be sent to other processes (``num_proc``). Its fingerprint depends on the model and the options, so
    that datasets finds cached results. Arrow format fixes the type of the new column; from Python lists the library
    would have to guess it.

    :param tagger: its options name the text columns and the new columns
    """
    return partial(_with_entities, tagger, tagger.schema_metadata())


def _with_entities(tagger: Tagger, facts: Mapping[str, str], batch: pa.Table) -> pa.Table:
    """
    Return a batch with the entities columns added.

    :param facts: metadata of the tagger when the function was made; they are part of the fingerprint
    :raises TypeError: when the batch is not an Arrow table
    :raises ModelError: when the model changed since then
    :raises OutputError: when a new column exists
    :raises InputError: when a text column is missing or has no strings
    """
    if not isinstance(batch, pa.Table):
        raise TypeError(
            f"map_function() takes Arrow tables, not {type(batch).__name__}; use "
            'dataset.with_format("arrow").map(function, batched=True)'
        )

    # A worker process loads the model from its folder again, which may have been replaced in the meantime.
    if tagger.schema_metadata() != facts:
        raise ModelError(
            f"{tagger.bundle.name}: the model changed after the call of map_function(); call it again",
            reason="model-changed",
            file=tagger.bundle.name,
        )

    taken = next((name for name in tagger.options.new_columns if name in batch.column_names), None)
    if taken is not None:
        raise OutputError(
            column_exists("the dataset", taken, "choose another name, Tagger.load(column=...)"),
            reason="column-exists",
            column=taken,
        )

    for text_column, field in zip(
        tagger.options.columns_of_texts("map_function()"), tagger.entity_fields(), strict=True
    ):
        place = find_text_column("the dataset", batch.schema, text_column)
        batch = batch.append_column(field, entities_of(tagger, batch.column(place)))

    return batch
