"""Turn the options of ``nerd-train`` into checked sentences and their labels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from nerd_export.config import Level, TrainConfig
from nerd_export.data.checks import (
    Findings,
    Reading,
    Sentence,
    check_split,
    check_tiers,
    shared_sentences,
    tag_inventory,
)
from nerd_export.data.corpus import SPLIT_FILES, TAG_COLUMNS, Split, find_split_file, read_file, read_hub
from nerd_export.data.training_data import TrainingData
from nerd_onnx.errors import OptionError, TrainingDataError
from nerd_onnx.formats.readers import open_reader
from nerd_onnx.inference.labels import LabelSet

_SHOWN_WORDS = 12


def load_split(dataset: str, config: str, split: str, level: Level, file: Path | None = None) -> Split:
    """
    Read one split from a file, a folder of split files, or the hub: the first of these that is given.

    :raises TrainingDataError: when there is nothing to read
    """
    column = TAG_COLUMNS[level]
    if file is not None:
        return read_file(file, column)

    folder = Path(dataset)
    if folder.is_dir():
        path = find_split_file(folder, split)
        if path is None:
            names = " or ".join(f"{stem}.parquet/.jsonl/.conll" for stem in SPLIT_FILES[split])
            raise TrainingDataError(
                f"{folder}: has no {split} file; expected {names}",
                reason="missing-split",
                file=str(folder),
                found=split,
            )
        return read_file(path, column)

    if folder.is_file():
        raise TrainingDataError(
            f"{folder}: is a file; give its folder, or --train-file and --validation-file",
            reason="not-folder",
            file=str(folder),
        )

    return read_hub(dataset, config, split, column)


def prepare(
    config: TrainConfig,
    train_files: Sequence[Path],
    validation_file: Path | None,
    tag_names: Sequence[str] | None,
    *,
    unlabelled: Path | None = None,
    drop_bad_rows: bool,
    drop_shared: bool,
    note: Callable[[str], None],
) -> TrainingData:
    """
    Read and check the training and validation splits.

    :param train_files: files to train on instead of the data set's split
    :param tag_names: names of integer tags, for files that store none
    :param unlabelled: Parquet or JSON Lines file whose column ``text`` a teacher labels
    :param drop_bad_rows: leave out invalid rows instead of stopping
    :param drop_shared: leave out of training the sentences that are also in validation
    :param note: receives findings that do not stop the training
    :raises TrainingDataError: with file, row and problem
    :raises OptionError: when a tier with a weight does not occur, or validation data is missing
    """
    if train_files and validation_file is None and config.dataset == TrainConfig.dataset:
        raise OptionError(
            "--train-file needs --validation-file, or --dataset with a validation file",
            reason="needs-validation-file",
            option="--train-file",
        )

    train_splits = [_load(config, "train", path, tag_names) for path in train_files or (None,)]
    validation_split = _load(config, "validation", validation_file, tag_names)
    findings = Findings()
    reading = Reading(config.null_tags == "unknown", config.tier_weights)
    # A mistyped tier would silently leave all weights at 1.
    check_tiers(train_splits, config.tier_weights)
    used, unused = _parted(train_splits, config.max_train_samples)
    train = [sentence for split in used for sentence in check_split(split, None, findings, reading)]
    # Labels come from all rows, so that --max-train-samples does not change the label set.
    inventory = tag_inventory([*train, *_sound(unused, reading)])
    # A tag that training never saw cannot be predicted, so it is an error and not a lower score.
    validation = check_split(validation_split, inventory, findings)
    # Dropping every row would leave nothing to train on: then the problems are the message.
    if drop_bad_rows and train and validation:
        findings.notes.extend(f"left out: {problem}" for problem in findings.problems)
    else:
        findings.raise_problems()

    train = _without_shared(train, validation, findings, drop=drop_shared)
    for text in findings.notes:
        note(text)

    labels = LabelSet.hierarchical(inventory) if config.level == "fine" else LabelSet(inventory)
    return TrainingData(
        train,
        validation,
        labels,
        ", ".join(split.source for split in train_splits),
        validation_split.source,
        () if unlabelled is None else tuple(_texts(unlabelled)),
        None if unlabelled is None else str(unlabelled),
    )


def _load(config: TrainConfig, split: str, file: Path | None, tag_names: Sequence[str] | None) -> Split:
    """Read one split; integer tags without names in the file get those of ``tag_names``."""
    found = load_split(config.dataset, config.dataset_config, split, config.level, file)
    return found if found.tag_names or tag_names is None else replace(found, tag_names=tuple(tag_names))


def _parted(splits: Sequence[Split], most: int | None) -> tuple[list[Split], list[Split]]:
    """Divide the rows of all splits into the first ``most``, to train on, and the others."""
    used, unused = [], []
    for split in splits:
        rows = split.rows[:most]
        if rows or not split.rows:
            used.append(replace(split, rows=rows))
        unused.append(replace(split, rows=split.rows[len(rows) :]))
        most = None if most is None else most - len(rows)

    return used, unused


def _sound(splits: Sequence[Split], reading: Reading) -> Iterator[Sentence]:
    """Yield the valid sentences of rows that are not trained on: their tags are labels of the model too."""
    for split in splits:
        yield from check_split(split, None, Findings(), reading)


def _texts(path: Path) -> Iterator[str]:
    """Read the texts of a file as ``nerd-tag`` would; empty ones are left out."""
    with open_reader(
        str(path), format=None, text_column="text", typed=True, batch_rows=10_000, batch_bytes=1 << 24, limit=None
    ) as source:
        for batch in source.batches():
            yield from filter(None, batch.texts.to_pylist())


def _without_shared(
    train: list[Sentence], validation: list[Sentence], findings: Findings, *, drop: bool
) -> list[Sentence]:
    """Report sentences that are in both splits, and leave them out of training if asked to."""
    shared = shared_sentences(train, validation)
    if not shared:
        return train
    example = " ".join(min(shared)[:_SHOWN_WORDS])
    remedy = "left out of training" if drop else "leave them out of training with --drop-shared"
    findings.notes.append(f"{len(shared)} sentence(s) are in train and validation, such as {example!r}: {remedy}")
    return [s for s in train if s.tokens not in shared] if drop else train
