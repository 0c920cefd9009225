"""One text, one answer: entities and scores do not depend on anything but text, model and options."""

from __future__ import annotations

import inspect
import json
import os
import pickle
import random
import re
import shutil
import signal
import subprocess
import sys
import warnings
import weakref
from collections.abc import Iterator
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nerd_onnx
from nerd_onnx import Entity, Tagger, TagOptions
from nerd_onnx.errors import InputError, ModelError, OptionError, OutputError
from nerd_onnx.inference.arrays import Floats
from nerd_onnx.inference.bundle import DEFAULT_FOLDER, Bundle
from nerd_onnx.inference.encoding import EncodedBatch
from nerd_onnx.tagger import open_network
from tests.support import profiles
from tests.support.failures import fails
from tests.support.models import sample_texts
from tests.support.profiles import example_count

SCRIPTS = st.sampled_from(
    [
        "Paris",
        "Angela Merkel",
        "NATO",
        "é",
        "e\u0301",
        "\u200b",
        "\u202e",
        "東京",
        "שלום",
        "🙂",
        "👩‍👩‍👧",
        "\r\n",
        "\n\n",
        "\t",
        "\x00",
        ".",
        "the",
        " ",
    ]
)
TEXTS = st.lists(st.one_of(st.none(), st.text(max_size=30), st.lists(SCRIPTS, max_size=60).map(" ".join)), max_size=8)


@pytest.fixture(scope="module", params=["tiny", "default"])
def model(request: pytest.FixtureRequest, tiny_bundle: Path) -> Path:
    return tiny_bundle if request.param == "tiny" else DEFAULT_FOLDER


@pytest.fixture(scope="module")
def tagger(model: Path) -> Iterator[Tagger]:
    tagger = Tagger.load(model, threads=2)
    yield tagger
    tagger.close()


@pytest.fixture(scope="module")
def odd_tagger(model: Path) -> Iterator[Tagger]:
    """The same model with other threads and batches."""
    tagger = Tagger.load(model, threads=3, batch_tokens=37)
    yield tagger
    tagger.close()


@given(texts=TEXTS)
@settings(max_examples=example_count(60), deadline=None)
def test_offsets_are_slices_whatever_the_script(tagger: Tagger, texts: list[str | None]) -> None:
    for text, entities in zip(texts, tagger.tag(texts), strict=True):
        assert (entities is None) == (text is None)
        last = 0
        for entity in entities or []:
            assert last <= entity.start < entity.end <= len(text or "")
            assert (text or "")[entity.start : entity.end] == entity.text
            assert 0 <= entity.score <= 1
            last = entity.end


@given(texts=TEXTS, seed=st.integers(0, 1000))
@settings(max_examples=example_count(40), deadline=None)
def test_same_entities_alone_shuffled_and_in_other_batches(
    tagger: Tagger, odd_tagger: Tagger, texts: list[str | None], seed: int
) -> None:
    expected = [tagger.tag([text])[0] for text in texts]
    shuffled = list(range(len(texts)))
    random.Random(seed).shuffle(shuffled)
    fillers = sample_texts()[:5]
    for other in (tagger, odd_tagger):
        found = other.tag([*fillers, *(texts[i] for i in shuffled)])[len(fillers) :]
        assert [found[shuffled.index(i)] for i in range(len(texts))] == expected


@pytest.mark.examples
def test_real_texts_get_equal_bits_however_they_are_batched(tagger: Tagger, odd_tagger: Tagger) -> None:
    texts = sample_texts()[:: 1 if profiles.name() == "ci" else 2]
    together = tagger.tag(texts)
    assert sum(map(len, filter(None, together))) > 50
    assert odd_tagger.tag(texts) == together
    assert odd_tagger.tag(texts[::-1])[::-1] == together
    assert [tagger.tag([text])[0] for text in texts[:40]] == together[:40]
    streamed = [entities for part in tagger.tag_stream([texts[:50], [], texts[50:]]) for entities in [part.spans]]

    assert sum(map(len, streamed)) == sum(map(len, filter(None, together)))


def test_a_long_text_is_not_cut(tagger: Tagger) -> None:
    text = " ".join(sample_texts()[:60]) * 2
    entities = tagger.tag([text])[0] or []
    assert max(entity.end for entity in entities) > 0.9 * len(text)


