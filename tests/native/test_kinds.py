"""The kinds of encoders that the native encoder computes, each exported to int8: recognized, and computed right."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from nerd_export.conversion.export import ExportRequest, export_bundle
from nerd_export.conversion.native_section import agrees, native_section
from nerd_export.graph.native import native_layout
from nerd_export.graph.nodes import constant
from nerd_export.models.networks import TorchNetwork, segment_batches
from nerd_export.models.onnx_export import load_checkpoint
from nerd_onnx.errors import ModelError, NerdError
from nerd_onnx.inference import kernels
from nerd_onnx.inference.arrays import Floats
from nerd_onnx.inference.bundle import Bundle
from nerd_onnx.inference.description import Description
from nerd_onnx.inference.encoding import EncodedBatch
from nerd_onnx.inference.json_object import JsonObject
from nerd_onnx.inference.native_layout import NativeLayout, read_weights
from nerd_onnx.inference.native_network import NativeNetwork
from nerd_onnx.inference.session import Network, Session
from nerd_onnx.native.library import Library
from nerd_onnx.tagger import Tagger
from tests.support.bundles import TEXTS, WIDE, silent
from tests.support.make_models import make_cased_checkpoint
from tests.support.marks import slow_but
from tests.support.models import FINE_LABELS, make_checkpoint
from tests.support.shared import made_once

# Sizes that the native encoder takes: the usual tiny ones have heads of 12.
_SIZES = {"hidden_size": 64, "num_attention_heads": 4, "intermediate_size": 128}
_OWN = {
    "distilbert": {"hidden_size": 64, "dim": 64, "n_heads": 4, "hidden_dim": 128},
    "electra": {**_SIZES, "embedding_size": 32},
    "cased-electra": {**_SIZES, "embedding_size": 32},
}
KINDS = ("bert", "distilbert", "roberta", "xlm-roberta", "electra", "cased-electra", "mpnet")
_SHIFTED = ("roberta", "xlm-roberta", "mpnet")
# No number that these compute reaches a logit: shapes, and the values of constants.
_SHAPES = frozenset({"Shape", "ConstantOfShape"})
_SHAPE_INPUTS = {"Reshape": 1, "Expand": 1, "Slice": 1}  # from this input on, a node reads shapes


@dataclass(frozen=True)
class Exported:
    """A tiny int8 bundle of a kind of encoder, its original, and what the exporter says of its graph."""

    kind: str
    bundle: Bundle
    checkpoint: Path
    layout: NativeLayout

    def native(self, library: Library, path: str = "") -> NativeNetwork:
        """Open it in the native encoder."""
        return NativeNetwork(self.bundle.model_file, self.layout, library, path)

    def reference(self) -> Session:
        """Open it in onnxruntime."""
        return Session(self.bundle.model_file, optimized=self.bundle.optimized)

    def batches(self) -> list[EncodedBatch]:
        """Cut real texts into segments."""
        return list(segment_batches(self.bundle, TEXTS[:20]))

    def graph(self) -> ir.Graph:
        """Return a fresh copy of the graph."""
        return ir.load(self.bundle.model_file).graph


@pytest.fixture(scope="module", params=slow_but(["mpnet"], KINDS))
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return _exported(request.param, tmp_path_factory)


@pytest.fixture(scope="module")
def mpnet(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """Return the kind that has most of what is special."""
    return _exported("mpnet", tmp_path_factory)


def _exported(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """Export a tiny model of a kind, once per session."""

    def write(folder: Path) -> None:
        folder.mkdir()
        checkpoint, sizes = folder / "checkpoint", _OWN.get(kind, _SIZES)
        if kind.startswith("cased-"):
            make_cased_checkpoint(checkpoint, kind.removeprefix("cased-"), sizes)
        else:
            make_checkpoint(checkpoint, kind, FINE_LABELS, sizes=sizes)
        request = ExportRequest(str(checkpoint), folder / "bundle", level="fine", texts=TEXTS[:20], limits=WIDE)
        export_bundle(request, silent)

    folder = made_once(tmp_path_factory, f"native-kinds/{kind}", write)
    bundle = Bundle.load(folder / "bundle")
    layout = native_layout(ir.load(bundle.model_file).graph)
    assert layout is not None
    return Exported(kind, bundle, folder / "checkpoint", layout)


def test_the_layout_says_what_is_special(exported: Exported) -> None:
    layout, kind = exported.layout, exported.kind
    assert layout.padding == (1 if kind in _SHIFTED else -1)
    assert ("projection.weight" in layout.tensors) == ("electra" in kind)
    assert (layout.tensors["types"] is None) == (kind in {"distilbert", "mpnet"})
    assert bool(layout.buckets) == (kind == "mpnet")
    assert NativeLayout.from_json(JsonObject("nerd.json", json.loads(json.dumps(layout.to_json())))) == layout


def test_distances_are_those_of_transformers(mpnet: Exported) -> None:
    import torch
    from transformers.models.mpnet.modeling_mpnet import MPNetEncoder

    shape, weights = read_weights(mpnet.layout, mpnet.bundle.model_file)
    found = next(w for w, role in zip(weights, mpnet.layout.roles, strict=True) if role == "relative")
    assert found is not None
    model = load_checkpoint(str(mpnet.checkpoint)).model
    distances = torch.arange(1 - shape.longest, shape.longest)
    rows = MPNetEncoder.relative_position_bucket(distances)
    expected = model.mpnet.encoder.relative_attention_bias.weight[rows].T.detach().numpy()
    assert (found == expected).all()


def test_logits_are_those_of_the_graph(exported: Exported, library: Library) -> None:
    batches, reference = exported.batches(), exported.reference()
    original = TorchNetwork(load_checkpoint(str(exported.checkpoint)).model)
    native, plain, exact = (_logits(network, batches) for network in (exported.native(library), reference, original))

    for path in library.paths:
        some = _logits(exported.native(library, path), batches[:5])
        assert (some == native[: len(some)]).all()
    assert agrees(exported.native(library), reference, batches)
    assert np.abs(native - plain).mean() < 0.002 * plain.std()
    # Labels changed against PyTorch: as many as by the graph, but for near ties.
    changed, by_graph = (int((logits.argmax(-1) != exact.argmax(-1)).sum()) for logits in (native, plain))
    assert len(exact) > 1_000
    assert changed <= by_graph + 0.002 * len(exact)


def test_ids_of_any_kind_and_length_have_the_logits_of_the_graph(exported: Exported, library: Library) -> None:
    reference, native = exported.reference(), exported.native(library)
    rng = np.random.default_rng(3)
    types = 4 if exported.bundle.letter_case else 1
    longest = read_weights(exported.layout, exported.bundle.model_file)[0].longest
    for tokens in (1, 2, 3, 15, 16, 17, 50, longest):
        ids = rng.integers(0, 1000, (3, tokens))
        ids[rng.random(ids.shape) < 0.2] = max(exported.layout.padding, 0)  # a text may have padding's token
        cases = rng.integers(0, types, ids.shape)
        batch = EncodedBatch(ids, cases)
        found, expected = native.logits(batch), reference.logits(batch)
        assert np.abs(found - expected).mean() < 0.01 * expected.std()

        order = rng.permutation(3)
        assert (native.logits(EncodedBatch(ids[order], cases[order])) == found[order]).all()

    with pytest.raises(ModelError) as caught:
        native.logits(EncodedBatch(np.zeros((1, longest + 1), np.int64)))
    assert caught.value.reason == "cannot-run"


def test_a_bundle_with_its_section_runs_in_the_native_encoder(
    exported: Exported, library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernels, "installed", lambda: library)
    section = native_section(exported.bundle, exported.batches(), library)
    assert section == exported.layout
    folder = shutil.copytree(exported.bundle.model_file.parent, tmp_path / "bundle")
    replace(Description.read(folder), native=section).write(folder, frozenset())
    assert Description.read(folder).native == section

    found: dict[str, Any] = {}
    for kernel in ("native", "portable", "onnxruntime"):
        tagger = Tagger.load(folder, kernel=kernel, threads=1)
        found[kernel] = tagger.tag(TEXTS[:10])
        tagger.close()
    assert found["native"] == found["portable"]
    assert sum(map(len, found["native"])) > 3
    # Random weights have near ties, which fall otherwise in some text.
    assert sum(len(one) == len(other) for one, other in zip(found["native"], found["onnxruntime"], strict=True)) >= 8


def test_a_graph_with_any_node_changed_is_not_recognized(exported: Exported) -> None:
    graph = exported.graph()
    nodes = list(_numeric_nodes(graph))
    assert len(nodes) > 100
    for node in nodes:
        before = node.op_type
        node.op_type = "Other"
        assert native_layout(graph) is None, (before, node.name)
        node.op_type = before
    assert native_layout(graph) == exported.layout


def test_a_graph_with_a_constant_or_an_input_changed_is_not_recognized(exported: Exported) -> None:
    for change in _changes(exported.kind):
        graph = exported.graph()
        change(graph)
        assert native_layout(graph) is None, change


def test_other_distances_are_recorded(mpnet: Exported) -> None:
    graph = mpnet.graph()
    _first(graph, "Neg").op_type = "Abs"  # of the distances: the rows of both directions are now the same
    found = native_layout(graph)
    assert found is not None
    rows = dict(found.buckets)
    assert rows[-1] == rows[1] != dict(mpnet.layout.buckets)[1]


@pytest.mark.parametrize(
    "change",
    [
        lambda section: section.update(padding=-1),
        lambda section: section.update(buckets={}),
        lambda section: section.update(buckets={"1e3": 0}),
        lambda section: section.update(buckets={"-129": -1}),
        lambda section: section.update(buckets={"0": 1, "-129": 0}),
        lambda section: section["tensors"].pop("relative"),
        lambda section: section.pop("buckets"),
    ],
)
def test_a_malformed_section_is_an_error(mpnet: Exported, change: Callable[[dict[str, Any]], object]) -> None:
    section = json.loads(json.dumps(mpnet.layout.to_json()))
    change(section)
    with pytest.raises(NerdError) as caught:
        NativeLayout.from_json(JsonObject("nerd.json", section))
    assert caught.value.reason == "bad-description"


def test_a_section_of_another_graph_is_an_error(exported: Exported) -> None:
    layout, graph = exported.layout, exported.bundle.model_file
    changed = [replace(layout, tensors={**layout.tensors, "words.weight": layout.tensors["classifier.bias"]})]
    if layout.buckets:
        changed += [replace(layout, buckets=buckets) for buckets in (((0, 1),), ((-200, 32),))]
    if "projection.weight" in layout.tensors:
        changed += [replace(layout, tensors={**layout.tensors, "projection.weight": layout.tensors["classifier.bias"]})]
    for other in changed:
        with pytest.raises(ModelError) as caught:
            read_weights(other, graph)
        assert caught.value.reason == "other-weights"


def _logits(network: Network, batches: list[EncodedBatch]) -> Floats:
    """Return the logits of all tokens. *Shape:* (tokens, labels)."""
    found = [network.logits(batch) for batch in batches]
    return np.concatenate([logits.reshape(-1, logits.shape[-1]) for logits in found])


def _numeric_nodes(graph: ir.Graph) -> Iterator[ir.Node]:
    """Yield the nodes whose numbers reach the logits, and not only the shapes of what does."""
    pending, seen = [graph.outputs[0].producer()], set()
    while pending:
        node = pending.pop()
        if node is None or node in seen or node.op_type in _SHAPES:
            continue
        seen.add(node)
        yield node
        read = node.inputs[: _SHAPE_INPUTS.get(node.op_type, len(node.inputs))]
        if node.op_type == "Gather" and (table := constant(node.inputs[0])) is not None and len(table) == 1:
            continue  # one row, whatever the index is
        pending += [value.producer() for value in read if value is not None]


def _changes(kind: str) -> list[Callable[[ir.Graph], object]]:
    """List changes of constants, attributes and inputs, after which the graph of a kind computes something else."""

    def ids_are_the_mask(graph: ir.Graph) -> None:
        _reader(graph, "Gather", 1).replace_input_with(1, _input(graph, "attention_mask"))

    def no_mask(graph: ir.Graph) -> None:
        if kind == "distilbert":
            _replace_constant(next(node for node in graph if node.op_type == "Equal"), 1, 1)
        else:
            _replace_constant(_first(graph, "Sub"), 0, 2)

    def counted_before(graph: ir.Graph) -> None:
        _first(graph, "CumSum").attributes["exclusive"] = ir.AttrInt64("exclusive", 1)

    def other_padding(graph: ir.Graph) -> None:
        _replace_constant(_reader(graph, "Equal", 0), 1, 3)

    def distances_of_ids(graph: ir.Graph) -> None:
        _reader(graph, "Gather", 1, table="relative_attention_bias").replace_input_with(1, _input(graph, "input_ids"))

    def distances_from_the_end(graph: ir.Graph) -> None:
        subtraction = next(
            node for node in graph if node.op_type == "Sub" and node.inputs[0].dtype == ir.DataType.INT64
        )
        subtraction.op_type = "Add"

    special = {"mpnet": [distances_of_ids, distances_from_the_end]}.get(kind, [])
    return [ids_are_the_mask, no_mask, *([counted_before, other_padding] if kind in _SHIFTED else []), *special]


def _input(graph: ir.Graph, name: str) -> ir.Value:
    return next(value for value in graph.inputs if value.name == name)


def _first(graph: ir.Graph, op_type: str) -> ir.Node:
    """Return the first node of an operator."""
    return next(node for node in graph if node.op_type == op_type)


def _reader(graph: ir.Graph, op_type: str, place: int, table: str = "") -> ir.Node:
    """Return the first node of an operator that reads the ids, or that looks rows up in a table of that name."""
    return next(
        node
        for node in graph
        if node.op_type == op_type
        and (table in str(node.inputs[0].name) if table else node.inputs[place].name == "input_ids")
    )


def _replace_constant(node: ir.Node, place: int, number: int) -> None:
    old = node.inputs[place]
    assert old is not None
    assert old.const_value is not None
    array = np.full_like(old.const_value.numpy(), number)
    changed = ir.val(f"{old.name}.changed", const_value=ir.tensor(array, name=f"{old.name}.changed"))
    assert node.graph is not None
    node.graph.register_initializer(changed)
    node.replace_input_with(place, changed)
