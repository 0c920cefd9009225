"""Training with letter case: an uncased model learns what depends on capitals."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from nerd_export.config import TrainConfig
from nerd_export.data.checks import Sentence
from nerd_export.data.examples import Example
from nerd_export.data.training_data import TrainingData
from nerd_export.evaluation.subject import open_subject
from nerd_export.models.letter_case import token_types, with_letter_case
from nerd_export.training.features import encode
from nerd_export.training.teacher import soft_labels
from nerd_export.training.trainer import train
from nerd_onnx.errors import NerdError
from nerd_onnx.inference.encoding import TextEncoder
from nerd_onnx.inference.labels import LabelSet
from tests.support.failures import fails
from tests.support.models import FINE_LABELS, make_checkpoint, sample_texts

_LABELS = LabelSet(("O", "name"))
_WORDS = sorted({word.lower() for text in sample_texts()[:20] for word in text.split() if word.isalpha()})


def sentences(count: int, seed: int) -> list[Sentence]:
    """Return sentences in which a word is a name if and only if it begins with a capital."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        capital = rng.random(8) < 0.4
        words = [word.title() if up else word for word, up in zip(rng.choice(_WORDS, 8), capital, strict=True)]
        found.append(Sentence(tuple(words), tuple("name" if up else "O" for up in capital)))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("sees", [True, False])
def test_only_a_model_that_sees_case_learns_from_it(*, sees: bool, tmp_path: Path) -> None:
    data = TrainingData(sentences(400, 1), sentences(60, 2), _LABELS, "made", "made")
    base = make_checkpoint(tmp_path / "base", "bert", None)
    config = TrainConfig(
        model=str(base), learning_rate=2e-3, epochs=4, train_batch_size=16, letter_case=sees, max_tokens=64
    )
    output = tmp_path / "out"
    table = train(config, data, output, resume=False, overwrite=False, note=lambda _: None)
    assert json.loads((output / "config.json").read_text("utf-8")).get("letter_case", False) is sees
    if not sees:
        assert table[-1].f1 < 0.6
        return
    assert table[-1].f1 > 0.95
    with open_subject(str(output), None, None, lambda _: None) as tagger:
        found = tagger.tag_words([s.tokens for s in data.validation])
    names = sum(len(s.tags) - s.tags.count("O") for s in data.validation)
    assert (found.end - found.start).sum() == pytest.approx(names, rel=0.1)


def test_a_table_is_given_rows_once(checkpoint: Callable[..., Path]) -> None:
    import torch
    import transformers

    model = transformers.AutoModelForTokenClassification.from_pretrained(checkpoint("bert")).eval()
    ids = torch.tensor([[2, 40, 50, 60, 3]])
    before = model(input_ids=ids).logits
    with_letter_case(model, "tiny")
    table = model.bert.embeddings.token_type_embeddings.weight
    assert table.shape[0] == model.config.type_vocab_size == 4
    torch.testing.assert_close(model(input_ids=ids).logits, before)  # without capitals it answers as it did
    with_letter_case(model, "tiny")
    assert model.bert.embeddings.token_type_embeddings.weight is table


@pytest.mark.parametrize("family", ["distilbert", "mpnet", "deberta-v3", "roberta", "xlm-roberta"])
def test_models_without_a_table_of_types_are_refused(family: str, checkpoint: Callable[..., Path]) -> None:
    import transformers

    model = transformers.AutoModelForTokenClassification.from_pretrained(checkpoint(family))
    with fails(NerdError, "no-token-types", option="--letter-case", file="tiny"):
        with_letter_case(model, "tiny")


@pytest.mark.slow
@pytest.mark.parametrize("most", [None, 5, 8])
@pytest.mark.parametrize("family", ["bert", "albert"])
def test_training_and_tagging_see_the_same_case(family: str, most: int | None, checkpoint: Callable[..., Path]) -> None:
    import transformers

    folder = checkpoint(family)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    texts = [*sample_texts()[:60], "", "東京 Tokyo", "E\u0301lan iPhone NATO", "the McDONALDSVILLE"]
    encoded = tokenizer(texts, truncation=most is not None, max_length=most, return_offsets_mapping=True)
    ours = TextEncoder(folder / "tokenizer.json", letter_case=True).encode(texts)
    assert ours.types is not None
    for i, types in enumerate(token_types(texts, encoded, tokenizer)):
        expected = ours.types[ours.text_tokens[i] : ours.text_tokens[i + 1]].tolist()
        assert len(types) == len(encoded["input_ids"][i])
        assert types == [0, *expected[: None if most is None else most - 2], 0]


def test_a_teacher_that_sees_case_is_shown_it(checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    import torch
    import transformers

    folder = make_checkpoint(tmp_path / "teacher", "bert", FINE_LABELS)
    model = transformers.AutoModelForTokenClassification.from_pretrained(folder)
    torch.manual_seed(1)
    with_letter_case(model, "tiny")
    model.save_pretrained(folder)
    labels, ids = LabelSet(FINE_LABELS), {name: i for i, name in enumerate(FINE_LABELS)}
    tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint("bert"))
    answers = []
    for i, name in enumerate(("ROME", "rome")):
        examples = [Example.of_words(Sentence(("Anna", "saw", name, "Then"), ("O",) * 4))]
        features = encode(examples, tokenizer, ids, 60, every_pretoken=True)
        (tmp_path / str(i)).mkdir()
        found = soft_labels(
            [str(folder)], examples, features, labels, temperature=1.0, folder=tmp_path / str(i), note=lambda _: None
        )
        answers.append(found.of(0).copy())
    assert np.abs(answers[0] - answers[1]).max() > 0.01
