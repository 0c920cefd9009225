"""Shared fixtures: small real models, made here, because no model hub is asked in tests."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
SAMPLE = ROOT / "nerd_onnx" / "sample.jsonl"
SHARED = ROOT.parent / "shared" / "data"

BIO_LABELS = ("O", "B-person", "I-person", "B-location", "I-location", "B-organization", "I-organization")
FINE_LABELS = ("O", "location-GPE", "location-island", "person-actor", "person-other")


def sample_texts() -> list[str]:
    """Give the real texts that ship with the program."""
    return [json.loads(line)["text"] for line in SAMPLE.read_text("utf-8").splitlines()]


def train_tokenizer(folder: Path, family: str) -> None:
    """Train a small WordPiece on the sample texts, and save it as the family's fast tokenizer."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

    bert = family == "bert"
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"] if bert else ["<s>", "<pad>", "</s>", "[UNK]", "<mask>"]
    first, last = ("[CLS]", "[SEP]") if bert else ("<s>", "</s>")
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=1500, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(sample_texts(), trainer)
    ids = {token: tokenizer.token_to_id(token) for token in special}
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{first} $A {last}", special_tokens=[(first, ids[first]), (last, ids[last])]
    )
    tokenizer.enable_truncation(16)  # as real folders have it: the runtime must not cut anything
    tokenizer.enable_padding(length=16)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    inputs = ["input_ids", "token_type_ids", "attention_mask"] if bert else ["input_ids", "attention_mask"]
    names = {
        "model_input_names": inputs,
        "unk_token": "[UNK]",
        "pad_token": special[0] if bert else "<pad>",
        "cls_token": first,
        "sep_token": last,
    }
    kind = "BertTokenizerFast" if bert else "PreTrainedTokenizerFast"
    config = {"tokenizer_class": kind, "model_max_length": int(1e30), "do_lower_case": True, **names}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def make_checkpoint(folder: Path, family: str, labels: tuple[str, ...] | None, seed: int = 0) -> Path:
    """
    Make a tiny encoder with random weights; with labels it has a token-classification head.

    The weights are wide and some channels stand out, as trained ones do, so that labels vary from word to word and
    int8 has something to lose.
    """
    import torch
    import transformers

    train_tokenizer(folder, family)
    torch.manual_seed(seed)
    tokenizer = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    sizes: dict[str, Any] = {
        "vocab_size": len(tokenizer["model"]["vocab"]),
        "hidden_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 96,
        "max_position_embeddings": 130 if family == "bert" else 132,
        **({"id2label": dict(enumerate(labels)), "label2id": {n: i for i, n in enumerate(labels)}} if labels else {}),
        "initializer_range": 0.15,
    }
    config = transformers.BertConfig(**sizes) if family == "bert" else transformers.MPNetConfig(**sizes, pad_token_id=1)
    kind = transformers.AutoModelForTokenClassification if labels else transformers.AutoModel
    model = kind.from_config(config).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith("intermediate.dense.weight"):
                weight[:3] *= 6  # outlier channels
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, tuple[str, ...]], Path]:
    """Give a function that makes, once each, the checkpoint of a family with some labels."""
    made: dict[tuple[str, tuple[str, ...]], Path] = {}

    def make(family: str, labels: tuple[str, ...] = FINE_LABELS) -> Path:
        if (family, labels) not in made:
            made[family, labels] = make_checkpoint(tmp_path_factory.mktemp(family) / "checkpoint", family, labels)
        return made[family, labels]

    return make


@pytest.fixture(scope="session")
def tiny_bundle(checkpoint: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Export the tiny two-level BERT as an int8 bundle; its limits are wide, for random weights have many near ties."""
    from nerd_export.config import VerifyLimits
    from nerd_export.conversion.export import ExportRequest, export_bundle

    output = tmp_path_factory.mktemp("bundle") / "tiny"
    limits = VerifyLimits(min_entity_agreement=0.5, max_labels_changed=0.2)
    request = ExportRequest(str(checkpoint("bert")), output, level="fine", segment_tokens=48, limits=limits)
    export_bundle(request, lambda _: None)
    return output
