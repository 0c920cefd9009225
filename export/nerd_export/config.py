"""Every default of training and export."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Level = Literal["coarse", "fine"]
NullTags = Literal["refuse", "unknown"]
Precision = Literal["fp32", "bf16"]
Quantization = str  # name of a recipe; the registry in quantization/recipes is the only list of them
Embeddings = Literal["int8", "fp32"]


@dataclass(frozen=True)
class TrainConfig:
    """
    The options of a training. The defaults are the published recipe: BERT fine-tuned on Few-NERD.

    :param model: hub id or folder of the encoder or bundle to start from, or ``default`` for the default model
    :param dataset: hub id, or folder that holds ``train``, ``validation`` and perhaps ``test`` files
    :param dataset_config: configuration of the hub data set
    :param level: coarse types, or fine types from which the coarse one follows
    :param learning_rate: peak of the linear schedule
    :param warmup_ratio: share of all steps in which the rate climbs to its peak
    :param max_tokens: maximum length of a training sentence in wordpieces; longer ones are truncated
    :param precision: bf16 runs the matrix products in bfloat16 (autocast), weights stay fp32
    :param save_steps: steps between two checkpoints: the most that an interrupted run loses
    :param gradient_accumulation: batches added up before a step
    :param null_tags: whether a null tag is an error, or an unknown tag that is left out of the loss
    :param tier_weights: weight in the loss of the sentences of a tier, by the data's column ``tier``
    :param forms: number of times each sentence is written per epoch, each time in a form drawn by the shares below
    :param plain_share: share of sentences written as plain text, as people write, instead of words between spaces
    :param lower_share: share of sentences in lower case
    :param upper_share: share of sentences in capitals
    :param title_share: share of sentences in which each word begins with a capital, as in headlines
    :param cut_share: share of sentences that are cut to a fragment
    :param join_share: share of sentences that are joined with the next one
    :param nameless_share: number of added texts without an entity, as a share of the sentences
    :param letter_case: the model gets the case of each word as token types, see :mod:`letter_case`
    :param coarse_share: share of the loss on coarse labels in the loss on labels; the rest is on fine labels
    :param teachers: the same of fine-tuned classifiers with the same labels, to learn from the mean of their
        probabilities as well
    :param words_column: column of the words in Parquet and JSON Lines files and in hub data sets
    :param tags_column: column of the tags there; None for ``ner_tags``, or ``fine_ner_tags`` with fine types
    :param soft_share: the teachers' share of the loss, 0 to 1
    :param temperature: softens the teachers' probabilities
    """

    model: str = "bert-base-uncased"
    dataset: str = "DFKI-SLT/few-nerd"
    dataset_config: str = "supervised"
    level: Level = "coarse"
    learning_rate: float = 3e-5
    train_batch_size: int = 16
    eval_batch_size: int = 8
    epochs: float = 5.0
    adam_beta1: float = 0.9
    adam_beta2: float = 0.999
    adam_epsilon: float = 1e-8
    warmup_ratio: float = 0.1
    seed: int = 42
    max_tokens: int = 256
    precision: Precision = "fp32"
    group_by_length: bool = False
    save_steps: int = 500
    max_train_samples: int | None = None
    gradient_accumulation: int = 1
    null_tags: NullTags = "refuse"
    tier_weights: Mapping[str, float] = field(default_factory=dict)
    forms: int = 1
    plain_share: float = 0.0
    lower_share: float = 0.0
    upper_share: float = 0.0
    title_share: float = 0.0
    cut_share: float = 0.0
    join_share: float = 0.0
    nameless_share: float = 0.0
    letter_case: bool = False
    coarse_share: float = 0.0
    teachers: tuple[str, ...] = ()
    words_column: str = "tokens"
    tags_column: str | None = None
    soft_share: float = 0.5
    temperature: float = 1.0

    @property
    def draws_forms(self) -> bool:
        """Whether sentences are written in forms that chance decides."""
        shares = (self.plain_share, self.lower_share, self.upper_share, self.title_share, self.cut_share)
        return any((*shares, self.join_share, self.nameless_share))

    @property
    def mixes_losses(self) -> bool:
        """Whether the options need another loss: for a teacher, weights, coarse types, or words without a tag."""
        asked = bool(self.teachers) or bool(self.tier_weights) or self.coarse_share > 0
        return asked or self.null_tags == "unknown"


@dataclass(frozen=True)
class VerifyLimits:
    """
    How much an exported bundle may differ from its PyTorch original before it is refused.

    :param min_entity_agreement: minimum F1 of the bundle's entities against the original's, 0 to 1
    :param max_labels_changed: maximum share of tokens that get another tag, 0 to 1
    :param max_f1_drop: maximum decrease of entity F1 on labelled data, 0 to 1, in any view
    """

    min_entity_agreement: float = 0.98
    max_labels_changed: float = 0.01
    max_f1_drop: float = 0.003


# With the special tokens. Measured best for models that were trained on single sentences (docs/research-log.md).
SEGMENT_TOKENS = 64

# Versions that work together, named where others do not; constraints.txt pins the same.
TESTED_VERSIONS = {
    "optimum": "2.1.0",
    "optimum-onnx": "0.1.0",
    "transformers": "4.57.6",
    "torch": "2.13.0",
    "onnx": "1.23.2",
    "onnxruntime": "1.32.0",
}
