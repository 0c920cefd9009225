"""Turn the options of ``nerd-train`` into checked sentences and their labels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
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
from nerd_export.data.corpus import (
    SPLIT_FILES,
    TAG_COLUMNS,
    TOKENS_COLUMN,
    MissingColumnError,
    Split,
    find_split_file,
    read_file,
    read_hub,
)
from nerd_export.data.schemes import in_scheme, split_scheme
from nerd_export.data.training_data import TrainingData
from nerd_onnx.errors import OptionError, TrainingDataError
from nerd_onnx.formats.open_input import open_reader
from nerd_onnx.inference.labels import LabelSet, Scheme, coarse_type, split_tag

_SHOWN_WORDS = 12


@dataclass(frozen=True)
class LabelledFile:
    """
    A labelled file as the user named it.

    :param share: number of times that each sentence is written in each form of an epoch; the fraction is a probability
    :param known: coarse types that its sentences are labelled for; None for what its column ``known_types`` says, or
        all types without such a column
    """

    path: Path
    share: float = 1.0
    known: frozenset[str] | None = None


def load_split(
    dataset: str,
    config: str,
    split: str,
    level: Level,
    file: Path | None = None,
    *,
    words_column: str = TOKENS_COLUMN,
    tags_column: str | None = None,
) -> Split:
    """
    Read one split from a file, a folder of split files, or the hub: the first of these that is given.

    A file with a column ``split`` may hold several splits. A source without fine tags is read with its coarse ones.

    :param words_column: column of the words
    :param tags_column: column of the tags; None for the usual one of the level
    :raises TrainingDataError: when there is nothing to read
    """

    def read(column: str) -> Split:
        if file is not None:
            return read_file(file, column, words_column).part(split)
        if (path := _file_of(Path(dataset), split)) is not None:
            return read_file(path, column, words_column)
        return read_hub(dataset, config, split, column, words_column)

    if tags_column is not None:
        return read(tags_column)

    try:
        return read(TAG_COLUMNS[level])
    except MissingColumnError as err:
        if level == "coarse":
            raise
        try:
            return replace(read(TAG_COLUMNS["coarse"]), is_coarse=True)
        except MissingColumnError:
            raise err from None  # the message about the column that was asked for


def _file_of(dataset: Path, split: str) -> Path | None:
    """Return the file of a split if the data set is a folder; None if it is a name of the hub."""
    if dataset.is_dir():
        path = find_split_file(dataset, split)
        if path is None:
            names = " or ".join(f"{stem}.parquet/.jsonl/.conll" for stem in SPLIT_FILES[split])
            raise TrainingDataError(
                f"{dataset}: has no {split} file; expected {names}",
                reason="missing-split",
                file=str(dataset),
                found=split,
            )
        return path

    if dataset.is_file():
        raise TrainingDataError(
            f"{dataset}: is a file; give its folder, or --train-file and --validation-file",
            reason="not-folder",
            file=str(dataset),
        )

    return None


def prepare(
    config: TrainConfig,
    train_files: Sequence[LabelledFile],
    validation_files: Sequence[LabelledFile],
    tag_names: Sequence[str] | None,
    *,
    unlabelled: Path | None = None,
    labels: LabelSet | None = None,
    drop_bad_rows: bool,
    drop_shared: bool,
    note: Callable[[str], None],
) -> TrainingData:
    """
    Read and check the training and validation splits.

    :param train_files: files to train on instead of the data set's split
    :param validation_files: files to choose the best epoch on, each a set of its own
    :param tag_names: names of integer tags, for files that store none
    :param unlabelled: Parquet or JSON Lines file whose column ``text`` a teacher labels
    :param labels: the labels of the model; None for those of the training data
    :param drop_bad_rows: leave out invalid rows instead of stopping
    :param drop_shared: leave out of training the sentences that are also in validation
    :param note: receives findings that do not stop the training
    :raises TrainingDataError: with file, row and problem
    :raises OptionError: when a tier with a weight does not occur, or validation data is missing
    """
    if train_files and not validation_files and config.dataset == TrainConfig.dataset:
        raise OptionError(
            "--train-file needs --validation-file, or --dataset with a validation file",
            reason="needs-validation-file",
            option="--train-file",
        )

    findings = Findings()
    reading = Reading(config.null_tags == "unknown", config.tier_weights)
    loaded = [_Loaded.of(config, "train", file, tag_names) for file in train_files or (None,)]
    splits = _in_one_scheme([one.split for one in loaded], labels)

    # A mistyped tier would silently leave all weights at 1.
    check_tiers(splits, config.tier_weights)
    used, unused = _parted(splits, config.max_train_samples)

    # Labels come from all rows, so that --max-train-samples does not change the label set.
    given = labels
    labels = given or _labels([*used, *unused], config, reading)

    train: list[Sentence] = []
    for split, source in zip(used, loaded, strict=True):
        # --max-train-samples may leave a file without rows, which is no fault of it.
        if split.rows or not source.split.rows:
            train += source.sentences(split, _allowed_names(split, labels, given), findings, reading)

    sets = [
        _validation_set(_Loaded.of(config, "validation", file, tag_names), labels, reading, findings)
        for file in validation_files or (None,)
    ]
    validation = [sentence for _, sentences in sets for sentence in sentences]
    # Dropping every row would leave nothing to train on: then the problems are the message.
    if drop_bad_rows and train and validation:
        findings.notes.extend(f"left out: {problem}" for problem in findings.problems)
    else:
        findings.raise_problems()

    train = _without_shared(train, validation, findings, drop=drop_shared)
    for text in [*_coarse_notes(splits, labels), *findings.notes]:
        note(text)

    counts = tuple((Path(source).name, len(sentences)) for source, sentences in sets)
    return TrainingData(
        train,
        validation,
        labels,
        train_source=", ".join(split.source for split in splits),
        validation_source=", ".join(source for source, _ in sets),
        unlabelled=() if unlabelled is None else tuple(_texts(unlabelled)),
        unlabelled_source=None if unlabelled is None else str(unlabelled),
        validation_sets=counts if len(sets) > 1 else (),
    )


@dataclass(frozen=True)
class _Loaded:
    """A split, and what the user said about its file."""

    split: Split
    share: float = 1.0
    known: frozenset[str] | None = None

    @classmethod
    def of(cls, config: TrainConfig, name: str, file: LabelledFile | None, tag_names: Sequence[str] | None) -> _Loaded:
        """Read one split; integer tags without names in the file get those of ``tag_names``."""
        found = load_split(
            config.dataset,
            config.dataset_config,
            name,
            config.level,
            None if file is None else file.path,
            words_column=config.words_column,
            tags_column=config.tags_column,
        )
        split = found if found.tag_names or tag_names is None else replace(found, tag_names=tuple(tag_names))
        return cls(split) if file is None else cls(split, file.share, file.known)

    @property
    def is_partial(self) -> bool:
        """Whether some sentences are labelled for some types only."""
        return self.known is not None or any(row.known_types is not None for row in self.split.rows)

    def sentences(
        self, split: Split, names: Sequence[str] | None, findings: Findings, reading: Reading
    ) -> list[Sentence]:
        """
        Check rows of the split, and return their sentences with share and known types.

        :param split: the rows; the same as ``self.split``, in another scheme or fewer
        :param names: tags that may occur; None for any
        """
        return [
            replace(
                sentence,
                share=self.share,
                known=self.known if self.known is not None else sentence.known,
                is_coarse=split.is_coarse,
            )
            for sentence in check_split(split, names, findings, reading)
        ]


def _validation_set(one: _Loaded, labels: LabelSet, reading: Reading, findings: Findings) -> tuple[str, list[Sentence]]:
    """Return the name of a validation set, and its sentences."""
    split = in_scheme(one.split, labels.scheme or "IO")
    # A set that is labelled for some types may have unknown tags, whatever the training data has.
    lenient = Reading(null_is_unknown=reading.null_is_unknown or one.is_partial)
    # A tag that training never saw cannot be predicted, so it is an error and not a lower score.
    return one.split.source, one.sentences(split, _allowed_names(split, labels, labels), findings, lenient)


def _in_one_scheme(splits: Sequence[Split], labels: LabelSet | None) -> list[Split]:
    """Return all splits with the tag scheme of the labels, or of the first split that has an entity."""
    scheme = (
        labels.scheme
        if labels is not None
        else next((found for split in splits if (found := split_scheme(split))), None)
    )
    return [split if scheme is None else in_scheme(split, scheme) for split in splits]


def _labels(splits: Sequence[Split], config: TrainConfig, reading: Reading) -> LabelSet:
    """
    Return the labels of the model: the tags of the splits that have the wanted level.

    :raises TrainingDataError: when fine tags are wanted and no split has any
    """
    whole = [split for split in splits if not split.is_coarse]
    if not whole:
        raise TrainingDataError(
            f"{splits[0].source}: has no column {TAG_COLUMNS['fine']}, and neither has any other file; --level fine "
            "needs at least one file with fine tags",
            reason="column-missing",
            file=splits[0].source,
            column=TAG_COLUMNS["fine"],
        )

    inventory = tag_inventory(_sound(whole, reading))
    return LabelSet.hierarchical(inventory) if config.level == "fine" else LabelSet(inventory)


def _allowed_names(split: Split, labels: LabelSet, given: LabelSet | None) -> tuple[str, ...] | None:
    """Return the tags that a split may have; None for any, where the labels come from the tags."""
    if split.is_coarse:
        return _coarse_names(labels)
    return None if given is None else given.names


def _coarse_names(labels: LabelSet) -> tuple[str, ...]:
    """Return the tags that a file with coarse tags may have, in the scheme of the labels."""
    scheme = labels.scheme or "IO"
    return tuple(dict.fromkeys(_coarse_tag(name, scheme) for name in labels.names))


def _coarse_tag(name: str, scheme: Scheme) -> str:
    prefix, kind = split_tag(name, scheme)
    if not kind:
        return name
    return coarse_type(kind) if scheme == "IO" else f"{prefix}-{coarse_type(kind)}"


def _coarse_notes(splits: Sequence[Split], labels: LabelSet) -> list[str]:
    """Return what to say about files without fine tags."""
    return [
        f"{split.source}: has coarse tags only; each stands for all its fine labels ({len(labels.names)} labels in all)"
        for split in splits
        if split.is_coarse
    ]


def _parted(splits: Sequence[Split], most: int | None) -> tuple[list[Split], list[Split]]:
    """Divide the rows of all splits into the first ``most``, to train on, and the others."""
    used, unused = [], []
    for split in splits:
        rows = split.rows[:most]
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
