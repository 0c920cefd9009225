"""What a checkpoint says of itself: its labels, and the record that nerd-train left beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nerd_export.config import Level
from nerd_export.training.trainer import STATE_FILE
from nerd_onnx.errors import ModelError, first_line
from nerd_onnx.inference.labels import LabelSet
from nerd_onnx.inference.words import WordRule


def checkpoint_labels(names: Sequence[str], level: Level | None, training: Mapping[str, Any]) -> LabelSet:
    """
    Read the labels of a checkpoint.

    :param names: its label names in the order of the outputs
    :param level: whether they have two levels (``person-actor``); None for what nerd-train recorded
    :param training: that record
    """
    if level == "fine" or (level is None and training.get("coarse")):
        return LabelSet.hierarchical(tuple(names))
    return LabelSet(tuple(names))


def usual_word_rule(training: Mapping[str, Any]) -> WordRule:
    """Say what words are to a checkpoint: treebank's where nerd-train made it, else what its tokenizer makes."""
    return "treebank" if training else "pretokens"


def training_record(model: str) -> dict[str, Any]:
    """
    Read what nerd-train left beside the checkpoint; empty for other checkpoints.

    :raises ModelError: when it is not what nerd-train writes
    """
    path = Path(model) / STATE_FILE
    if not path.is_file():
        return {}
    remedy = "train again with nerd-train, or remove the file to export without its record"
    try:
        record = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as err:
        raise ModelError(f"{path}: not readable as JSON: {first_line(err)}; {remedy}") from err
    if not _is_record(record):
        raise ModelError(f"{path}: not the record that nerd-train writes; {remedy}")
    return dict(record)


def _is_record(record: object) -> bool:
    """Check the parts of a training record that the bundle and its card name."""
    if not isinstance(record, dict):
        return False
    recipe, data = record.get("recipe", {}), record.get("data", {})
    if not isinstance(recipe, dict) or not isinstance(data, dict):
        return False
    named = isinstance(recipe.get("model", ""), str)
    counted = isinstance(data.get("train"), str) and isinstance(data.get("train_sentences"), int)
    return named and (counted or not data)
