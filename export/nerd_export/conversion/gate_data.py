"""Read labelled data for the gate from files, folders and the hub, and compare its labels with the model's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from nerd_export.config import Level, TrainConfig
from nerd_export.conversion.gate import LabelledSplit
from nerd_export.data.checks import Sentence, sound_sentences
from nerd_export.data.corpus import TAG_COLUMNS, Split, read_file
from nerd_export.data.prepare import load_split
from nerd_export.scoring.evaluation import gold_spans
from nerd_onnx.errors import TrainingDataError
from nerd_onnx.inference.labels import LabelSet

_SHOWN_TYPES = 6


def labelled_splits(
    dataset: str | None, evaluations: Mapping[str, Path], labels: LabelSet, note: Callable[[str], None]
) -> dict[str, LabelledSplit]:
    """
    Read the data that the gate decides on, as ``validation``, and further files that are only reported.

    :param dataset: a file, a folder with a validation file, or a hub id; None for none
    :param note: receives what the user should know about the data
    :raises TrainingDataError: when data cannot be read, is invalid, or has none of the model's labels
    """
    splits = {}
    if dataset is not None:
        found = _validation(dataset, labels)
        splits["validation"] = LabelledSplit(Path(found.source).name, _checked(found, labels, note))

    for name, path in evaluations.items():
        split = read_file(path, TAG_COLUMNS[_level(labels)])
        splits[name] = LabelledSplit(path.name, _checked(split, labels, note), gated=False)

    return splits


def _level(labels: LabelSet) -> Level:
    return "fine" if labels.has_fine_level else "coarse"


def _validation(dataset: str, labels: LabelSet) -> Split:
    path = Path(dataset)
    if path.is_file():
        return read_file(path, TAG_COLUMNS[_level(labels)])
    # The test split is never read here: choices that the gate makes on it would bias it.
    return load_split(dataset, TrainConfig.dataset_config, "validation", _level(labels), None)


def _checked(split: Split, labels: LabelSet, note: Callable[[str], None]) -> Sequence[Sentence]:
    """Check the rows, and that the model has some of their labels."""
    sentences = sound_sentences(split)
    # At the finest level: coarse names can agree where the fine ones are those of another data set.
    types = {span[2] for s in sentences for span in gold_spans(s, labels, fine=labels.has_fine_level)}
    known = set(labels.fine_types)
    # No entity at all is allowed: the gate then measures false alarms.
    if types and not types & known:
        raise TrainingDataError(
            f"{split.source}: its labels ({_some(types)}) are none of the labels of the model ({_some(known)}); give "
            "data with the labels that the model was trained on, or rename the labels",
            reason="other-labels",
            file=split.source,
        )
    if unknown := types - known:
        note(f"{split.source}: the model has no label for {_some(unknown)}; it cannot find these entities")

    return sentences


def _some(names: set[str]) -> str:
    shown = sorted(names)[:_SHOWN_TYPES]
    return ", ".join(shown) + (f" and {len(names) - len(shown)} more" if len(names) > len(shown) else "")
