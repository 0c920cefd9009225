"""Plain Hugging Face folders of every family, as other tools write them: the tags equal those of PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nerd_onnx import Tagger
from tests.support.bundles import plain_folder
from tests.support.marks import slow_but
from tests.support.models import BIO_LABELS, FAMILIES, sample_texts

SCHEMES = {
    "BIO": BIO_LABELS,
    "BILOU": ("O", "B-person", "I-person", "L-person", "U-person", "B-place", "I-place", "L-place", "U-place"),
    "IO": ("O", "person", "place", "group"),
}


def word_labels(source: Path, texts: list[str]) -> list[list[tuple[int, int, str]]]:
    """Return PyTorch's label of each word, by its first token: start, end and label."""
    import torch
    import transformers

    tokenizer: Any = transformers.AutoTokenizer.from_pretrained(source)
    model = transformers.AutoModelForTokenClassification.from_pretrained(source).eval()
    found = []
    for text in texts:
        encoded = tokenizer(text, return_tensors="pt", truncation=False)
        names = {key: value for key, value in encoded.items() if key in tokenizer.model_input_names}
        with torch.inference_mode():
            labels = model(**names).logits[0].argmax(-1).tolist()
        words: dict[int, tuple[int, int, str]] = {}
        for i, word in enumerate(encoded.word_ids()):
            if word is not None and word not in words:
                start, end = encoded.token_to_chars(i)
                while start < end and text[start].isspace():  # byte-level tokens begin with their space
                    start += 1
                words[word] = (start, end, model.config.id2label[labels[i]])
        found.append(list(words.values()))
    return found


def bare(label: str) -> str:
    """Remove the prefix of a label."""
    return label[2:] if label[1:2] == "-" else label


@pytest.mark.parametrize("family", slow_but(["deberta-v3"], sorted(FAMILIES)))
def test_each_word_has_the_label_that_pytorch_gives_it(
    family: str, checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    source = checkpoint(family, BIO_LABELS)
    texts = [text for text in sample_texts() if len(text) < 160][:30]
    found = Tagger.load(plain_folder(source, tmp_path / "model"), join="scheme").tag(texts)
    checked = different = 0
    for words, entities in zip(word_labels(source, texts), found, strict=True):
        for start, end, label in words:
            if start < end:  # not a lone space
                here = [entity.label for entity in entities or [] if entity.start <= start < entity.end]
                checked += 1
                different += (here or ["O"]) != [bare(label)]
    assert checked > 150
    assert different <= checked * 0.01  # a near tie may fall either way


@pytest.mark.parametrize("scheme", sorted(SCHEMES))
def test_each_scheme_of_labels(scheme: str, checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    source = checkpoint("bert", SCHEMES[scheme])
    folder = tmp_path / "model"
    plain_folder(source, folder)
    texts = [text for text in sample_texts() if len(text) < 160][:20]
    found = Tagger.load(folder, join="scheme").tag(texts)
    names = {bare(label) for label in SCHEMES[scheme]} - {"O"}
    labels = {entity.label for entities in found for entity in entities or []}
    assert labels <= names
    assert labels
    for text, words, entities in zip(texts, word_labels(source, texts), found, strict=True):
        for entity in entities or []:
            assert text[entity.start : entity.end] == entity.text
            assert entity.start in {start for start, _, _ in words}
