"""Read labelled data for the gate from files, folders and the hub."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from nerd_export.config import Level, TrainConfig
from nerd_export.conversion.gate import LabelledSplit
from nerd_export.data.labelled import Labelled, labelled_files, labelled_rows, read_labelled
from nerd_export.data.prepare import load_split
from nerd_onnx.errors import OptionError
from nerd_onnx.inference.labels import LabelSet

VALIDATION = "validation"


def labelled_splits(
    dataset: str | None,
    evaluations: Mapping[str, Path],
    labels: LabelSet,
    note: Callable[[str], None],
    *,
    calibrate_on: Sequence[Path] = (),
) -> dict[str, LabelledSplit]:
    """
    Read the data that the gate decides on, as ``validation``, and further files.

    :param dataset: a file, a folder with a validation file, or a hub id; None for none
    :param evaluations: files that are only reported, by name
    :param calibrate_on: files, and folders of them, on which scores are fitted together with ``dataset``. Of a file
        with a column ``split``, the rows of validation are read. Each has the name of its file
    :param note: receives what the user should know about the data
    :raises TrainingDataError: when data cannot be read, is invalid, or has none of the model's labels
    :raises OptionError: when two splits have one name
    """
    splits = {}
    if dataset is not None:
        splits[VALIDATION] = LabelledSplit(_validation(dataset, labels, note), gated=True, fits=True)

    named = [(name, path, False) for name, path in evaluations.items()]
    named += [(path.stem, path, True) for path in labelled_files(calibrate_on, note)]

    for name, path, fits in named:
        if name in splits:
            raise OptionError(
                f"two labelled files have the name {name!r}: {path} and {splits[name].source}; rename one of them",
                reason="same-name",
                option="--calibrate-on" if fits else "--evaluate",
                found=name,
            )

        # Never the rows of another split: what is fitted on test data says nothing about new text.
        found = read_labelled(path, labels, None, note, split=VALIDATION if fits else None)
        splits[name] = LabelledSplit(found, fits=fits)

    return splits


def _validation(dataset: str, labels: LabelSet, note: Callable[[str], None]) -> Labelled:
    path = Path(dataset)
    if path.is_file():
        return read_labelled(path, labels, None, note)

    # The test split is never read here: choices that the gate makes on it would bias it.
    level: Level = "fine" if labels.has_fine_level else "coarse"
    rows = load_split(dataset, TrainConfig.dataset_config, VALIDATION, level, None)
    return labelled_rows(rows, labels, None, note, fine=labels.has_fine_level and not rows.is_coarse)
