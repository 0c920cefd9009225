"""Compare an exported bundle with its PyTorch original, on real text, through the whole runtime."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from importlib.resources import files
from typing import Any

import numpy as np

from nerd_export.config import VerifyLimits
from nerd_onnx.errors import VerificationError
from nerd_onnx.inference.arrays import Floats, Ints
from nerd_onnx.inference.bundle import Bundle
from nerd_onnx.inference.decoding import Spans
from nerd_onnx.inference.session import Network
from nerd_onnx.tagger import TaggedTexts, Tagger


@dataclass(frozen=True)
class Comparison:
    """
    How far a bundle stands from its original.

    :param texts: texts compared
    :param tokens: tokens compared, special ones included
    :param max_logit_difference: largest absolute difference of any logit
    :param labels_changed: share of tokens whose best label differs, 0 to 1
    :param entity_agreement: F1 of the bundle's entities against the original's, 0 to 1
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
        """What the user must know of a comparison that says little, or None."""
        if self.entities:
            return None
        return (
            f"the original finds no entity in the texts compared: on {self.texts} texts their agreement says nothing; "
            "give --texts with entities in them"
        )

    def check(self, limits: VerifyLimits) -> None:
        """
        Refuse a bundle that differs too much.

        :raises VerificationError: saying by how much
        """
        faults = []
        if not np.isfinite(self.max_logit_difference):
            faults.append("its logits are not finite")
        if self.labels_changed > limits.max_labels_changed:
            faults.append(f"{self.labels_changed:.2%} of labels changed, at most {limits.max_labels_changed:.2%} may")
        if self.entity_agreement < limits.min_entity_agreement:
            faults.append(
                f"entity agreement is {self.entity_agreement:.4f}, at least {limits.min_entity_agreement:.4f} is asked"
            )
        if faults:
            raise VerificationError(
                f"the exported model differs too much from its PyTorch original: {'; '.join(faults)} "
                f"(largest logit difference {self.max_logit_difference:.3g}, on {self.texts} texts). No bundle was "
                "written. Export with --quantize none, or allow more with --min-agreement and --max-labels-changed"
            )

    def summary(self) -> dict[str, Any]:
        """Give the figures as plain data, and the note where there is one."""
        figures = {k: round(v, 6) if isinstance(v, float) else v for k, v in asdict(self).items()}
        return figures | ({"note": self.note} if self.note else {})


class TorchNetwork:
    """The PyTorch original, behind the interface of the runtime's session."""

    def __init__(self, model: Any) -> None:
        self._model = model.eval()

    def logits(self, ids: Ints) -> Floats:
        """Score a batch of segments of one length. *Shape:* (batch, tokens) to (batch, tokens, labels)."""
        import torch

        with torch.inference_mode():
            batch = torch.from_numpy(np.ascontiguousarray(ids))
            result: Floats = self._model(input_ids=batch, attention_mask=torch.ones_like(batch)).logits.float().numpy()
            return result


class _Observed:
    """Runs two networks on every batch, gives the first's logits, and remembers how the second's differ."""

    def __init__(self, original: Network, exported: Network) -> None:
        self._original, self._exported = original, exported
        self._lock = threading.Lock()
        self.largest = 0.0
        self.changed = 0
        self.tokens = 0

    def logits(self, ids: Ints) -> Floats:
        expected, found = self._original.logits(ids), self._exported.logits(ids)
        difference = float(np.abs(expected - found).max())
        changed = int((expected.argmax(-1) != found.argmax(-1)).sum())
        with self._lock:
            self.largest = float(np.fmax(self.largest, difference)) if np.isfinite(difference) else float("inf")
            self.changed += changed
            self.tokens += ids.size
        return expected


def compare(bundle: Bundle, original: Network, texts: Sequence[str]) -> Comparison:
    """
    Tag texts with both networks; tokenizer, segments and decoding are the runtime's for both.

    :param bundle: the exported bundle as it will be used
    :param original: the PyTorch model
    """
    exported_tagger = Tagger(bundle)
    observed = _Observed(original, exported_tagger.network)
    original_tagger = Tagger(bundle, replace(exported_tagger.options, threads=1), network=observed)
    expected, found = original_tagger.tag_arrays(texts), exported_tagger.tag_arrays(texts)
    return Comparison(
        texts=len(texts),
        tokens=observed.tokens,
        max_logit_difference=observed.largest,
        labels_changed=observed.changed / max(1, observed.tokens),
        entity_agreement=_agreement(expected, found),
        entities=len(expected.spans),
    )


def sample_texts() -> list[str]:
    """Give the real texts that come with the program: encyclopedia, novels, speeches."""
    lines = files("nerd_onnx").joinpath("sample.jsonl").read_text("utf-8").splitlines()
    return [json.loads(line)["text"] for line in lines]


def _agreement(expected: TaggedTexts, found: TaggedTexts) -> float:
    """F1 of one entity set against another; two empty sets agree."""
    one, other = _as_set(expected.spans), _as_set(found.spans)
    return 2 * len(one & other) / (len(one) + len(other)) if one or other else 1.0


def _as_set(spans: Spans) -> set[tuple[int, ...]]:
    columns = (spans.row, spans.start, spans.end, spans.label, spans.fine)
    return set(zip(*(column.tolist() for column in columns), strict=True))
