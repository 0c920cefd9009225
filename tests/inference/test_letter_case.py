"""Letter case as an input of uncased networks: by word, for every script, and independent of other texts."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from nerd_export.config import VerifyLimits
from nerd_export.conversion.export import ExportRequest, export_bundle
from nerd_export.models.networks import segment_batches
from nerd_export.models.onnx_export import export_onnx, load_checkpoint
from nerd_onnx.errors import ModelError
from nerd_onnx.inference.bundle import Bundle
from nerd_onnx.inference.encoding import EncodedBatch, TextEncoder
from nerd_onnx.inference.letter_case import MIXED, NO_CAPITAL, TITLE, UPPER, letter_case
from nerd_onnx.inference.tokenizer_input import read
from nerd_onnx.tagger import Entity, Tagger
from tests.support.failures import fails
from tests.support.make_models import make_cased_checkpoint
from tests.support.marks import slow_but
from tests.support.models import sample_texts, train_tokenizer
from tests.support.profiles import example_count

_WIDE = VerifyLimits(min_entity_agreement=0.5, max_labels_changed=0.2, max_f1_drop=1)


@pytest.fixture(scope="module")
def tokenizer_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer(folder, "bert")
    return folder / "tokenizer.json"


@pytest.fixture(scope="module")
def cased(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_cased_checkpoint(tmp_path_factory.mktemp("cased") / "checkpoint", "bert")


@pytest.fixture(scope="module")
def cased_bundle(committed: Callable[[str], Path]) -> Path:
    return committed("cased")


@pytest.mark.parametrize(
    ("word", "case"),
    [
        ("apple", NO_CAPITAL),
        ("1984", NO_CAPITAL),
        (",", NO_CAPITAL),
        ("東", NO_CAPITAL),
        ("שלום", NO_CAPITAL),
        ("straße", NO_CAPITAL),
        ("Apple", TITLE),
        ("I", TITLE),
        ("Élan", TITLE),
        ("E\u0301lan", TITLE),
        ("Ода", TITLE),
        ("B2", TITLE),
        ("NATO", UPPER),
        ("ΟΔΟΣ", UPPER),
        ("3D", UPPER),
        ("iPhone", MIXED),
        ("McDonald", MIXED),
        ("O'Brien", MIXED),
        (" Anna", TITLE),
        ('"Time"', TITLE),
        ("(NATO)", UPPER),
        ("\u01c5", MIXED),  # one letter, capital and small at once
        ("", NO_CAPITAL),
    ],
)
def test_case_of_a_word(word: str, case: int) -> None:
    assert letter_case(word) == case


_TEXTS = st.lists(st.text(st.sampled_from("abcAB É\u0301ßİ東ж Ж1.,-'\n\u200b🙂\ud800ﬁŉ&amp;"), max_size=30), max_size=5)


@given(_TEXTS)
@settings(max_examples=example_count(300), deadline=None)
def test_every_token_has_the_case_of_its_word(tokenizer_file: Path, texts: list[str]) -> None:
    encoder = TextEncoder(tokenizer_file, letter_case=True)
    encoded = encoder.encode(texts)
    assert encoded.types is not None
    oracle = Tokenizer.from_file(str(tokenizer_file))
    oracle.no_truncation()
    oracle.no_padding()
    expected = []
    for text in texts:
        plain = read(text, encoder.as_symbol).text
        found = oracle.encode(plain, add_special_tokens=False)
        for word in found.word_ids:
            start, end = found.word_to_chars(word)
            expected.append(letter_case(plain[start:end]))
    assert encoded.types.tolist() == expected


def test_without_letter_case_there_are_no_types(tokenizer_file: Path) -> None:
    encoder = TextEncoder(tokenizer_file)
    encoded = encoder.encode(["Anna Bell"])
    assert encoded.types is None
    assert encoder.batch(encoded, np.array([0]), 2).types is None


def test_a_batch_has_types_zero_around_the_text(tokenizer_file: Path) -> None:
    encoder = TextEncoder(tokenizer_file, letter_case=True)
    encoded = encoder.encode(["Anna BELL went", "the AI saw Bob"])
    count = int(encoded.text_tokens[1])
    batch = encoder.batch(encoded, np.array([0]), count)
    assert batch.types is not None
    assert batch.types[0].tolist() == [0, *encoded.types[:count].tolist(), 0]  # type: ignore[index]
    assert set(batch.types[0].tolist()) == {NO_CAPITAL, TITLE, UPPER}
    assert batch.inputs()["token_type_ids"] is batch.types
    assert not EncodedBatch(batch.ids).inputs()["token_type_ids"].any()


@pytest.mark.slow
@pytest.mark.parametrize("family", slow_but(["bert"], ["bert", "electra", "albert"]))
def test_the_fp32_bundle_says_what_transformers_says(family: str, tmp_path: Path) -> None:
    import torch
    import transformers

    folder = make_cased_checkpoint(tmp_path / "checkpoint", family)
    request = ExportRequest(
        str(folder), tmp_path / "bundle", quantize="none", level="fine", segment_tokens=48, limits=_WIDE
    )
    export_bundle(request, lambda _: None)
    description = json.loads((tmp_path / "bundle" / "nerd.json").read_text("utf-8"))
    assert description["letter_case"] is True
    assert description["inputs"] == ["input_ids", "attention_mask", "token_type_ids"]
    model = transformers.AutoModelForTokenClassification.from_pretrained(folder).eval()
    assert model.config.type_vocab_size == 4
    network = Tagger.load(tmp_path / "bundle").network
    batches = segment_batches(Bundle.load(tmp_path / "bundle"), [*sample_texts()[:30], "McDonald's iPhone"])
    assert {int(value) for batch in batches for value in np.unique(batch.inputs()["token_type_ids"])} == {0, 1, 2, 3}
    for batch in batches:
        tensors = {name: torch.from_numpy(np.ascontiguousarray(values)) for name, values in batch.inputs().items()}
        with torch.inference_mode():
            original = model(**tensors).logits.numpy()
        np.testing.assert_allclose(network.logits(batch), original, atol=1e-4)
        if batch.inputs()["token_type_ids"].any():
            assert np.abs(network.logits(EncodedBatch(batch.ids)) - original).max() > 1e-2


def places(found: list[list[Entity] | None]) -> list[list[tuple[int, int, str, float]]]:
    return [[(e.start, e.end, e.label, e.score) for e in entities or []] for entities in found]


def test_case_decides_and_neighbours_do_not(cased_bundle: Path, tiny_bundle: Path) -> None:
    texts = sample_texts()[:60]
    mixed = [form for text in texts for form in (text, text.lower(), text.upper())]
    seeing, blind = Tagger.load(cased_bundle, min_score=0), Tagger.load(tiny_bundle, min_score=0)
    together = seeing.tag(mixed)
    assert [seeing.tag([text])[0] for text in mixed] == together
    ascii_texts = [text for text in texts if text.isascii()]
    lowered = [text.lower() for text in ascii_texts]
    assert places(seeing.tag(ascii_texts)) != places(seeing.tag(lowered))
    assert places(blind.tag(ascii_texts)) == places(blind.tag(lowered))


@pytest.mark.slow
def test_a_plain_folder_of_such_a_checkpoint_sees_case_too(cased: Path, tmp_path: Path) -> None:
    export_onnx(load_checkpoint(str(cased)), tmp_path / "plain")
    plain = Tagger.load(tmp_path / "plain")
    assert plain.bundle.letter_case
    text = "Anna Bell saw NATO in Rome"
    first, second = (segment_batches(plain.bundle, [form])[0] for form in (text, text.lower()))
    assert first.ids.tolist() == second.ids.tolist()
    assert not np.array_equal(plain.network.logits(first), plain.network.logits(second))


def test_a_graph_without_the_input_is_refused(checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    folder = tmp_path / "plain"
    export_onnx(load_checkpoint(str(checkpoint("distilbert"))), folder)
    config = json.loads((folder / "config.json").read_text("utf-8"))
    (folder / "config.json").write_text(json.dumps({**config, "letter_case": True}))
    with fails(ModelError, "no-letter-case-input"):
        Tagger.load(folder)


def test_an_architecture_whose_export_lacks_the_input_says_so(checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    folder = shutil.copytree(checkpoint("distilbert"), tmp_path / "claims")
    config = json.loads((folder / "config.json").read_text("utf-8"))
    (folder / "config.json").write_text(json.dumps({**config, "letter_case": True}))
    with fails(ModelError, "no-token-types"):
        export_bundle(ExportRequest(str(folder), tmp_path / "bundle", level="fine"), lambda _: None)
    assert not (tmp_path / "bundle").exists()


def test_without_its_flag_a_bundle_is_another_model(cased_bundle: Path, tmp_path: Path) -> None:
    """Letter case is in the fingerprint of a job, so that no run is resumed with another one."""
    from nerd_onnx.tagging.job import TagJob
    from nerd_onnx.tagging.plan import Plan

    folder = shutil.copytree(cased_bundle, tmp_path / "copy")
    description = json.loads((folder / "nerd.json").read_text("utf-8"))
    (folder / "nerd.json").write_text(json.dumps({**description, "letter_case": False}))
    job = TagJob(["in.jsonl"], "out.jsonl")
    taggers = [Tagger.load(place) for place in (cased_bundle, folder)]
    for facts, named in (
        ([Plan.of(tagger, job).facts for tagger in taggers], "letter case"),
        ([tagger.schema_metadata() for tagger in taggers], "nerd_onnx.entities.letter_case"),  # of finished outputs
    ):
        assert {key for key in facts[0] if facts[0][key] != facts[1][key]} == {named}
