"""Where a checkpoint or bundle comes from: its labels, and the record that nerd-train wrote beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nerd_export.config import Level
from nerd_export.models.names import bundle_named
from nerd_onnx.errors import ModelError, OptionError, first_line
from nerd_onnx.inference.bundle import Bundle
from nerd_onnx.inference.labels import LabelSet
from nerd_onnx.inference.word_joints import Join
from nerd_onnx.inference.words import WordRule

STATE_FILE = "training.json"


@dataclass(frozen=True)
class Origin:
    """
    Where a checkpoint comes from, or a bundle whose weights are read from its graph.

    :param training: what nerd-train recorded: recipe, command, data, best; empty for other checkpoints
    :param has_fine_level: whether the labels have two levels (``person-actor``)
    :param word_rule: what counts as a word
    :param bundle: the bundle whose graph is read; None for a checkpoint
    """

    training: Mapping[str, Any]
    has_fine_level: bool
    word_rule: WordRule
    bundle: Bundle | None = None

    @property
    def join(self) -> Join | None:
        """What the bundle states on how words become entities; None where it states nothing."""
        described = None if self.bundle is None else self.bundle.description
        return None if described is None else described.join

    @classmethod
    def of(cls, model: str) -> Origin:
        """
        Read the origin of a model.

        :param model: hub id or folder of a checkpoint or bundle, or ``default`` for the default model
        :raises ModelError: when the bundle is invalid, or the record was not written by nerd-train
        """
        bundle = bundle_named(model)
        if bundle is None:
            training = training_record(model)
            # nerd-train learns on treebank words; of other checkpoints nothing is known, and pre-tokens are what
            # transformers uses.
            return cls(training, bool(training.get("coarse")), "treebank" if training else "pretokens")

        # Checked like a file, because anybody may have written the nerd.json of a downloaded bundle.
        found: Any = (bundle.description.lineage.get("training") or {}) if bundle.description is not None else {}
        if not _is_record(found):
            raise ModelError(
                f"{bundle.name}: the lineage in its nerd.json was not written by nerd-export; export the model again",
                reason="bad-lineage",
                file=bundle.name,
            )

        return cls(found, bundle.labels.has_fine_level, bundle.word_rule, bundle)

    @property
    def segment_tokens(self) -> int | None:
        """Maximum segment length of the bundle, in tokens; None for a checkpoint."""
        return None if self.bundle is None else self.bundle.segment_tokens

    @property
    def licence(self) -> str | None:
        """SPDX id of the bundle's licence; None if it records none."""
        described = None if self.bundle is None else self.bundle.description
        found = None if described is None else described.lineage.get("licence")
        return found if isinstance(found, str) else None

    def calibration(self, labels: LabelSet, word_rule: WordRule) -> Mapping[str, Any] | None:
        """
        Return the calibration of the bundle; None for a checkpoint, or if other labels or words make it invalid.

        :param labels: labels of the new bundle
        :param word_rule: word rule of the new bundle
        """
        # A calibration was fitted on candidates: other labels or other words make other candidates.
        if self.bundle is None or (self.bundle.labels, self.bundle.word_rule) != (labels, word_rule):
            return None
        return None if self.bundle.description is None else self.bundle.description.calibration

    def labels(self, names: Sequence[str], level: Level | None) -> LabelSet:
        """
        Read the labels of the checkpoint.

        :param names: its label names in the order of the outputs
        :param level: whether they have two levels; None for the recorded level
        """
        if level == "fine" or (level is None and self.has_fine_level):
            return LabelSet.hierarchical(tuple(names))
        return LabelSet(tuple(names))


def labels_of(model: str, level: Level) -> LabelSet:
    """
    Return the labels of a fine-tuned checkpoint or a bundle at one level.

    :param model: hub id or folder of a checkpoint or bundle, or ``default`` for the default model
    :raises ModelError: when the bundle is invalid
    :raises OptionError: when the model has no labels of its own, or not at this level
    """
    bundle = bundle_named(model)
    if bundle is not None:
        found = bundle.labels
    else:
        import transformers

        try:
            names = transformers.AutoConfig.from_pretrained(model).id2label
        except (OSError, ValueError) as err:
            raise ModelError(
                f"{model}: its config.json cannot be read: {first_line(err)}", reason="cannot-load", file=model
            ) from err
        found = Origin.of(model).labels([names[i] for i in sorted(names)], None)

    # transformers names labels LABEL_0 and so on where a configuration names none.
    unnamed = all(name.startswith("LABEL_") for name in found.names)
    if unnamed or found.has_fine_level != (level == "fine"):
        why = "has no labels of its own" if unnamed else f"has labels of the {_level_of(found)} level"
        raise OptionError(
            f"--keep-labels: {model} {why}; give "
            + ("a fine-tuned model" if unnamed else f"--level {_level_of(found)}, or leave --keep-labels out"),
            reason="other-labels",
            option="--keep-labels",
            file=model,
        )

    return found


def _level_of(labels: LabelSet) -> Level:
    return "fine" if labels.has_fine_level else "coarse"


def training_record(model: str) -> dict[str, Any]:
    """
    Read the record that nerd-train wrote beside the checkpoint; empty for other checkpoints.

    :raises ModelError: when it was not written by nerd-train
    """
    path = Path(model) / STATE_FILE
    if not path.is_file():
        return {}

    remedy = "train again with nerd-train, or remove the file to export without its record"
    try:
        record = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as err:
        raise ModelError(
            f"{path}: not readable as JSON: {first_line(err)}; {remedy}", reason="not-json", file=str(path)
        ) from err

    if not _is_record(record):
        raise ModelError(
            f"{path}: is not a record written by nerd-train; {remedy}", reason="bad-training-record", file=str(path)
        )

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
