"""The entities column of record batches and files: its field, its values and the metadata of its schema."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa

from nerd_onnx.formats.columns import entities_array, entities_type, schema_metadata
from nerd_onnx.inference.bundle import Bundle
from nerd_onnx.inference.labels import LabelSet
from nerd_onnx.options import TaggedTexts, TagOptions


def entity_field(labels: LabelSet, options: TagOptions) -> pa.Field:
    """Return name and type of the entities column."""
    return pa.field(options.column, entities_type(labels.has_fine_level))


def entity_column(tagged: TaggedTexts, labels: LabelSet, options: TagOptions) -> pa.ListArray:
    """Return entities as an Arrow column. *Shape:* (texts,)."""
    spans = tagged.spans
    return entities_array(
        tagged.texts,
        row=spans.row,
        start=spans.start,
        end=spans.end,
        label=spans.label,
        labels=labels.types,
        fine=spans.fine if labels.has_fine_level else None,
        fine_labels=labels.fine_types,
        score=spans.score,
        unit=options.offset_unit,
    )


def entity_metadata(bundle: Bundle, options: TagOptions, facts: Mapping[str, str]) -> dict[str, str]:
    """
    Return the metadata of a schema with an entities column: offset unit, model, and how the model was quantized.

    :param facts: further facts; the layout is nested and the kernels are onnxruntime's unless they name others
    """
    known = {
        "model_sha256": bundle.model_sha256,
        "quantization": bundle.quantization,
        "calibration": bundle.calibration_digest,
        "word_rule": bundle.word_rule,
        "letter_case": str(bundle.letter_case).lower(),
        "layout": "nested",
        "kernels": bundle.kernels,
        **facts,
    }
    found: dict[str, str] = {}
    for name, text_column in zip(options.new_columns, options.text_columns, strict=True):
        # With one text column its name is among the options of the run, and the metadata stays as it was.
        own = {} if isinstance(options.text_column, str) else {"text_column": text_column}
        found |= schema_metadata(name, offset_unit=options.offset_unit, **known, **own)

    return found
