"""Count the texts whose entities depend on batch, order or threads, instead of the text alone."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

from nerd_onnx.inference.bundle import Bundle
from nerd_onnx.inference.session import Network
from nerd_onnx.tagger import Entity, Tagger, TagOptions

CHECKED_TEXTS = 100  # number of texts that the gate and ``--check`` tag in all these ways
_SEED = 42  # seed of their shuffled order

Found = list[list[Entity] | None]


def neighbour_check(bundle: Bundle, texts: Sequence[str], seed: int, network: Network | None = None) -> dict[str, Any]:
    """
    Tag texts in one batch order, then in several others, and compare all entities and scores exactly.

    :param seed: seed of the order in which texts are shuffled
    :param network: runs instead of the bundle's own
    :return: ``texts``, ``entities``, and ``changed``: the number of texts with other entities, by the way of tagging
    """
    # Without a threshold: differences of entities below it count too.
    reference = Tagger(bundle, TagOptions(min_score=0), network)
    network = reference.network

    # Compared exactly and not within a tolerance: the promise is equal bits.
    expected = reference.tag(texts)
    order = list(range(len(texts)))
    random.Random(seed).shuffle(order)  # noqa: S311

    changed = {
        "alone": _differences(expected, [reference.tag([text])[0] for text in texts]),
        "shuffled": _differences(expected, _shuffled(reference, texts, order)),
    }

    # Very small and very large batches give every text other neighbours.
    for tokens in (64, 2048):
        tagger = Tagger(bundle, TagOptions(batch_tokens=tokens, min_score=0), network)
        changed[f"--batch-tokens {tokens}"] = _differences(expected, _shuffled(tagger, texts, order))
        tagger.close()

    for threads in (1, 3):
        tagger = Tagger(bundle, TagOptions(threads=threads, min_score=0), network)
        changed[f"--threads {threads}"] = _differences(expected, tagger.tag(texts))
        tagger.close()

    reference.close()
    return {"texts": len(texts), "entities": sum(len(found or ()) for found in expected), "changed": changed}


def changed_by_neighbours(bundle: Bundle, texts: Sequence[str]) -> dict[str, int]:
    """Count the texts that get other entities, by the way of tagging. Only the first texts are tried, to save time."""
    changed: dict[str, int] = neighbour_check(bundle, texts[:CHECKED_TEXTS], _SEED)["changed"]
    return changed


def neighbour_faults(changed: Mapping[str, int]) -> list[str]:
    """Return a message for each way of tagging that changes texts; empty if none does."""
    return [f"{count} texts get other entities when tagged {way}" for way, count in changed.items() if count]


def _shuffled(tagger: Tagger, texts: Sequence[str], order: Sequence[int]) -> Found:
    """Tag texts in another order, and return the answers in the original order."""
    answers: Found = [None] * len(texts)
    for i, found in zip(order, tagger.tag([texts[i] for i in order]), strict=True):
        answers[i] = found
    return answers


def _differences(expected: Found, found: Found) -> int:
    return sum(one != other for one, other in zip(expected, found, strict=True))
