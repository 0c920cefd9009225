"""
A loss with more parts than the standard one: weights of sentences, a share for coarse labels, and soft labels of
teachers.

The published recipe needs none of this and uses transformers' Trainer unchanged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nerd_export.training.features import IGNORED, Features
from nerd_export.training.teacher import SoftLabels
from nerd_onnx.inference.arrays import Bools

_MODEL_COLUMNS = ("input_ids", "attention_mask", "token_type_ids", "labels")
SET_COLUMN = "validation_set"  # which validation set an example belongs to


def with_extras(features: Features, weights: Sequence[float], soft: SoftLabels | None) -> Any:
    """
    Add the columns that :class:`Collator` needs: weight, number and decided tokens of each example.

    :return: a ``datasets.Dataset``
    """
    dataset = features.dataset.add_column("weight", list(weights))
    if soft is None:
        return dataset
    # The number of the example leads to its soft labels, which stay in a file that is mapped into memory.
    return dataset.add_column("example", list(range(len(weights)))).add_column("places", list(features.places))


class Collator:
    """Makes batches as ``DataCollatorForTokenClassification`` does, and adds weights and soft labels."""

    def __init__(self, tokenizer: Any, soft: SoftLabels | None) -> None:
        import transformers

        self._pad = transformers.DataCollatorForTokenClassification(tokenizer, pad_to_multiple_of=8)
        self._soft = soft
        self._left = tokenizer.padding_side == "left"

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """
        Pad rows into a batch.

        :return: includes ``weight`` *Shape:* (batch,) and ``soft`` *Shape:* (batch, tokens, labels), zeros where
            no teacher has an answer, if the rows have them
        """
        import torch

        batch = dict(self._pad([{name: row[name] for name in _MODEL_COLUMNS if name in row} for row in rows]))
        if "weight" in rows[0]:
            batch["weight"] = torch.tensor([row["weight"] for row in rows])

        if SET_COLUMN in rows[0]:
            batch[SET_COLUMN] = torch.tensor([row[SET_COLUMN] for row in rows])

        if self._soft is not None and "example" in rows[0]:
            # Padding and special tokens keep zeros, which the loss ignores.
            soft = torch.zeros(*batch["labels"].shape, self._soft.table.shape[1])
            for i, row in enumerate(rows):
                skipped = soft.shape[1] - len(row["labels"]) if self._left else 0
                answers = torch.from_numpy(self._soft.of(row["example"]).astype("float32"))
                soft[i, [skipped + place for place in row["places"]]] = answers
            batch["soft"] = soft

        return batch


@dataclass(frozen=True)
class Mix:
    """
    The parts of the loss.

    :param soft_share: share of the teachers' part, 0 to 1; multiplied by the square of ``temperature``, which keeps
        the size of its gradients
    :param temperature: divides the logits in the comparison with the teachers' probabilities
    :param coarse_share: share of coarse labels in the part of the labels, 0 to 1; the rest is on labels as they are
    :param class_of_label: coarse class to which the probability of each label is added. *Shape:* (labels,)
    :param allowed: which labels each target allows; targets from the number of labels on are partial tags. None if
        every target is a label. *Shape:* (targets, labels)
    """

    soft_share: float = 0.0
    temperature: float = 1.0
    coarse_share: float = 0.0
    class_of_label: Sequence[int] = ()
    allowed: Bools | None = None


def mixed_loss(logits: Any, labels: Any, weight: Any | None, soft: Any | None, mix: Mix) -> Any:
    """
    Return the mean of the cross entropy on labels and on the teachers' probabilities (Hinton et al., 2015).

    Each part is a weighted mean over the words for which it is defined. The loss of a word with a partial tag is the
    negative logarithm of the summed probability of the labels that the tag allows, as in learning from partially
    labelled sequences (Tsuboi et al., 2008). A teacher fills what such a tag leaves open: its probabilities are
    limited to the allowed labels.

    :param logits: *Shape:* (batch, tokens, labels)
    :param labels: targets, or ``IGNORED`` where the tag is unknown. *Shape:* (batch, tokens)
    :param weight: weight of each example; None for 1. *Shape:* (batch,)
    :param soft: the teachers' probabilities, zeros without an answer; None without teachers. *Shape:* as ``logits``
    :return: a scalar tensor
    """
    import torch
    from torch.nn.functional import cross_entropy, log_softmax

    # bfloat16 has two to three significant digits: too few for a sum of exponentials.
    logits = logits.float()
    each = torch.ones(len(logits), device=logits.device) if weight is None else weight.to(logits.dtype)

    weights = each[:, None].expand(labels.shape)
    is_partial = labels >= logits.shape[-1]
    whole = labels.masked_fill(is_partial, IGNORED)
    hard = cross_entropy(logits.transpose(1, 2), whole, ignore_index=IGNORED, reduction="none")

    if mix.coarse_share:
        hard = (1 - mix.coarse_share) * hard + mix.coarse_share * _coarse_loss(logits, whole, mix.class_of_label)

    if mix.allowed is not None:
        allowed = torch.from_numpy(mix.allowed).to(logits.device)[labels.where(is_partial, 0)]
        hard = hard + is_partial * (logits.logsumexp(-1) - _of_allowed(logits, allowed))
        soft = None if soft is None else _limited(soft, allowed | ~is_partial[..., None])

    # Each mean is over its own words: otherwise a batch with few known tags would learn next to nothing from them.
    loss = _mean(hard, weights * (labels != IGNORED))
    if soft is None:
        return loss

    distance = -(soft * log_softmax(logits / mix.temperature, dim=-1)).sum(-1)
    teacher = _mean(distance, weights * (soft.sum(-1) > 0))

    return (1 - mix.soft_share) * loss + mix.soft_share * mix.temperature**2 * teacher


def _coarse_loss(logits: Any, labels: Any, class_of_label: Sequence[int]) -> Any:
    """
    Return the cross entropy of the coarse classes. Their probabilities are the sums by which the runtime decides.

    :return: 0 where no label is known. *Shape:* (batch, tokens)
    """
    import torch

    classes = torch.tensor(class_of_label, device=logits.device)
    known = labels != IGNORED
    of_class = classes[None, None, :] == classes[labels.where(known, 0)][..., None]

    # In logarithms: a sum of small probabilities would underflow.
    of_right = logits.masked_fill(~of_class, float("-inf")).logsumexp(-1)
    return (logits.logsumexp(-1) - of_right) * known


def _of_allowed(logits: Any, allowed: Any) -> Any:
    """Return the logarithm of the sum of the allowed labels' exponentials. *Shape:* (batch, tokens)."""
    return logits.masked_fill(~allowed, float("-inf")).logsumexp(-1)


