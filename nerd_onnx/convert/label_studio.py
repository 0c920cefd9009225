"""Label Studio: tasks with predictions, for a labeling interface with a Text ``text`` and Labels ``label``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from nerd_onnx.errors import InputError
from nerd_onnx.formats.tagged_file import TaggedEntity, TaggedRow

_MODEL_VERSION = "nerd-onnx"


def label_studio(rows: Iterable[TaggedRow]) -> Iterator[dict[str, Any]]:
    """
    Yield one task per row. Offsets are in code points, as in Label Studio since 2021.

    The score of a prediction is the lowest score of its entities, so that uncertain texts can be labeled first.

    :raises InputError: if a score is not a finite number, which JSON does not have
    """
    for row in rows:
        _check_scores(row)
        prediction: dict[str, Any] = {
            "model_version": _MODEL_VERSION,
            "result": [_region(row.text or "", number, entity) for number, entity in enumerate(row.entities or ())],
        }

        scores = [entity.score for entity in row.entities or () if entity.score is not None]
        if scores:
            prediction["score"] = _rounded(min(scores))

        yield {"data": {"text": row.text, "row": row.number}, "predictions": [prediction]}


def _region(text: str, number: int, entity: TaggedEntity) -> dict[str, Any]:
    region: dict[str, Any] = {
        # Label Studio wants ids that are unique within a task.
        "id": f"e{number}",
        "from_name": "label",
        "to_name": "text",
        "type": "labels",
        "value": {
            "start": entity.start,
            "end": entity.end,
            "text": text[entity.start : entity.end],
            "labels": [entity.label],
        },
    }
    return region if entity.score is None else {**region, "score": _rounded(entity.score)}


def _check_scores(row: TaggedRow) -> None:
    for entity in row.entities or ():
        if entity.score is not None and not 0 <= entity.score <= 1:  # NaN compares as false
            raise InputError(
                f"{row.place}: entity {entity.start}:{entity.end} has the score {entity.score}; expected a number from "
                "0 to 1",
                reason="bad-score",
                **row.where,
                found=str(entity.score),
            )


def _rounded(score: float) -> float:
    """Return a score without the digits beyond the precision of float32."""
    return round(score, 7)
