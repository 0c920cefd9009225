"""The native encoder as the network of a bundle: recognized, chosen, and refused with a reason."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pyarrow.parquet as pq
import pytest

from nerd_export.conversion.native_section import agrees, native_section
from nerd_export.graph.native import native_layout
from nerd_export.models.networks import segment_batches
from nerd_onnx.errors import ModelError, NerdError, OptionError
from nerd_onnx.inference import kernels
from nerd_onnx.inference.bundle import DEFAULT_FOLDER, Bundle
from nerd_onnx.inference.description import Description
from nerd_onnx.inference.encoding import EncodedBatch
from nerd_onnx.inference.kernels import Kernel
from nerd_onnx.inference.native_layout import NativeLayout, read_weights, roles
from nerd_onnx.inference.native_network import NativeNetwork
from nerd_onnx.inference.session import Session
from nerd_onnx.native.library import Library
from nerd_onnx.tagger import Tagger
from tests.conftest import SHARED
from tests.support.models import SAMPLE

# Of the logits of the default model on random ids: 3 segments of 1, 2, 15, 16, 17 and 64 tokens.
DEFAULT_MODEL = "3340ece21f9778b77cc47f626f85d67522642ba9132cdbc454653c4d719a1818"
CORPUS = SHARED / "corpora" / "wikipedia_sentences.parquet"
TEXTS = [json.loads(line)["text"] for line in SAMPLE.read_text("utf-8").splitlines()]


@pytest.fixture
def installed(library: Library, monkeypatch: pytest.MonkeyPatch) -> Library:
    """Let the runtime use the library that the tests compiled."""
    monkeypatch.setattr(kernels, "installed", lambda: library)
    return library


def test_the_section_of_the_default_model_is_what_its_graph_says() -> None:
    described = Description.read(DEFAULT_FOLDER).native
    assert described is not None
    assert described == native_layout(ir.load(DEFAULT_FOLDER / "model.onnx").graph)


def test_the_default_model_has_the_committed_bits_with_every_instruction_set(library: Library) -> None:
    layout = Description.read(DEFAULT_FOLDER).native
    assert layout is not None
    for path in library.paths:
        network = NativeNetwork(DEFAULT_FOLDER / "model.onnx", layout, library, path)
        digest = hashlib.sha256()
        for tokens in (1, 2, 15, 16, 17, 64):
            ids = np.arange(3 * tokens).reshape(3, tokens) * 7919 % 30000
            digest.update(network.logits(EncodedBatch(ids, ids % 4)).tobytes())
        assert digest.hexdigest() == DEFAULT_MODEL


@pytest.mark.slow
@pytest.mark.usefixtures("installed")
@pytest.mark.skipif(not CORPUS.is_file(), reason="shared/data is not here")
def test_few_labels_differ_from_those_of_onnxruntime() -> None:
    bundle = Bundle.load()
    batches = segment_batches(bundle, pq.read_table(CORPUS)["text"].to_pylist()[:300])
    native, reference = kernels.open_network(bundle, "native"), Session(bundle.model_file, optimized=bundle.optimized)
    pairs = [(native.logits(batch).argmax(-1), reference.logits(batch).argmax(-1)) for batch in batches]

    tokens = sum(found.size for found, _ in pairs)
    changed = sum(int((found != expected).sum()) for found, expected in pairs)
    assert tokens > 5_000
    assert changed <= 0.003 * tokens  # 0.06% when it was measured


@pytest.mark.usefixtures("installed")
def test_a_tagger_finds_the_same_entities_with_both_native_kernels() -> None:
    found: dict[Kernel, Any] = {}
    kinds: tuple[Kernel, ...] = ("native", "portable")
    for kernel in kinds:
        tagger = Tagger.load(kernel=kernel, threads=2)
        found[kernel] = tagger.tag(TEXTS[:4])
        assert tagger.kernels == "int8, native encoder 1"
        assert tagger.schema_metadata()["nerd_onnx.entities.kernels"] == tagger.kernels
        tagger.close()
    assert found["native"] == found["portable"]
    assert sum(len(entities or ()) for entities in found["native"]) > 3


def test_the_native_kernel_needs_the_library_and_a_section(
    library: Library, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernels, "installed", lambda: None)
    with pytest.raises(OptionError) as caught:
        Tagger.load(kernel="native")
    assert (caught.value.reason, caught.value.fields["option"]) == ("no-native-library", "--kernel")
    assert Tagger.load().kernel == "onnxruntime"

    monkeypatch.setattr(kernels, "installed", lambda: library)
    with pytest.raises(OptionError) as caught:
        Tagger.load(tiny_bundle, kernel="portable")
    assert caught.value.reason == "no-native-model"

    with pytest.raises(OptionError) as caught:
        Tagger.load(kernel="fast")  # type: ignore[arg-type]
    assert (caught.value.reason, caught.value.fields["found"]) == ("bad-value", "fast")


def test_what_the_section_names_is_checked(tmp_path: Path) -> None:
    graph = DEFAULT_FOLDER / "model.onnx"
    layout = Description.read(DEFAULT_FOLDER).native
    assert layout is not None
    shape, weights = read_weights(layout, graph)
    assert (shape.layers, shape.hidden, shape.intermediate, shape.labels) == (6, 384, 1536, 67)
    assert len(weights) == len(roles(6))

    for role, name in (
        ("layer.3.up.weight", "nowhere"),
        ("layer.3.up.weight", layout.tensors["layer.3.down.weight"]),
        ("positions", layout.tensors["words.scale"]),
        ("layer.0.output.scale", None),
        ("embeddings.gain", layout.tensors["words.weight"]),
    ):
        with pytest.raises(ModelError) as caught:
            read_weights(_with_tensor(layout, role, name), graph)
        assert caught.value.reason == "other-weights"

    (tmp_path / "model.onnx").write_bytes(graph.read_bytes()[:100_000])
    with pytest.raises(ModelError) as caught:
        read_weights(layout, tmp_path / "model.onnx")
    assert caught.value.reason == "cannot-load"


@pytest.mark.parametrize(
    "change",
    [
        lambda section: section.pop("heads"),
        lambda section: section["tensors"].pop("types"),
        lambda section: section["symmetric"].update(zero_point=-1),
        lambda section: section.update(tensors=[]),
        lambda section: section.update(epsilon="small"),
    ],
)
def test_a_malformed_section_is_an_error(tmp_path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    folder = shutil.copytree(DEFAULT_FOLDER, tmp_path / "bundle")
    content = json.loads((folder / "nerd.json").read_text("utf-8"))
    change(content["native"])
    (folder / "nerd.json").write_text(json.dumps(content), "utf-8")
    with pytest.raises(NerdError) as caught:
        Bundle.load(folder)
    assert caught.value.reason == "bad-description"


def test_other_graphs_are_not_recognized(tiny_bundle: Path, committed: Callable[[str], Path]) -> None:
    # Heads of another width, and fp32.
    assert native_layout(ir.load(tiny_bundle / "model.onnx").graph) is None
    assert native_layout(ir.load(next(committed("plain").rglob("*.onnx"))).graph) is None


@pytest.mark.parametrize("op_type", ["Gelu", "Softmax", "LayerNormalization", "MatMulIntegerToFloat", "Max", "Cast"])
def test_a_graph_with_one_node_changed_is_not_recognized(op_type: str) -> None:
    graph = ir.load(DEFAULT_FOLDER / "model.onnx").graph
    node = [node for node in graph if node.op_type == op_type][-1]
    node.op_type = "Other"
    assert native_layout(graph) is None


def test_a_section_is_written_only_for_a_network_that_computes_the_same(library: Library) -> None:
    bundle = Bundle.load()
    batches = segment_batches(bundle, TEXTS[:3])
    assert bundle.description is not None
    assert native_section(bundle, batches, library) == bundle.description.native

    layout = bundle.description.native
    assert layout is not None
    names = layout.tensors
    swapped = _with_tensor(layout, "layer.1.query.weight", names["layer.2.query.weight"])
    wrong = NativeNetwork(bundle.model_file, swapped, library)
    assert not agrees(wrong, Session(bundle.model_file, optimized=True), batches)
    assert not agrees(wrong, wrong, [])


def _with_tensor(layout: NativeLayout, role: str, name: str | None) -> NativeLayout:
    return replace(layout, tensors={**layout.tensors, role: name})
