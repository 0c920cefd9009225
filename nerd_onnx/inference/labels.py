"""The labels of a model: their scheme, their entity types, and the coarse types of fine ones."""

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
_STARTS = frozenset("BUS")  # an entity starts here whatever stands before
_ENDS = frozenset("LEUS")  # an entity ends here whatever follows


def scheme_of(names: Iterable[str]) -> Scheme:
    """
    Tell the tagging scheme from the tag names alone.

    IOB1 and IOB2 use the same names and are read alike (``I-`` after another type opens an entity), so
    names with ``B-`` are reported as IOB2. Prefixes count when every name but ``O`` has one, or when some type
    has both ``B-`` and ``I-`` (then other names, such as ``[CLS]``, are types without a border of their own).
    Few-NERD's plain names (``building-hotel``) are IO.
    """
    plain = [name for name in names if name != OUTSIDE]
    matches = [match for match in map(_PREFIXED.fullmatch, plain) if match]
    pairs = {match[2] for match in matches if match[1] == "B"} & {match[2] for match in matches if match[1] == "I"}
    if not matches or (len(matches) < len(plain) and not pairs):
        return "IO"
    return "BILOU" if {match[1] for match in matches} & set("LUES") else "IOB2"


def split_tag(name: str, scheme: Scheme) -> tuple[str, str]:
    """Split a tag into prefix and entity type: ``B-person`` to ``("B", "person")``; ``O`` has neither."""
    if name == OUTSIDE:
        return OUTSIDE, ""
    if scheme == "IO":
        return "I", name
    match = _PREFIXED.fullmatch(name)
    return (match[1], match[2]) if match else ("I", name)


def coarse_type(fine_type: str) -> str:
    """Give the coarse type of a hierarchical name: ``person-actor`` to ``person``."""
    return fine_type.split("-", 1)[0]


@dataclass(frozen=True)
class LabelSet:
    """
    The labels a model scores, in the order of its output.

    Decoding works on *classes*: what is left of the labels when fine types are summed into their coarse
    type. Without a fine level every label is its own class.

    :param names: one name an output of the classifier, ``O`` among them for most models
    :param coarse: coarse type of each fine type; empty when the model has a single level
    :param scheme: how tags mark the borders of entities; told from the names when left out
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
            object.__setattr__(self, "scheme", scheme_of(self.names))
        missing = sorted({t for _, t in self._split if t} - set(self.coarse)) if self.coarse else []
        if missing:
            raise ValueError(f"no coarse type is given for {', '.join(missing)}")

    @classmethod
    def hierarchical(cls, names: Sequence[str]) -> LabelSet:
        """Make a two-level set from names like ``person-actor``, whose coarse type stands before the hyphen."""
        scheme = scheme_of(names)
        types = {split_tag(name, scheme)[1] for name in names} - {""}
        return cls(tuple(names), {t: coarse_type(t) for t in sorted(types)}, scheme)

    @cached_property
    def _split(self) -> tuple[tuple[str, str], ...]:
        scheme = self.scheme or "IO"
        return tuple(split_tag(name, scheme) for name in self.names)

    @property
    def has_fine_level(self) -> bool:
        """Whether entities carry a fine label besides the coarse one."""
        return bool(self.coarse)

    @cached_property
    def fine_types(self) -> tuple[str, ...]:
        """Entity types as the model scores them, in order of first appearance."""
        return tuple(dict.fromkeys(t for _, t in self._split if t))

    @cached_property
    def types(self) -> tuple[str, ...]:
        """Entity types that become an entity's label: the coarse ones where the model has two levels."""
        return tuple(dict.fromkeys(self.coarse.get(t, t) for t in self.fine_types))

    @cached_property
    def known(self) -> tuple[str, ...]:
        """All entity types, coarse and fine, in alphabetical order."""
        return tuple(sorted({*self.types, *self.fine_types}))

    def check_known(self, names: Collection[str]) -> None:
        """
        Check that labels to keep are there.

        :raises OptionError: when none is named or one is not known; it names those that are much like it
        """
        unknown = sorted(set(names) - set(self.known))
        if names and not unknown:
            return
        by_lower = {name.lower(): name for name in self.known}
        near = dict.fromkeys(by_lower[found] for name in unknown for found in get_close_matches(name.lower(), by_lower))
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
        return tuple(dict.fromkeys((prefix, self.coarse.get(t, t)) for prefix, t in self._split))

    @cached_property
    def class_of_label(self) -> npt.NDArray[np.int64]:
        """Class of each label. *Shape:* (labels,)."""
        index = {cls: i for i, cls in enumerate(self._classes)}
        return np.array([index[prefix, self.coarse.get(t, t)] for prefix, t in self._split], dtype=np.int64)

    @cached_property
    def fine_type_of_label(self) -> npt.NDArray[np.int64]:
        """Index into :attr:`fine_types` of each label, -1 for ``O``. *Shape:* (labels,)."""
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
        """Whether a word of the class always closes its entity. *Shape:* (classes,)."""
        return np.array([prefix in _ENDS for prefix, _ in self._classes], dtype=np.bool_)