def test_repeated_paragraphs_get_repeated_entities(tagger: Tagger) -> None:
    paragraph = sample_texts()[2]
    alone = tagger.tag([paragraph])[0] or []
    triple = tagger.tag(["\n\n".join([paragraph] * 3)])[0] or []
    step = len(paragraph) + 2
    assert [(e.start, e.end, e.label, e.score) for e in triple] == [
        (e.start + k * step, e.end + k * step, e.label, e.score) for k in range(3) for e in alone
    ]


def test_repeated_texts_run_through_the_network_once(model: Path) -> None:
    bundle = Bundle.load(model)
    calls: list[int] = []

    class Counted:
        def __init__(self) -> None:
            self.network = open_network(bundle)

        def logits(self, batch: EncodedBatch) -> Floats:
            calls.append(batch.ids.size)
            return self.network.logits(batch)

    tagger = Tagger(bundle, TagOptions(threads=1), network=Counted())
    first, second = sample_texts()[:2]
    alone = [tagger.tag([text])[0] for text in (first, second)]
    once = tagger.tag_arrays([first, second]).tokens
    calls.clear()
    tagger.tag([first, second])
    cost = sum(calls)
    calls.clear()
    texts = [second, first, None, "", first, f"{first}\n\n{second}", first]
    tagged = tagger.tag(texts)

    assert sum(calls) == cost
    assert [tagged[i] for i in (0, 1, 4, 6)] == [alone[1], alone[0], alone[0], alone[0]]
    assert tagged[2:4] == [None, []]
    joined = tagged[5]

    assert joined is not None
    assert len(joined) == len(alone[0] or []) + len(alone[1] or [])
    assert all(texts[5][entity.start : entity.end] == entity.text for entity in joined)  # type: ignore[index]
    assert tagger.tag_arrays(texts).tokens == 2 * once + 2 * tagger.tag_arrays([first]).tokens
    tagger.close()


def test_accents_stay_with_their_letter(tagger: Tagger) -> None:
    text = " ".join(["Jose\u0301 Gonza\u0301lez visits Andre\u0301 in Paris."] * 6)
    entities = tagger.tag([text])[0] or []
    if tagger.bundle.folder is None:  # the default model knows names; the tiny one guesses
        assert sum(entity.text.endswith("\u0301") for entity in entities) >= 6
    for entity in entities:
        assert entity.end == len(text) or text[entity.end] != "\u0301"


def test_a_tagger_and_its_entities_are_readable(tagger: Tagger) -> None:
    assert repr(tagger) == f"Tagger({tagger.bundle.name}, per-token int8, {tagger.kernel})"
    entity = Entity(0, 5, "location", None, 0.5, "Paris")
    assert Entity(**json.loads(json.dumps(entity.to_dict()))) == entity


def test_labels_in_any_case_and_by_short_names(tiny_bundle: Path) -> None:
    usual = Tagger.load(tiny_bundle, labels=["person", "location-GPE"], min_score=0)
    short = Tagger.load(tiny_bundle, labels="PER,gpe,Person", min_score=0)
    assert short.options.labels == ("person", "location-GPE")
    assert short.tag(sample_texts()[:5]) == usual.tag(sample_texts()[:5])
    assert Tagger.load(tiny_bundle, labels="PERSON-ACTOR").options.labels == ("person-actor",)
    with fails(OptionError, "unknown-label", found="Persn") as caught:
        Tagger.load(tiny_bundle, labels="Persn")
    assert "person" in str(caught.value)


@pytest.mark.parametrize("of", [pa.array, lambda texts: pa.chunked_array([texts]), pd.Series, pl.Series])
def test_a_column_of_another_library_is_refused_with_advice(tagger: Tagger, of: Any) -> None:
    column = of(["Paris"])
    library = type(column).__module__.split(".")[0]
    advice = "to_pylist" if library == "pyarrow" else f"nerd_onnx.integrations.{library}.entities"
    with pytest.raises(TypeError, match=re.escape(advice)):
        tagger.tag(column)


def test_empty_and_null_texts(tagger: Tagger) -> None:
    assert tagger.tag(["", None, " \n", "\u200b"]) == [[], None, [], []]
    assert tagger.tag([]) == []


def test_one_string_is_refused(tagger: Tagger) -> None:
    with pytest.raises(TypeError, match="list of one"):
        tagger.tag("Paris")


