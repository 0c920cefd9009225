"""Compare an exported bundle with its PyTorch original, on real text, through the whole runtime."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from nerd_export.models.networks import Observed
from nerd_onnx.inference.bundle import Bundle
from nerd_onnx.inference.decoding import Spans
from nerd_onnx.inference.session import Network
from nerd_onnx.tagger import Tagger, TagOptions

T = TypeVar("T")
Entities = set[tuple[int, ...]]  # text, start, end, label, fine label: indices into the label set


@dataclass(frozen=True)
class Comparison:
    """
    How much a network differs from the original.

    :param texts: texts compared
    :param tokens: tokens compared, special ones included
    :param max_logit_difference: largest absolute difference of any logit
    :param labels_changed: share of tokens whose best label differs, 0 to 1
    :param entity_agreement: F1 of its entities against the original's, 0 to 1
    :param entities: entities the original finds
    """

    texts: int
    tokens: int
    max_logit_difference: float
    labels_changed: float
    entity_agreement: float
    entities: int

    @property
    def note(self) -> str | None:
        """A warning if the comparison means little, else None."""
        if self.entities:
            return None
        return (
            f"the original finds no entity in the {self.texts} texts compared, so the agreement means nothing; "
            "give --texts with entities in them"
        )

    def summary(self) -> dict[str, Any]:
        """Return the figures as plain data, with the note if there is one."""
        figures = {k: round(v, 6) if isinstance(v, float) else v for k, v in asdict(self).items()}
        return figures | ({"note": self.note} if self.note else {})


def compare(bundle: Bundle, original: Network, texts: Sequence[str], exported: Network | None = None) -> Comparison:
    """
    Tag texts with both networks; tokenizer, segments and decoding are the runtime's for both.

    :param bundle: the exported bundle as it will be used
    :param original: the PyTorch model
    :param exported: runs instead of the bundle's network
    """
    exported_tagger = Tagger(bundle, network=exported)
    # The original runs in the pipeline of the bundle, so both see the same segments and a difference is one of the
    # networks.
    observed = Observed(original, exported_tagger.network)
    # One thread, because PyTorch uses all processors in one call.
    original_tagger = Tagger(bundle, TagOptions(threads=1), network=observed)

    try:
        expected = entity_set(original_tagger.tag_arrays(texts).spans)
        found = entity_set(exported_tagger.tag_arrays(texts).spans)
    finally:
        original_tagger.close()
        exported_tagger.close()

    return Comparison(
        texts=len(texts),
        tokens=observed.tokens,
        max_logit_difference=observed.largest,
        labels_changed=observed.changed / max(1, observed.tokens),
        entity_agreement=agreement(expected, found),
        entities=len(expected),
    )


def first_of(items: Iterable[T], size: Callable[[T], int], enough: int) -> list[T]:
    """Return the first items whose sizes add up to at least ``enough``."""
    taken, total = [], 0
    for item in items:
        taken.append(item)
        total += size(item)
        if total >= enough:
            break
    return taken


def agreement(one: Entities, other: Entities) -> float:
    """F1 of one entity set against another; two empty sets agree."""
    return 2 * len(one & other) / (len(one) + len(other)) if one or other else 1.0


def entity_set(spans: Spans) -> Entities:
    """Return entities as a set of (text, start, end, label, fine label)."""
    columns = (spans.row, spans.start, spans.end, spans.label, spans.fine)
    return as_set(zip(*(column.tolist() for column in columns), strict=True))


def as_set(rows: Iterable[Sequence[int]]) -> Entities:
    """Return entities that were read from JSON as a set."""
    return {tuple(row) for row in rows}