def _limited(soft: Any, allowed: Any) -> Any:
    """Return a teacher's probabilities without the labels that are not allowed, scaled to the sum that they had."""
    kept = soft * allowed

    total = kept.sum(-1, keepdim=True)
    # A teacher that gives the allowed labels nothing has no answer for this word.
    return kept * (soft.sum(-1, keepdim=True) / total.clamp(min=1e-9)) * (total > 1e-6)  # noqa: PLR2004


def _mean(values: Any, weights: Any) -> Any:
    total = weights.sum()
    # A batch may have no such word at all; its mean is 0 then, not NaN.
    return (values * weights).sum() / total.clamp(min=1e-9)


def mixing_trainer(mix: Mix, **arguments: Any) -> Any:
    """
    Return a Trainer that uses :func:`mixed_loss`.

    :param arguments: as ``transformers.Trainer`` takes them, with a :class:`Collator`
    """
    import transformers

    class MixingTrainer(transformers.Trainer):  # type: ignore[misc]
        """The Trainer with another loss; accumulated batches have equal weight."""

        def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **_: Any) -> Any:  # noqa: FBT001, FBT002 - the Trainer's signature
            weight, soft = inputs.pop("weight", None), inputs.pop("soft", None)
            outputs = model(**{k: v for k, v in inputs.items() if k not in ("labels", SET_COLUMN)})
            loss = mixed_loss(outputs.logits, inputs["labels"], weight, soft, mix)
            return (loss, {"loss": loss, "logits": outputs.logits}) if return_outputs else loss

    trainer = MixingTrainer(**arguments)
    trainer.model_accepts_loss_kwargs = False  # so that it divides the loss by the accumulated batches

    return trainer
