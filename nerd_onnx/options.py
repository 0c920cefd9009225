"""Options of tagging, and its results: entities as objects and as arrays."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, get_args

from nerd_onnx.errors import OptionError
from nerd_onnx.formats.columns import OffsetUnit, column_prefixes
from nerd_onnx.formats.text_arrays import column_of, has_elements
from nerd_onnx.inference.arrays import Ints
from nerd_onnx.inference.decoding import Spans
from nerd_onnx.inference.kernels import Kernel
from nerd_onnx.inference.labels import LabelSet
from nerd_onnx.inference.word_joints import Join

# More than any machine has processors for. Each takes memory, and the system limits their number.
MAX_THREADS = 1024
_BATCH_TEXTS = 1024  # two batches are in memory at a time
_BATCH_CHARACTERS = 1 << 18


@dataclass(frozen=True)
class Entity:
    """
    A named entity of one text.

    :param start: offset of its first character in the text, in code points
    :param end: one past its last character: ``text[start:end]`` is the entity
    :param label: label of the entity; the coarse one if the model has two levels
    :param fine_label: fine label; None if the model has one level
    :param score: probability, 0 to 1, that borders and label are right, if the model is calibrated; else the mean
        probability of the label over the words of the entity
    :param text: the text of the entity
    """

    start: int
    end: int
    label: str
    fine_label: str | None
    score: float
    text: str

    def to_dict(self) -> dict[str, Any]:
        """Return the members by name, as JSON can hold them."""
        return asdict(self)


@dataclass(frozen=True)
class TagOptions:
    """
    Options of tagging. Only ``min_score``, ``precision``, ``labels``, ``kernel`` and ``join`` change which entities are
    found.

    :param batch_tokens: maximum number of tokens in one batch
    :param threads: number of batches that run at the same time, at most 1,024; None for one per available processor
    :param min_score: minimum score of an entity; None for the model's own threshold, which gives the best F1 on
        labelled text, or no threshold if the model records none. 0 keeps every candidate
    :param precision: per label, keep only entities above the score that reached this precision on the calibration data;
        None keeps all
    :param labels: coarse or fine labels to keep; None keeps all
    :param offset_unit: unit of ``start`` and ``end`` in columns; Python's Entity is always in code points
    :param text_column: column to tag, or several in a tuple; ``NAME[]`` tags each element of a column with lists of
        texts, and then each entity says in which ``element`` it is
    :param column: name of the new column; with several text columns ``title`` and so on the names are ``title_`` and
        this name
    :param kernel: what computes the network: ``onnxruntime``, the ``native`` encoder, or that in plain C++
        (``portable``); ``auto`` is ``native`` where that is installed and fast and the model has a section for it, else
        ``onnxruntime``. The native encoder gives the same bits on every processor; they differ from those of
        onnxruntime, so a few entities do too
    :param join: ``touching`` joins entities of one label that are parts of one written word, ``scheme`` reads the tags
        of the model as they are; None for what suits the model
    :raises OptionError: when a value is out of range or the two columns have one name
    """

    batch_tokens: int = 512
    threads: int | None = None
    min_score: float | None = None
    precision: float | None = None
    labels: tuple[str, ...] | None = None
    offset_unit: OffsetUnit = "codepoint"
    text_column: str | tuple[str, ...] = "text"
    column: str = "entities"
    kernel: Kernel = "auto"
    join: Join | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.text_column, str):
            # A list with one name means the same as the name, and the two must be equal.
            names = tuple(self.text_column)
            _check_text_columns(names)
            object.__setattr__(self, "text_column", names[0] if len(names) == 1 else names)

        columns = [column_of(name) for name in self.text_columns]
        taken = next((name for name in self.new_columns if name in columns), None)
        if taken is not None:
            raise OptionError(
                f"the new column cannot have the name of the text column {taken!r}; choose another name",
                reason="column-is-text-column",
                option="column",
                column=taken,
            )

        _check_choice("offset_unit", self.offset_unit, get_args(OffsetUnit))
        _check_choice("kernel", self.kernel, get_args(Kernel))
        if self.join is not None:
            _check_choice("join", self.join, get_args(Join))

        if self.min_score is not None and not _is_share(self.min_score):
            raise OptionError(
                f"min_score is {self.min_score!r}; expected a number from 0 to 1",
                reason="bad-value",
                option="min_score",
                found=str(self.min_score),
            )

        if self.precision is not None and not 0 < self.precision <= 1:
            raise OptionError(
                f"precision is {self.precision!r}; expected a number greater than 0 and at most 1",
                reason="bad-value",
                option="precision",
                found=str(self.precision),
            )

        if self.batch_tokens < 1 or (self.threads is not None and self.threads < 1):
            raise OptionError(
                f"batch_tokens is {self.batch_tokens} and threads is {self.threads}; expected at least 1",
                reason="bad-value",
                option="batch_tokens" if self.batch_tokens < 1 else "threads",
                minimum=1,
            )

        if self.threads is not None and self.threads > MAX_THREADS:
            raise OptionError(
                f"threads is {self.threads}; expected at most {MAX_THREADS}. More than one per processor saves no time",
                reason="too-many-threads",
                option="threads",
                found=self.threads,
                maximum=MAX_THREADS,
            )

    @property
    def text_columns(self) -> tuple[str, ...]:
        """The columns to tag, at least one."""
        return (self.text_column,) if isinstance(self.text_column, str) else self.text_column

    @property
    def new_columns(self) -> tuple[str, ...]:
        """Names of the entities columns, one per text column."""
        return tuple(f"{before}{self.column}" for before in column_prefixes(self.text_columns))

    def columns_of_texts(self, where: str) -> tuple[str, ...]:
        """
        Return the columns to tag.

        :param where: what takes columns with one text per row, for the message
        :raises OptionError: if one has lists of texts
        """
        for name in self.text_columns:
            if has_elements(name):
                raise OptionError(
                    f"{where} takes columns of texts, and not one of lists, {name}; tag files with nerd-tag, or give "
                    "one text per row",
                    reason="lists-of-texts",
                    option="text_column",
                    found=name,
                )
        return self.text_columns

    def new_column_of(self, name: object) -> str:
        """
        Return the name of the entities column of a column of texts.

        :param name: of the column of texts; with one text column, and for a column that is none of several, the name is
            :attr:`column`
        """
        names = dict(zip(self.text_columns, self.new_columns, strict=True))
        # A column of pandas may have a name that is no string, or none.
        if len(names) == 1 or not isinstance(name, str):
            return self.column
        return names.get(name, self.column)


def _check_text_columns(names: tuple[str, ...]) -> None:
    """
    Check the names of several text columns.

    :raises OptionError: if there are none, or one occurs twice
    """
    if not names:
        raise OptionError(
            "text_column has no name; expected at least one", reason="no-text-column", option="text_column"
        )

    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise OptionError(
            f"text_column has the name {twice!r} twice; expected different columns",
            reason="text-column-twice",
            option="text_column",
            column=twice,
        )


def _check_choice(option: str, value: object, choices: Sequence[str]) -> None:
    """
    Check that an option has one of its values.

    :raises OptionError: if it has another one
    """
    if value not in choices:
        raise OptionError(
            f"{option} is {value!r}; expected one of {', '.join(choices)}",
            reason="bad-value",
            option=option,
            found=str(value),
        )


def _is_share(value: object) -> bool:
    return isinstance(value, (int, float)) and 0 <= value <= 1


@dataclass(frozen=True)
class TaggedTexts:
    """
    The entities of a sequence of texts, as arrays.

    :param texts: the texts as given
    :param spans: their entities
    :param text_tokens: number of tokens per text that the network read, without special tokens. *Shape:* (texts,)
    :param reasons: reason why a text could not be tagged, by its index in ``texts``; that text is None
    """

    texts: Sequence[str | None]
    spans: Spans
    text_tokens: Ints
    reasons: Mapping[int, str] = field(default_factory=dict)

    @property
    def tokens(self) -> int:
        """Number of tokens of all texts."""
        return int(self.text_tokens.sum())

    def taken(self, places: Ints) -> TaggedTexts:
        """
        Return the results of a selection of texts, none of which failed.

        :param places: indices of texts, in any order, repetitions allowed. *Shape:* (places,)
        """
        texts = [self.texts[place] for place in places.tolist()]
        return TaggedTexts(texts, self.spans.of_rows(places), self.text_tokens[places])

    def entities(self, labels: LabelSet) -> list[list[Entity] | None]:
        """
        Return the entities as objects: one list per text, None for None.

        :param labels: labels of the model that found the entities
        """
        spans = self.spans
        found: list[list[Entity]] = [[] for _ in self.texts]

        for i in range(len(spans)):
            row, start, end = int(spans.row[i]), int(spans.start[i]), int(spans.end[i])
            fine_label = labels.fine_types[spans.fine[i]] if labels.has_fine_level else None
            text = (self.texts[row] or "")[start:end]

            entity = Entity(start, end, labels.types[spans.label[i]], fine_label, float(spans.score[i]), text)
            found[row].append(entity)

        return [None if text is None else entities for text, entities in zip(self.texts, found, strict=True)]


def text_batches(texts: Iterator[str | None]) -> Iterator[list[str | None]]:
    """
    Yield texts in batches, limited in number of texts and of characters.

    :raises TypeError: when a text is neither str nor None
    """
    batch: list[str | None] = []
    size = 0

    for text in checked(texts):
        batch.append(text)
        size += len(text or "")
        if len(batch) == _BATCH_TEXTS or size >= _BATCH_CHARACTERS:
            yield batch
            batch, size = [], 0

    if batch:
        yield batch


def checked(texts: Iterable[Any]) -> Iterator[str | None]:
    """
    Yield texts unchanged, after a check of their type.

    :raises TypeError: when a text is neither str nor None
    """
    for i, text in enumerate(texts):
        if text is not None and not isinstance(text, str):
            raise TypeError(f"text {i} is {text!r} of type {type(text).__name__}; expected str or None")
        yield text
