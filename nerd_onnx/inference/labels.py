"""
The labels of a model: the tags of its words, and the labels of entities that follow from them.

A network scores one tag per word. The *scheme* says how tags mark where entities begin and end: in IO the tag is the
type itself, in IOB2 ``B-`` begins an entity, in BILOU ``L-`` and ``U-`` end one as well. Types may have two levels, as
in Few-NERD: ``person-actor`` is a fine type of the coarse type ``person``.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt

from nerd_onnx.errors import OptionError

Scheme = Literal["IO", "IOB1", "IOB2", "BILOU"]

OUTSIDE = "O"
_PREFIXED = re.compile(r"([BILUES])-(.+)", re.DOTALL)
# Names of one label in different data sets, in lower case.
_SAME_LABELS = (
    ("per", "pers", "person", "people"),
    ("org", "organization", "organisation", "corporation"),
    ("loc", "location", "place"),
    ("gpe", "location-gpe"),
    ("misc", "miscellaneous", "other"),
    ("prod", "product"),
    ("evt", "event"),
    ("fac", "facility", "building"),
)
# BIOES writes E and S where BILOU writes L and U.
_STARTS = frozenset("BUS")  # an entity always starts at a word with such a tag
_ENDS = frozenset("LEUS")  # an entity always ends at a word with such a tag


def scheme_of(names: Iterable[str]) -> Scheme:
    """
    Return the scheme of tag names.

    IOB1 and IOB2 have the same names and are read in the same way (``I-`` after another type opens an entity), so names
    with ``B-`` are reported as IOB2. Prefixes count when every name but ``O`` has one, or when some type has both
    ``B-`` and ``I-`` (then other names, such as ``[CLS]``, are types without prefix). Few-NERD's plain names
    (``building-hotel``) are IO.

    :param names: all tags of a model
    """
    plain = [name for name in names if name != OUTSIDE]
    matches = [match for match in map(_PREFIXED.fullmatch, plain) if match]
    prefixes = {match[1] for match in matches}
    begun = {match[2] for match in matches if match[1] == "B"}
    continued = {match[2] for match in matches if match[1] == "I"}

    all_have_prefixes = bool(matches) and len(matches) == len(plain)
    if not all_have_prefixes and not begun & continued:
        return "IO"
    return "BILOU" if prefixes & set("LUES") else "IOB2"


def split_tag(name: str, scheme: Scheme) -> tuple[str, str]:
    """Split a tag into prefix and type: ``B-person`` into ``("B", "person")``, and ``O`` into ``("O", "")``."""
    if name == OUTSIDE:
        return OUTSIDE, ""
    if scheme == "IO":
        return "I", name

    match = _PREFIXED.fullmatch(name)
    return (match[1], match[2]) if match else ("I", name)


def coarse_type(fine_type: str) -> str:
    """Return the coarse type in a hierarchical name: ``person`` for ``person-actor``."""
    return fine_type.split("-", 1)[0]


@dataclass(frozen=True)
class LabelSet:
    """
    The tags that a model scores, in the order of its output.

    Decoding works on *classes*. All tags with the same prefix and coarse type are one class: ``B-person-actor`` and
    ``B-person-artist`` are both of the class ``B-person``. Without a fine level every tag is a class of its own.

    :param names: one tag per output of the network; most models have ``O`` among them
    :param coarse: coarse type of each fine type; empty when the model has a single level
    :param scheme: how tags mark the borders of entities; None to derive it from the names
    :raises ValueError: when there are no names, names repeat, or a fine type has no coarse type
    """

    names: tuple[str, ...]
    coarse: Mapping[str, str] = field(default_factory=dict)
    scheme: Scheme | None = None

    def __post_init__(self) -> None:
        if not self.names:
            raise ValueError("a model needs at least one label")
        if len(set(self.names)) != len(self.names):
            raise ValueError("label names repeat")

        if self.scheme is None:
            object.__setattr__(self, "scheme", scheme_of(self.names))  # the class is frozen

        missing = sorted(set(self.fine_types) - set(self.coarse))
        if self.coarse and missing:
            raise ValueError(f"no coarse type is given for {', '.join(missing)}")

    @classmethod
    def hierarchical(cls, names: Sequence[str]) -> LabelSet:
        """Return the labels of a model with two levels, from names like ``person-actor``."""
        scheme = scheme_of(names)
        types = {split_tag(name, scheme)[1] for name in names} - {""}
        return cls(tuple(names), {t: coarse_type(t) for t in sorted(types)}, scheme)

    @cached_property
    def _split(self) -> tuple[tuple[str, str], ...]:
        """Prefix and type of each tag."""
        scheme = self.scheme or "IO"
        return tuple(split_tag(name, scheme) for name in self.names)

    @property
    def has_fine_level(self) -> bool:
        """Whether entities carry a fine label besides the coarse one."""
        return bool(self.coarse)

    @cached_property
    def fine_types(self) -> tuple[str, ...]:
        """Types in the tags, in order of first appearance; these are the fine ones where the model has two levels."""
        return tuple(dict.fromkeys(t for _, t in self._split if t))

    @cached_property
    def types(self) -> tuple[str, ...]:
        """Types that become the label of an entity: the coarse ones where the model has two levels."""
        return tuple(dict.fromkeys(self.coarse.get(t, t) for t in self.fine_types))

    @cached_property
    def known(self) -> tuple[str, ...]:
        """All types, coarse and fine, in alphabetical order."""
        return tuple(sorted({*self.types, *self.fine_types}))

    def named(self, names: Collection[str]) -> tuple[str, ...]:
        """
        Return labels as this model writes them: in any letter case, and by the usual short names such as PER.

        A name that is not known, or may stand for several labels, stays as it is.
        """
        return tuple(dict.fromkeys(self._named(name) for name in names))

    def _named(self, name: str) -> str:
        if name in self.known:
            return name

        plain = name.casefold()
        same = [known for known in self.known if known.casefold() == plain]
        if not same:
            meaning = next((group for group in _SAME_LABELS if plain in group), ())
            same = [known for known in self.known if known.casefold() in meaning]

        # Of several labels none is chosen: check_known() then names those that are similar.
        return same[0] if len(same) == 1 else name

    def check_known(self, names: Collection[str]) -> None:
        """
        Check that labels to keep are labels of this model.

        :param names: coarse or fine labels
        :raises OptionError: when there are no names, or one is not known; the message suggests similar labels
        """
        unknown = sorted(set(names) - set(self.known))
        if names and not unknown:
            return

        by_lower = {name.lower(): name for name in self.known}
        close = (found for name in unknown for found in get_close_matches(name.lower(), by_lower))
        near = dict.fromkeys(by_lower[found] for found in close)

        meant = f" (do you mean {', '.join(near)}?)" if near else ""
        said = f"the model has no label {', '.join(unknown)}{meant}" if names else "no label is named"
        types = ", ".join(sorted(self.types))

        if self.has_fine_level:
            raise OptionError(
                f"{said}; the coarse labels are: {types}; nerd-tag --dry-run and Tagger.labels.known list all "
                f"{len(self.known)}",
                reason="unknown-label" if names else "no-label",
                option="--labels",
                found=", ".join(unknown),
            )

        raise OptionError(
            f"{said}; the labels are: {types}",
            reason="unknown-label" if names else "no-label",
            option="--labels",
            found=", ".join(unknown),
        )

    @cached_property
    def _classes(self) -> tuple[tuple[str, str], ...]:
        """Prefix and coarse type of each class, in order of first appearance."""
        return tuple(dict.fromkeys((prefix, self.coarse.get(t, t)) for prefix, t in self._split))

    @cached_property
    def class_of_label(self) -> npt.NDArray[np.int64]:
        """Class of each tag. *Shape:* (labels,)."""
        index = {cls: i for i, cls in enumerate(self._classes)}
        return np.array([index[prefix, self.coarse.get(t, t)] for prefix, t in self._split], dtype=np.int64)

    @cached_property
    def fine_type_of_label(self) -> npt.NDArray[np.int64]:
        """Index into :attr:`fine_types` of each tag, -1 for ``O``. *Shape:* (labels,)."""
        index = {t: i for i, t in enumerate(self.fine_types)}
        return np.array([index.get(t, -1) for _, t in self._split], dtype=np.int64)

    @cached_property
    def type_of_fine_type(self) -> npt.NDArray[np.int64]:
        """Index into :attr:`types` of each fine type. *Shape:* (fine types,)."""
        return np.array([self.types.index(self.coarse.get(t, t)) for t in self.fine_types], dtype=np.int64)

    @cached_property
    def type_of_class(self) -> npt.NDArray[np.int64]:
        """Index into :attr:`types` of each class, -1 for ``O``. *Shape:* (classes,)."""
        return np.array([self.types.index(t) if t else -1 for _, t in self._classes], dtype=np.int64)

    @cached_property
    def class_starts(self) -> npt.NDArray[np.bool_]:
        """Whether a word of the class always opens an entity. *Shape:* (classes,)."""
        return np.array([prefix in _STARTS for prefix, _ in self._classes], dtype=np.bool_)

    @cached_property
    def class_ends(self) -> npt.NDArray[np.bool_]:
        """Whether a word of the class always ends its entity. *Shape:* (classes,)."""
        return np.array([prefix in _ENDS for prefix, _ in self._classes], dtype=np.bool_)
