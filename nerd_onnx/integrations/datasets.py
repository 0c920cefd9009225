"""Hugging Face datasets: a function for ``Dataset.map``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import pyarrow as pa

from nerd_onnx.errors import ModelError, OutputError
from nerd_onnx.formats.columns import column_exists
from nerd_onnx.formats.texts import find_text_column
from nerd_onnx.integrations.columns import entities_of
from nerd_onnx.tagger import Tagger


def map_function(tagger: Tagger) -> Callable[[pa.Table], pa.Table]:
    """
    Give the function for ``dataset.with_format("arrow").map(function, batched=True)``.

    It may be sent to other processes (``num_proc``). It has one fingerprint for the same model and options, so that
    datasets finds its results again, and another for others. In Arrow format the new column has its type from the
    first row on; from Python lists the library would guess it.

    :param tagger: its options name the text column and the new one
    """
    return partial(_with_entities, tagger, tagger.schema_metadata())


def _with_entities(tagger: Tagger, facts: Mapping[str, str], batch: pa.Table) -> pa.Table:
    """
    Add the column to a batch.

    :param facts: what the tagger said of itself when the function was made; they are in its fingerprint
    """
    if not isinstance(batch, pa.Table):
        raise TypeError(
            f"map_function() takes Arrow tables, not {type(batch).__name__}; use "
            'dataset.with_format("arrow").map(function, batched=True)'
        )
    if tagger.schema_metadata() != facts:
        raise ModelError(
            f"{tagger.bundle.name}: the model changed after the call of map_function(); call it again",
            reason="model-changed",
            file=tagger.bundle.name,
        )
    field = tagger.entity_field()
    if field.name in batch.column_names:
        raise OutputError(
            column_exists("the dataset", field.name, "choose another name, Tagger.load(column=...)"),
            reason="column-exists",
            column=field.name,
        )
    place = find_text_column("the dataset", batch.schema, tagger.options.text_column)
    return batch.append_column(field, entities_of(tagger, batch.column(place)))
