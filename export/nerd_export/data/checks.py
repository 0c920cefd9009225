"""Check labelled data before training begins: training takes hours, and the check seconds."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from nerd_export.data.corpus import Row, Split
from nerd_export.data.partial_tags import PartialTag, Tag
from nerd_onnx.errors import OptionError, TrainingDataError
from nerd_onnx.inference.labels import OUTSIDE

_TAGS_SHOWN = 8
# Spellings of tags that would become types of their own.
_UNDERSCORED, _BEHIND = re.compile(r"[BILUES]_.+", re.DOTALL), re.compile(r".+-[BILUES]", re.DOTALL)
_NUMBER, _LOWER_O = re.compile(r"[+-]?\d+(?:\.0)?"), re.compile(r"o|0|_")
_SHOWN = 5


@dataclass(frozen=True)
class Sentence:
    """
    A checked sentence: no word is missing, and each word has a tag name.

    :param unknown: indices of words whose tag is not known; ``tags`` has ``O`` there
    :param weight: weight of its words in the training loss
    :param known: coarse types that it is labelled for: a word with the tag ``O`` has none of them; None for all
    :param is_coarse: whether its tags are the coarse ones of a model with fine labels
    :param text: the text that its words were cut from; None if its words were given
    :param places: the characters of each word in ``text``
    :param share: number of times that it is written in each form of an epoch; the fraction is a probability
    """

    tokens: tuple[str, ...]
    tags: tuple[str, ...]
    unknown: frozenset[int] = frozenset()
    weight: float = 1.0
    known: frozenset[str] | None = None
    is_coarse: bool = False
    share: float = 1.0
    text: str | None = None
    places: tuple[tuple[int, int], ...] = ()

    def known_tags(self) -> list[str | None]:
        """Return the tag of each word; None where it is not known."""
        return [None if i in self.unknown else tag for i, tag in enumerate(self.tags)]

    def targets(self) -> list[Tag | None]:
        """Return what each word must learn: its tag, a partial tag, or None where nothing is known."""
        if self.known is None and not self.is_coarse:
            return list(self.known_tags())
        return [None if tag is None else self._partial(tag) for tag in self.known_tags()]

    def _partial(self, tag: str) -> Tag:
        # A fine tag says all there is to say, whatever else the sentence is labelled for.
        is_whole = not self.is_coarse and tag != OUTSIDE
        return tag if is_whole else PartialTag(tag, self.known, is_coarse=self.is_coarse)


@dataclass(frozen=True)
class Reading:
    """
    How training sentences are read, beyond their words and tags.

    :param null_is_unknown: whether a null tag means an unknown tag; otherwise it is an error
    :param tier_weights: weight of the sentences of each tier in the file's column ``tier``; 1 for other tiers
    """

    null_is_unknown: bool = False
    tier_weights: Mapping[str, float] = field(default_factory=dict)

    def sentence(self, row: Row, tag_names: Sequence[str] | None) -> Sentence:
        """Return the sentence of a valid row."""
        tags = row.tags or ()
        unknown = frozenset(i for i, tag in enumerate(tags) if tag is None)
        weight = self.tier_weights.get(str(row.tier), 1.0)
        known = None if row.known_types is None else frozenset(map(str, _as_list(row.known_types)))
        return Sentence(
            tuple(map(str, row.tokens or ())),
            _names(tags, tag_names),
            unknown,
            weight,
            known,
            text=row.text,
            places=tuple(row.places or ()),
        )


_STRICT = Reading()


@dataclass(frozen=True)
class Problem:
    """
    A problem of a row, or of a whole split.

    :param where: the place of the row, or the source of the split
    :param reason: the problem in kebab-case
    :param text: the problem in words
    """

    where: str
    reason: str
    text: str

    def __str__(self) -> str:
        """Return one line for people."""
        return f"{self.where}: {self.text}"


@dataclass
class Findings:
    """The results of a check: problems stop the training, notes are only shown."""

    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def raise_problems(self) -> None:
        """
        Raise an error if the check found any problem.

        :raises TrainingDataError: with the first few places and the number of problems
        """
        if self.problems:
            raise TrainingDataError(
                f"the labelled data has {len(self.problems)} problem(s): {_first([*map(str, self.problems)])}. Correct "
                "the rows, or leave them out (nerd-train has --drop-bad-rows)",
                reason="faulty-rows",
                found=len(self.problems),
                problem=self.problems[0].reason,
            )


def check_split(
    split: Split, known: Sequence[str] | None, findings: Findings, reading: Reading = _STRICT
) -> list[Sentence]:
    """
    Turn rows into sentences and collect their problems.

    :param known: tag names that may occur; None to accept any
    :param findings: receives every problem and note
    :param reading: what a null tag and a tier mean
    :return: the valid sentences, in file order
    """
    sentences: list[Sentence] = []
    empty: list[str] = []
    for row in split.rows:
        # Empty sentences occur in published data sets and are harmless, so they are only reported.
        if row.tokens is not None and row.tags is not None and not row.tokens and not row.tags:
            empty.append(row.where)
            continue

        problem = _problem(row, split.tag_names, known, null_is_unknown=reading.null_is_unknown)
        if problem:
            findings.problems.append(Problem(row.where, *problem))
        else:
            sentences.append(reading.sentence(row, split.tag_names))

    if empty:
        findings.notes.append(f"{len(empty)} empty sentence(s) left out: {_first(empty)}")

    # With known names, a misspelled tag is an unknown one and was found above.
    if known is None and (found := misspelled(tag for sentence in sentences for tag in sentence.tags)):
        findings.problems.append(Problem(split.source, *found))

    if not sentences:
        findings.problems.append(Problem(split.source, "no-sentence", "no usable sentence in this split"))

    return sentences


def sound_sentences(split: Split, reading: Reading = _STRICT) -> list[Sentence]:
    """
    Return the sentences of a split that must have no invalid row; any tags may occur.

    :param reading: what a null tag means
    :raises TrainingDataError: with the first problems
    """
    findings = Findings()
    sentences = check_split(split, None, findings, reading)
    findings.raise_problems()
    return sentences


def check_tiers(splits: Sequence[Split], weights: Mapping[str, float]) -> None:
    """
    Check that each tier with a weight occurs in the data.

    :raises OptionError: with the tiers that do not occur, and those that do
    """
    there = {str(row.tier) for split in splits for row in split.rows if row.tier is not None}
    if missing := sorted(set(weights) - there):
        raise OptionError(
            f"--tier-weight: no sentence has the tier {', '.join(missing)}; the data has "
            f"{', '.join(sorted(there)) or 'no column tier'}",
            reason="unknown-tier",
            option="--tier-weight",
            found=", ".join(missing),
        )


def shared_sentences(train: Iterable[Sentence], evaluation: Iterable[Sentence]) -> set[tuple[str, ...]]:
    """Return the word sequences that are in both splits; an evaluation on them is too optimistic."""
    return {s.tokens for s in train} & {s.tokens for s in evaluation}


def misspelled(names: Iterable[str]) -> tuple[str, str] | None:
    """
    Return why tags are probably not meant as they are written, as reason and text; None if nothing is suspicious.

    :param names: all tags of a file
    """
    tags = sorted(set(names) - {OUTSIDE})
    causes = (
        (_UNDERSCORED, "B_PER and I_PER are written B-PER and I-PER"),
        (_BEHIND, "PER-B and PER-I are written B-PER and I-PER"),
        (_NUMBER, "numbers that are written as text have no names; write them as integers and give --label-names"),
        (_LOWER_O, "the tag of words outside of entities is a capital O"),
    )
    for pattern, cause in causes:
        found = [tag for tag in tags if pattern.fullmatch(tag)]
        # A single type may be called vitamin-B or B_cell; a spelling is one that all tags have, or a second one.
        twice = any(_with_prefix(tag) in tags for tag in found)
        if found and (len(found) == len(tags) or twice or pattern is _LOWER_O):
            return "misspelled-tag", f"the tag {found[0]!r} is probably not a type: {cause}"

    return None


def _with_prefix(tag: str) -> str:
    """Return a tag with its one-letter mark in front and a hyphen, as in ``B-PER``."""
    return f"{tag[-1]}-{tag[:-2]}" if _BEHIND.fullmatch(tag) else f"{tag[0]}-{tag[2:]}"


def tag_inventory(sentences: Iterable[Sentence]) -> tuple[str, ...]:
    """Return the tag names in use: ``O`` first, the others sorted, so that their ids do not depend on the row order."""
    names = {tag for sentence in sentences for tag in sentence.tags}
    return (OUTSIDE, *sorted(names - {OUTSIDE}))


def _problem(  # noqa: PLR0911 - one return per problem
    row: Row, tag_names: Sequence[str] | None, known: Sequence[str] | None, *, null_is_unknown: bool
) -> tuple[str, str] | None:
    """Return the problem of a row as reason and text; None if the row is valid."""
    if row.tokens is None or row.tags is None:
        return "list-missing", f"{'tokens' if row.tokens is None else 'tags'} missing (null)"
    if not isinstance(row.tokens, list) or not isinstance(row.tags, list):
        return "not-lists", "expected a list of words and a list of tags"
    if len(row.tokens) != len(row.tags):
        return "lengths-differ", f"{len(row.tokens)} tokens but {len(row.tags)} tags"
    if row.known_types is not None and not all(isinstance(name, str) for name in _as_list(row.known_types)):
        return "not-known-types", f"known_types is {row.known_types!r}; expected a list of types"

    for i, (token, tag) in enumerate(zip(row.tokens, row.tags, strict=True)):
        if token is None:
            return "token-missing", f"token {i} missing (null)"
        if tag is None and not null_is_unknown:
            return "tag-missing", f"tag {i} missing (null); only training allows unknown tags (--null-tags unknown)"
        if not isinstance(token, str) or not token.strip():
            return "not-word", f"token {i} is {token!r}; expected a word"
        problem = None if tag is None else _tag_problem(tag, tag_names, known)
        if problem:
            return problem[0], f"{problem[1]} at token {i} ({token!r})"

    return None


def _tag_problem(tag: object, tag_names: Sequence[str] | None, known: Sequence[str] | None) -> tuple[str, str] | None:
    """Return the problem of a tag as reason and text; None if the tag is valid."""
    if isinstance(tag, int) and not isinstance(tag, bool):
        if tag_names is None:
            return (
                "tag-not-named",
                f"tag is the integer {tag}, and the file stores no names for integers (give --label-names)",
            )
        if not 0 <= tag < len(tag_names):
            return "unknown-tag", f"unknown tag {tag} (the data set names 0 to {len(tag_names) - 1})"
        tag = tag_names[tag]

    if not isinstance(tag, str) or not tag.strip():
        return "not-tag", f"tag is {tag!r}; expected a name or an integer"
    if known is not None and tag not in known:
        shown = ", ".join(known[:_TAGS_SHOWN]) + (", ..." if len(known) > _TAGS_SHOWN else "")
        return "unknown-tag", f"unknown tag {tag!r} (train has {shown})"

    return None


def _as_list(value: object) -> Sequence[object]:
    return value if isinstance(value, list | tuple) else [None]


def _names(tags: Sequence[str | int | None], tag_names: Sequence[str] | None) -> tuple[str, ...]:
    known = (OUTSIDE if tag is None else tag for tag in tags)
    return tuple(tag_names[tag] if isinstance(tag, int) and tag_names else str(tag) for tag in known)


def _first(items: Sequence[str]) -> str:
    more = f"; and {len(items) - _SHOWN} more" if len(items) > _SHOWN else ""
    return "; ".join(items[:_SHOWN]) + more