@pytest.mark.parametrize(
    "option", [{"offset_unit": "bytes"}, {"min_score": 5}, {"min_score": "0.5"}, {"threads": 0}, {"batch_tokens": 0}]
)
def test_invalid_options_are_refused_at_once(option: dict[str, object]) -> None:
    with fails(OptionError, "bad-value", option=next(iter(option))):
        TagOptions(**option)  # type: ignore[arg-type]


def test_what_is_no_text_is_named(tagger: Tagger) -> None:
    with pytest.raises(TypeError, match="text 1 is nan"):
        tagger.tag(["Paris", float("nan")])  # type: ignore[list-item]
    with pytest.raises(TypeError, match="to_batches"):
        tagger.tag_batch(pa.table({"text": ["Paris"]}))
    assert list(tagger.tag(text for text in ["Paris"])) == tagger.tag(["Paris"])


def test_min_score_and_labels_only_leave_out(model: Path, tagger: Tagger) -> None:
    texts = sample_texts()[:30]
    everything = tagger.tag(texts)
    high = Tagger.load(model, min_score=0.5).tag(texts)

    assert high == [[e for e in row or [] if e.score >= np.float32(0.5)] for row in everything]
    label = next(e.label for row in everything for e in row or [])

    assert Tagger.load(model, labels=(label,)).tag(texts) == [
        [e for e in row or [] if e.label == label] for row in everything
    ]
    fine = next(e.fine_label for row in everything for e in row or [])

    assert fine is not None
    assert Tagger.load(model, labels=(fine,)).tag(texts) == [
        [e for e in row or [] if e.fine_label == fine] for row in everything
    ]


def test_unknown_label_is_refused_and_the_known_are_named(model: Path) -> None:
    with fails(OptionError, "unknown-label", found="nobody"):
        Tagger.load(model, labels=("nobody",))


def test_fine_label_follows_its_coarse_one(tagger: Tagger) -> None:
    entities = [e for row in tagger.tag(sample_texts()) for e in row or []]
    assert all((e.fine_label or "").split("-")[0] == e.label for e in entities)


def test_a_tagger_travels_by_its_options(tagger: Tagger) -> None:
    texts = sample_texts()[:5]
    assert pickle.loads(pickle.dumps(tagger)).tag(texts) == tagger.tag(texts)  # noqa: S301 - our own bytes


