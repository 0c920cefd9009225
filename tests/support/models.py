"""Tiny encoders of every supported family, made here, because no model hub is asked in tests."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = ROOT / "nerd_onnx" / "sample.jsonl"
# Training gives another vocabulary each time, so the one of the committed models is committed too.
TOKENIZER = Path(__file__).parent.parent / "data" / "bert-tokenizer.json"

BIO_LABELS = ("O", "B-person", "I-person", "B-location", "I-location", "B-organization", "I-organization")
FINE_LABELS = ("O", "location-GPE", "location-island", "person-actor", "person-other")

_BERT_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_ROBERTA_SPECIAL = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
_LENGTH = 130  # positions for tokens, special ones included


@dataclass(frozen=True)
class Family:
    """
    How to make a tiny model of an architecture.

    :param config: class of its configuration in transformers
    :param tokenizer: kind of its fast tokenizer: wordpiece, bytes (byte-level BPE) or pieces (SentencePiece's)
    :param special: its padding, unknown, first, last and mask token, by the place of each in the vocabulary
    :param sizes: its own names of the sizes that differ from BERT's
    """

    config: str
    tokenizer: str = "wordpiece"
    special: tuple[str, ...] = _BERT_SPECIAL
    token_types: bool = False
    sizes: dict[str, Any] = field(default_factory=dict)

    @property
    def named(self) -> dict[str, str]:
        """Special tokens under transformers' names."""
        keys = ("pad", "unk", "cls", "sep", "mask")
        # RoBERTa's vocabularies begin with <s>, <pad>, </s> and <unk>.
        order = self.special if self.special[0] != "<s>" else [self.special[i] for i in (1, 3, 0, 2, 4)]
        return {f"{key}_token": token for key, token in zip(keys, order, strict=True)}


_SHIFTED = {"max_position_embeddings": _LENGTH + 2, "pad_token_id": 1}  # positions count from behind the padding's id
FAMILIES: dict[str, Family] = {
    "bert": Family("BertConfig", token_types=True),
    # Of the sizes that the native encoder computes.
    "bert-wide": Family("BertConfig", token_types=True, sizes={"hidden_size": 64, "intermediate_size": 128}),
    "distilbert": Family("DistilBertConfig", sizes={"dim": 48, "n_layers": 2, "n_heads": 4, "hidden_dim": 96}),
    "roberta": Family("RobertaConfig", "bytes", _ROBERTA_SPECIAL, sizes={**_SHIFTED, "type_vocab_size": 1}),
    "xlm-roberta": Family("XLMRobertaConfig", "pieces", _ROBERTA_SPECIAL, sizes={**_SHIFTED, "type_vocab_size": 1}),
    "electra": Family("ElectraConfig", token_types=True, sizes={"embedding_size": 24}),
    "albert": Family("AlbertConfig", "pieces", token_types=True, sizes={"embedding_size": 24}),
    "deberta-v3": Family(
        "DebertaV2Config",
        "pieces",
        sizes={
            "type_vocab_size": 0,
            "relative_attention": True,
            "position_buckets": 16,
            "norm_rel_ebd": "layer_norm",
            "share_att_key": True,
            "pos_att_type": ["p2c", "c2p"],
            "position_biased_input": False,
        },
    ),
    "mpnet": Family("MPNetConfig", special=_ROBERTA_SPECIAL, sizes=_SHIFTED),
    "modernbert": Family(
        "ModernBertConfig",
        "bytes",
        sizes={"local_attention": 32, "global_attn_every_n_layers": 2, "reference_compile": False},
    ),
}


def sample_texts() -> list[str]:
    """Return the real texts that ship with the program."""
    return [json.loads(line)["text"] for line in SAMPLE.read_text("utf-8").splitlines()]


def train_tokenizer(folder: Path, name: str) -> None:
    """Train a small tokenizer of the family's kind on the sample texts, and save it as its fast tokenizer."""
    from tokenizers import Tokenizer, processors

    family = FAMILIES[name]
    first, last = family.named["cls_token"], family.named["sep_token"]
    tokenizer = Tokenizer.from_file(str(TOKENIZER)) if name == "bert" else trained_tokenizer(family)

    ids = {token: tokenizer.token_to_id(token) for token in family.special}
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{first} $A {last}", special_tokens=[(first, ids[first]), (last, ids[last])]
    )
    tokenizer.enable_truncation(16)  # as real folders have it: the runtime must not cut anything
    tokenizer.enable_padding(length=16)

    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))

    kind = "BertTokenizerFast" if name == "bert" else "PreTrainedTokenizerFast"
    types = ["token_type_ids"] if family.token_types else []
    config = {
        "tokenizer_class": kind,
        # transformers' number for no limit.
        "model_max_length": int(1e30),
        "do_lower_case": True,
        "model_input_names": ["input_ids", *types, "attention_mask"],
        **family.named,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def trained_tokenizer(family: Family) -> Any:
    """Train the tokenizer, without what it adds around a text."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

    unknown, special = family.named["unk_token"], list(family.special)
    if family.tokenizer == "wordpiece":
        tokenizer = Tokenizer(models.WordPiece(unk_token=unknown))
        tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        trainer = trainers.WordPieceTrainer(vocab_size=1500, special_tokens=special, show_progress=False)
    elif family.tokenizer == "bytes":
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(
            vocab_size=1500, special_tokens=special, initial_alphabet=alphabet, show_progress=False
        )
    else:
        tokenizer = Tokenizer(models.Unigram())
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        trainer = trainers.UnigramTrainer(
            vocab_size=1500, special_tokens=special, unk_token=unknown, show_progress=False
        )

    tokenizer.train_from_iterator(sample_texts(), trainer)
    return tokenizer


def make_checkpoint(
    folder: Path, name: str, labels: tuple[str, ...] | None, seed: int = 0, sizes: Mapping[str, Any] | None = None
) -> Path:
    """
    Make a tiny encoder with random weights; with labels it has a token-classification head.

    :param sizes: sizes other than the usual ones, by their names in the configuration

    The weights are wide, some channels stand out and biases are not zero, as in trained ones, so that labels vary from
    word to word and int8 has something to lose.
    """
    import torch
    import transformers

    train_tokenizer(folder, name)
    torch.manual_seed(seed)

    tokenizer = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    vocabulary = tokenizer["model"]["vocab"]
    own: dict[str, Any] = {
        "vocab_size": len(vocabulary),
        "hidden_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 96,
        "max_position_embeddings": _LENGTH,
        "initializer_range": 0.15,
        "pad_token_id": FAMILIES[name].special.index(FAMILIES[name].named["pad_token"]),
        **FAMILIES[name].sizes,
        **(sizes or {}),
        **({"id2label": dict(enumerate(labels)), "label2id": {n: i for i, n in enumerate(labels)}} if labels else {}),
    }

    config = getattr(transformers, FAMILIES[name].config)(**own)
    kind = transformers.AutoModelForTokenClassification if labels else transformers.AutoModel

    model = kind.from_config(config).eval()
    widen(model)
    model.save_pretrained(folder)
    return folder


def widen(model: Any) -> None:
    """Let some channels stand out before the widest products, and biases differ from zero, as in trained encoders."""
    import torch

    hidden = model.config.hidden_size
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim == 2 and weight.shape[1] == hidden and weight.shape[0] > hidden and "embed" not in name:
                weight[:3] *= 6
            if name.endswith("bias"):
                weight.normal_(0, 0.1)
