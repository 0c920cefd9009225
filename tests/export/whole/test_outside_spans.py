"""Plain Hugging Face folders with the traps of real ones: entities are those of their own tokenizer and weights."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from seqeval.metrics.sequence_labeling import get_entities

from nerd_onnx.inference.labels import OUTSIDE
from nerd_onnx.tagger import Tagger
from tests.support.bundles import plain_folder
from tests.support.marks import slow_but
from tests.support.models import sample_texts

TYPES = ("person", "location", "organization")
SCHEMES: dict[str, tuple[str, ...]] = {
    "BIO": ("O", *(f"{p}-{t}" for t in TYPES for p in "BI")),
    "IOB1": ("I-person", "O", "I-location", "B-location", "B-person", "I-organization", "B-organization"),
    "BILOU": ("O", *(f"{p}-{t}" for t in TYPES[:2] for p in "BILU")),
    "IO": ("O", *TYPES),
}
# Families whose pre-tokenizer makes words; those of the others have rules of their own (tests/inference/test_words.py).
FAMILIES = ("bert", "distilbert", "electra", "mpnet", "roberta", "modernbert")
BYTES = ("roberta", "modernbert")
RUNS = re.compile(r"[^\w\s][^\w\s]|\d[^\W\d]|[^\W\d]\d|_|'")
AS_BIOES = {"L": "E", "U": "S"}


def trapped_folder(checkpoint: Path, folder: Path) -> Path:
    """Write a checkpoint in the layout of optimum, with the traps of real folders."""
    plain_folder(checkpoint, folder)
    tokenizer = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    tokenizer["truncation"] = {"direction": "Right", "max_length": 16, "strategy": "LongestFirst", "stride": 0}
    tokenizer["padding"] = {
        "strategy": {"Fixed": 16},
        "direction": "Right",
        "pad_to_multiple_of": None,
        "pad_id": 0,
        "pad_type_id": 0,
        "pad_token": "[PAD]",
    }
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer), "utf-8")
    settings = json.loads((folder / "tokenizer_config.json").read_text("utf-8"))
    (folder / "tokenizer_config.json").write_text(json.dumps({**settings, "model_max_length": int(1e30)}), "utf-8")
    return folder


def expected_spans(text: str, encoded: Any, tags: Sequence[str]) -> list[tuple[int, int, str]]:
    """Return the entities that seqeval reads from the first token of each word, with their places in the text."""
    words = encoded.word_ids()
    first: dict[int, int] = {}
    end: dict[int, int] = {}
    for token, word in enumerate(words):
        if word is not None and encoded["offset_mapping"][token][1] > encoded["offset_mapping"][token][0]:
            first.setdefault(word, token)
            end[word] = encoded["offset_mapping"][token][1]
    order = sorted(first)
    found = get_entities([tags[first[word]] for word in order])
    spans = []
    for name, begin, last in found:
        start = encoded["offset_mapping"][first[order[begin]]][0]
        start += len(text[start : end[order[last]]]) - len(text[start : end[order[last]]].lstrip())
        spans.append((start, end[order[last]], name))
    return spans


def bioes(name: str, scheme: str) -> str:
    """Write a tag as seqeval reads it."""
    if name == OUTSIDE:
        return OUTSIDE
    if scheme == "IO":
        return f"I-{name}"
    return AS_BIOES.get(name[0], name[0]) + name[1:]


def short_texts(tokenizer: Any, family: str = "bert") -> list[str]:
    """
    Take texts of one segment, so that the oracle sees what the tagger shows its network.

    Byte-level pre-tokenizers leave runs of punctuation in one piece, which the runtime cuts as it does for all others;
    texts with such runs are left out for them.
    """
    texts = [text for text in sample_texts() if len(tokenizer(text)["input_ids"]) <= 64]
    if family in BYTES:
        texts = [text for text in texts if not RUNS.search(text)]
    return texts[:50]


@pytest.mark.parametrize("scheme", slow_but(["BIO"], SCHEMES))
@pytest.mark.parametrize("family", slow_but(["bert", "roberta"], FAMILIES))
def test_spans_are_those_of_its_own_tokenizer_and_weights(
    family: str, scheme: str, checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    import torch
    import transformers

    labels = SCHEMES[scheme]
    source = checkpoint(family, labels)
    folder = trapped_folder(source, tmp_path / "plain")
    names = list(labels)
    tokenizer = transformers.AutoTokenizer.from_pretrained(source)
    model = transformers.AutoModelForTokenClassification.from_pretrained(source).eval()
    tagger = Tagger.load(folder, join="scheme")
    texts = short_texts(tokenizer, family)
    found = tagger.tag(texts)
    tagger.close()
    total = 0
    for text, entities in zip(texts, found, strict=True):
        encoded = tokenizer(text, return_offsets_mapping=True)
        ids = torch.tensor([encoded["input_ids"]])
        with torch.inference_mode():
            best = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0].argmax(-1).tolist()
        expected = expected_spans(text, encoded, [bioes(names[i], scheme) for i in best])
        assert [(e.start, e.end, e.label) for e in entities or []] == expected
        total += len(expected)
    assert total > 100


def test_weights_of_four_bits_run_and_no_neighbour_changes_a_text(
    checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    import onnx
    import transformers
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    source = checkpoint("bert", SCHEMES["BIO"])
    folder = trapped_folder(source, tmp_path / "plain")
    graph = folder / "onnx" / "model.onnx"
    quantizer = MatMulNBitsQuantizer(onnx.load(graph), block_size=16, is_symmetric=True, accuracy_level=4)
    quantizer.process()
    quantizer.model.save_model_to_file(str(graph))
    assert "MatMulNBits" in {node.op_type for node in onnx.load(graph).graph.node}
    tokenizer = transformers.AutoTokenizer.from_pretrained(source)
    session = ort.InferenceSession(str(graph), providers=["CPUExecutionProvider"])
    inputs = {node.name for node in session.get_inputs()}
    tagger = Tagger.load(folder, join="scheme")
    texts = short_texts(tokenizer)
    together, alone = tagger.tag(texts), [tagger.tag([text])[0] for text in texts]
    assert together == alone
    labels = SCHEMES["BIO"]
    same = total = 0
    for text, entities in zip(texts, together, strict=True):
        encoded = tokenizer(text, return_offsets_mapping=True)
        ids = np.array([encoded["input_ids"]])
        feed = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
        best = session.run(None, {name: feed[name] for name in inputs})[0][0].argmax(-1)
        expected = expected_spans(text, encoded, [labels[i] for i in best])
        same += len({(e.start, e.end, e.label) for e in entities or []} & set(expected))
        total += len(expected)
    assert total > 100
    assert same >= 0.98 * total  # kernels for other batch sizes round differently