def test_a_folder_called_default_is_not_the_default_model(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(tiny_bundle, tmp_path / "default")
    monkeypatch.chdir(tmp_path)
    packed = pickle.dumps(Tagger.load("default"))
    monkeypatch.chdir("/")
    assert pickle.loads(packed).bundle.model_sha256 == Tagger.load(tiny_bundle).bundle.model_sha256  # noqa: S301


def test_a_used_tagger_works_after_a_fork(tagger: Tagger) -> None:
    expected = len(tagger.tag(sample_texts()[:2])[0] or [])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that is what is tried here
        child = os.fork()
    if child == 0:
        signal.alarm(20)
        os._exit(0 if len(tagger.tag(sample_texts()[:2])[0] or []) == expected else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_texts_that_change_each_other_go_alone(tiny_bundle: Path) -> None:
    class Mixing:
        """Scores that depend on the whole batch, as onnxruntime's dynamic quantization makes them."""

        mixes_texts = True

        def logits(self, batch: EncodedBatch) -> Floats:
            ids = batch.ids
            return np.repeat((ids % 5 == np.arange(5)[:, None, None]).transpose(1, 2, 0), 1, 0) * np.float32(ids.max())

    mixing = Tagger(Bundle.load(tiny_bundle), network=Mixing())
    texts = sample_texts()[:30]
    together = mixing.tag(texts)
    assert [mixing.tag([text])[0] for text in texts] == together


@pytest.mark.parametrize(
    "kind", [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string())]
)
def test_record_batches_keep_their_columns(tagger: Tagger, kind: pa.DataType) -> None:
    texts = [*sample_texts()[:6], None, ""]
    column = (
        pa.array(texts).cast(kind)
        if kind != pa.dictionary(pa.int8(), pa.string())
        else pa.array(texts).dictionary_encode().cast(kind)
    )
    batch = pa.RecordBatch.from_arrays([pa.array(range(8)), column], names=["id", "text"])
    tagged = tagger.tag_batch(batch)

    assert tagged.select(["id", "text"]).equals(batch)
    rows = tagged.column("entities").to_pylist()

    assert rows[6] is None
    assert rows[7] == []
    expected = tagger.tag(texts)[:6]

    assert [[Entity(**e) for e in row] for row in rows[:6]] == expected
    metadata = tagged.schema.metadata

    assert metadata[b"nerd_onnx.entities.offset_unit"] == b"codepoint"
    with fails(OutputError, "column-exists", column="entities"):
        tagger.tag_batch(tagged)

    assert tagger.tag_batch(tagged, replace_column=True).equals(tagged)
    with fails(InputError, "column-missing", column="text", found="id"):
        tagger.tag_batch(batch.select(["id"]))


def test_given_words_are_tagged_by_word_numbers(tagger: Tagger) -> None:
    sentences = [text.split() for text in sample_texts()[:40]] + [[], ["\u200b"]]
    spans = tagger.tag_words(sentences)
    assert len(spans) > 20
    for row, start, end in zip(spans.row, spans.start, spans.end, strict=True):
        assert 0 <= start < end <= len(sentences[row])


def test_load_has_the_options_as_keywords_with_their_defaults() -> None:
    parameters = inspect.signature(Tagger.load).parameters
    keywords = {name: p.default for name, p in parameters.items() if p.kind is inspect.Parameter.KEYWORD_ONLY}
    assert keywords == {field.name: field.default for field in fields(TagOptions)}
    assert list(parameters) == ["model", *keywords]
    assert all(f":param {name}:" in (Tagger.load.__doc__ or "") for name in parameters)


def test_load_passes_each_option_on(tiny_bundle: Path) -> None:
    wanted: dict[str, Any] = {
        "batch_tokens": 7,
        "threads": 3,
        "min_score": 0.25,
        "precision": None,
        "labels": None,
        "offset_unit": "utf16",
        "text_column": "body",
        "column": "names",
        "kernel": "onnxruntime",
        "join": "scheme",
    }
    assert asdict(Tagger.load(tiny_bundle, **wanted).options) == wanted
    label, *_ = Tagger.load(tiny_bundle).labels.types
    for labels in (label, f" {label} ", [label], (label,)):
        assert Tagger.load(tiny_bundle, labels=labels).options.labels == (label,)
    with pytest.raises(TypeError, match="treads"):
        Tagger.load(tiny_bundle, treads=1)  # type: ignore[call-arg]


def test_the_package_lists_its_public_names_before_they_are_imported() -> None:
    code = (
        "import sys, nerd_onnx; print('nerd_onnx.tagger' in sys.modules, dir(nerd_onnx) == sorted(nerd_onnx.__all__))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["False", "True"]
    assert all(hasattr(nerd_onnx, name) for name in dir(nerd_onnx))
    assert {"Entity", "NerdError", "TagOptions", "Tagger"} <= set(dir(nerd_onnx))


def test_a_stream_yields_each_item_with_its_own_entities(tagger: Tagger) -> None:
    texts: list[str | None] = [*sample_texts()[:12]]
    items: list[tuple[str, list[str | None]]] = [("a", texts[:5]), ("b", []), ("c", [None, *texts[5:]]), ("d", texts)]
    found = [(key, tagged.entities(tagger.labels)) for key, tagged in tagger.tag_items(items)]
    assert found == [(key, tagger.tag(part)) for key, part in items]


def test_a_stream_reads_one_item_ahead_and_keeps_no_finished_one(tagger: Tagger) -> None:
    class Rows:
        """An item that can be watched by a weak reference."""

    alive: list[weakref.ref[Rows]] = []

    def items() -> Iterator[tuple[Rows, list[str | None]]]:
        for text in sample_texts()[:6]:
            rows = Rows()
            alive.append(weakref.ref(rows))
            yield rows, [text]
            del rows

    for seen, _ in enumerate((tagged for _, tagged in tagger.tag_items(items())), 1):
        assert len(alive) <= seen + 1
        assert sum(item() is not None for item in alive) <= 2  # the one read ahead, and the one just yielded


def test_a_missing_model_is_a_model_error() -> None:
    with fails(ModelError, "missing-model"):
        Tagger.load("./nothing-here")
