"""Labelled files of any kind as sentences to score a model on, with the labels that they can judge."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from nerd_export.data.checks import Reading, Sentence, sound_sentences
from nerd_export.data.corpus import TAG_COLUMNS, TOKENS_COLUMN, MissingColumnError, Split, read_file
from nerd_onnx.errors import OptionError, TrainingDataError
from nerd_onnx.inference.labels import LabelSet, Scheme, coarse_type, scheme_of, split_tag

_SHOWN = 6
FOLDER_SUFFIXES = (".parquet", ".jsonl", ".json", ".conll", ".tsv")  # a .txt in a folder is often no labelled file


@dataclass(frozen=True)
class Labelled:
    """
    Labelled sentences, and how to read their tags.

    :param source: name of the file or data set
    :param fine: whether both the tags and the model have the fine level
    :param types: coarse labels of the file
    """

    source: str
    sentences: Sequence[Sentence]
    scheme: Scheme
    fine: bool
    types: frozenset[str]


@dataclass(frozen=True)
class Columns:
    """
    Names of the columns of labelled files.

    :param words: column of the words
    :param tags: column of the tags; None for the usual ones
    """

    words: str = TOKENS_COLUMN
    tags: str | None = None


def read_labelled(
    path: Path,
    labels: LabelSet,
    types: Collection[str] | None,
    note: Callable[[str], None],
    *,
    columns: Columns = Columns(),
    split: str | None = None,
) -> Labelled:
    """
    Read a labelled file for a model, at the fine level if both have it.

    :param types: coarse labels of the file; None for those that occur in it or that its column ``known_types`` names
    :param columns: names of the columns
    :param split: read only the rows whose column ``split`` says so; None for all rows
    :param note: receives what the user should know about the data
    :raises TrainingDataError: when the file cannot be read, is invalid, or has no label of the model
    :raises OptionError: when a label to score is not one of the model's
    """
    rows, fine = _read(path, labels, columns)
    return labelled_rows(rows if split is None else rows.part(split), labels, types, note, fine=fine)


def labelled_rows(
    rows: Split, labels: LabelSet, types: Collection[str] | None, note: Callable[[str], None], *, fine: bool
) -> Labelled:
    """
    Return the sentences of a split for a model.

    A null tag is an unknown one. A split without any entity is read for all types of the model: it shows false alarms.

    :param types: coarse labels of the split; None for those that occur in it or that its column ``known_types`` names
    :param note: receives what the user should know about the data
    :param fine: whether the tags were read from the column of fine tags
    :raises TrainingDataError: when a row is invalid, or the split has no label of the model
    :raises OptionError: when a label to score is not one of the model's
    """
    sentences = sound_sentences(rows, Reading(null_is_unknown=True))

    # The scheme is read from the whole file: a single sentence may have no B tag.
    tags = {tag for sentence in sentences for tag in sentence.tags}
    scheme = scheme_of(tags)
    named = {split_tag(tag, scheme)[1] for tag in tags} - {""}
    fine = fine and not named <= set(labels.types)  # a file of one tag column may hold either level
    occurring = {coarse_type(name) if fine else name for name in named}

    known = set(labels.types)
    labelled = frozenset(occurring).union(*(sentence.known or () for sentence in sentences))
    wanted = frozenset(types) if types is not None else labelled or frozenset(known)

    if types is not None and not wanted <= known:
        raise OptionError(
            f"--types: the model has no label {', '.join(sorted(wanted - known))}; the labels are: "
            f"{', '.join(sorted(known))}",
            reason="unknown-label",
            option="--types",
            found=", ".join(sorted(wanted - known)),
        )

    # At the finest level: coarse names can agree where the fine ones are those of another data set.
    if not wanted & known or (fine and not named & set(labels.fine_types)):
        theirs, ours = (named, set(labels.fine_types)) if fine else (occurring, known)
        raise TrainingDataError(
            f"{rows.source}: its labels ({_some(theirs) or 'none'}) are none of the labels of the model "
            f"({_some(ours)}); rename them, or give a file with the labels of the model",
            reason="other-labels",
            file=rows.source,
            found=", ".join(sorted(theirs)),
        )

    unknown = named - set(labels.fine_types) if fine else occurring & wanted - known
    if unknown:
        note(f"{rows.source}: the model has no label for {_some(unknown)}; it cannot find these entities")
    return Labelled(Path(rows.source).name, sentences, scheme, fine, wanted)


def labelled_files(paths: Sequence[Path], note: Callable[[str], None]) -> list[Path]:
    """
    Return the files to score: those that are named, and for a folder the labelled files in it, by name.

    :param note: receives the names of other files in a folder
    :raises TrainingDataError: when a folder has no labelled file
    """
    found: list[Path] = []
    for path in paths:
        if not path.is_dir():
            found.append(path)
            continue

        files = sorted(one for one in path.iterdir() if one.is_file() and not one.name.startswith("."))
        inside = [one for one in files if one.suffix.lower() in FOLDER_SUFFIXES]
        if not inside:
            raise TrainingDataError(
                f"{path}: has no labelled file; expected files that end in {', '.join(FOLDER_SUFFIXES)}",
                reason="no-labelled-file",
                file=str(path),
            )
        if others := [one.name for one in files if one not in inside]:
            note(f"{path}: {len(others)} other file(s) left out: {', '.join(others[:_SHOWN])}")
        found += inside

    return found


def _read(path: Path, labels: LabelSet, columns: Columns) -> tuple[Split, bool]:
    """Read the fine tags if model and file have them, else the coarse ones."""
    if columns.tags is not None:
        return read_file(path, columns.tags, columns.words), labels.has_fine_level

    if labels.has_fine_level:
        try:
            return read_file(path, TAG_COLUMNS["fine"], columns.words), True
        except MissingColumnError:
            pass
    return read_file(path, TAG_COLUMNS["coarse"], columns.words), False


def _some(names: Collection[str]) -> str:
    """Return the first names in alphabetical order, and the number of others."""
    shown = sorted(names)[:_SHOWN]
    return ", ".join(shown) + (f" and {len(names) - len(shown)} more" if len(names) > len(shown) else "")
