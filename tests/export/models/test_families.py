"""Every family of encoders, exported and rewritten, compared with PyTorch on batches of texts of unequal length."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest

from nerd_export.graph.centering import centered_norms, channel_means
from nerd_export.graph.linear import linear_layers, quantizable_layers
from nerd_export.graph.nodes import nodes_of
from nerd_export.models.onnx_export import Checkpoint, load_checkpoint
from nerd_export.quantization.layers import (
    quantize_embeddings,
    quantize_products,
    quantize_weights,
)
from nerd_export.quantization.ranges import calibrated_ranges
from tests.support.bundles import prepared, random_batches
from tests.support.marks import slow_but
from tests.support.models import FAMILIES

# Mean logit difference from PyTorch in units of the logits' standard deviation, as measured on these models, with room.
TOLERANCE = {"int8": 0.05, "int8-static": 0.06, "int8-weights": 0.04}


class Exported:
    """The checkpoint of a family, its fp32 graph, and batches of texts of unequal length with PyTorch's logits."""

    def __init__(self, checkpoint: Checkpoint, onnx_file: Path) -> None:
        self.checkpoint, self.onnx_file = checkpoint, onnx_file
        rng = np.random.default_rng(1)
        vocabulary = checkpoint.model.config.vocab_size
        self.ids = rng.integers(5, vocabulary, (6, 60))
        self.mask = (np.arange(60) < np.array([60, 60, 41, 17, 3, 1])[:, None]).astype(np.int64)
        self.expected = self.pytorch(self.ids, self.mask)

    def graph(self) -> ir.Model:
        """Return a fresh copy of the fp32 graph."""
        return prepared(self.onnx_file)

    def pytorch(self, ids: Any, mask: Any) -> Any:
        """Return the logits of the original."""
        import torch

        with torch.inference_mode():
            return self.checkpoint.model(
                input_ids=torch.from_numpy(ids), attention_mask=torch.from_numpy(mask)
            ).logits.numpy()


@pytest.fixture(scope="module", params=slow_but(["bert"], sorted(FAMILIES)))
def exported(
    request: pytest.FixtureRequest, checkpoint: Callable[..., Path], plain_graph: Callable[[str], Path]
) -> Exported:
    return Exported(load_checkpoint(str(checkpoint(request.param))), plain_graph(request.param))


def run(model: ir.Model, folder: Path) -> Callable[[Any, Any], Any]:
    """Check a graph and its shapes with onnx, and return a function that runs it."""
    ir.save(model, folder / "m.onnx")
    onnx.checker.check_model(str(folder / "m.onnx"), full_check=True)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    session = ort.InferenceSession(str(folder / "m.onnx"), options, providers=["CPUExecutionProvider"])
    assert [node.name for node in session.get_inputs()] == ["input_ids", "attention_mask"]
    return lambda ids, mask: session.run(None, {"input_ids": ids, "attention_mask": mask})[0]


def error(found: Any, exported: Exported) -> float:
    """Mean difference over real tokens, in standard deviations."""
    real = exported.mask.astype(bool)
    return float(np.abs(found - exported.expected)[real].mean() / exported.expected[real].std())


def test_the_fp32_graph_computes_what_pytorch_does(exported: Exported, tmp_path: Path) -> None:
    network = run(exported.graph(), tmp_path)
    found = network(exported.ids, exported.mask)
    real = exported.mask.astype(bool)
    np.testing.assert_allclose(found[real], exported.expected[real], atol=2e-4)
    rng = np.random.default_rng(2)
    for shape in ((1, 1), (2, 2), (1, 129)):  # as the runtime batches them; the longest has every position
        ids, mask = rng.integers(5, 500, shape), np.ones(shape, dtype=np.int64)
        np.testing.assert_allclose(network(ids, mask), exported.pytorch(ids, mask), atol=2e-4)


def test_centered_activations_compute_the_same(exported: Exported, tmp_path: Path) -> None:
    model = prepared(exported.onnx_file, means=channel_means(exported.graph(), random_batches(2), tmp_path))
    norms, moved = nodes_of(model.graph, "LayerNormalization"), centered_norms(model.graph)
    # DeBERTa's embeddings are masked behind their norm, its positions have a norm, and share the biases of queries and
    # keys with what the second layer reads. ModernBERT's norms and layers have no bias.
    # ALBERT's layers are one, but for what reads the embeddings.
    expected = {"deberta-v2": len(norms) - 3, "modernbert": 0, "albert": 1}
    assert len(moved) == expected.get(exported.checkpoint.model.config.model_type, len(norms))
    real = exported.mask.astype(bool)
    found = run(model, tmp_path)(exported.ids, exported.mask)
    np.testing.assert_allclose(found[real], exported.expected[real], atol=2e-4)


@pytest.mark.parametrize("recipe", sorted(TOLERANCE))
def test_each_recipe_is_close_and_a_text_never_sees_its_neighbours(
    exported: Exported, recipe: str, tmp_path: Path
) -> None:
    batches = random_batches(4)
    model = exported.graph()
    if recipe != "int8-weights":
        model = prepared(exported.onnx_file, means=channel_means(model, batches, tmp_path))
    layers = [layer.name for layer in quantizable_layers(model.graph)]
    assert len(layers) == len(linear_layers(model.graph)) - 1  # all but the classifier
    if recipe == "int8-static":
        sources = [layer.source_name for layer in quantizable_layers(model.graph)]
        assert quantize_products(model, calibrated_ranges(model, sources, batches, tmp_path)) == layers
    elif recipe == "int8-weights":
        assert quantize_weights(model) == layers
    else:
        assert quantize_products(model) == layers
    network = run(model, tmp_path)
    together = network(exported.ids, exported.mask)
    assert 0 < error(together, exported) < TOLERANCE[recipe]
    full = np.ones_like(exported.ids)
    batch = network(exported.ids, full)
    for i in range(len(exported.ids)):
        np.testing.assert_array_equal(network(exported.ids[i : i + 1], full[i : i + 1])[0], batch[i])
    np.testing.assert_array_equal(network(exported.ids[::-1].copy(), full)[::-1], batch)


def test_activations_are_quantized_once_for_all_their_readers(exported: Exported) -> None:
    model = exported.graph()
    sources = {layer.source_name for layer in quantizable_layers(model.graph)}
    layers = quantize_products(model)
    kinds = [node.op_type for node in model.graph]
    assert kinds.count("MatMulIntegerToFloat") == len(layers)
    assert kinds.count("QuantizeLinear") == len(sources) <= len(layers)


def test_int8_embeddings_are_close_and_small(exported: Exported, tmp_path: Path) -> None:
    run(exported.graph(), tmp_path)
    size = (tmp_path / "m.onnx").stat().st_size
    model = exported.graph()
    assert len(quantize_embeddings(model)) == 1
    assert 0 < error(run(model, tmp_path)(exported.ids, exported.mask), exported) < 0.02
    table = exported.checkpoint.model.get_input_embeddings().weight.numel()
    assert (tmp_path / "m.onnx").stat().st_size < size - 2 * table


def test_the_scale_of_attention_scores_is_in_the_weights_where_nothing_stands_between(exported: Exported) -> None:
    kind = exported.checkpoint.model.config.model_type
    scaled = [
        node
        for node in exported.graph().graph
        if node.op_type in ("Div", "Mul")
        and any(value.producer() and value.producer().op_type == "MatMul" for value in node.inputs if value)
    ]
    assert bool(scaled) == (kind == "modernbert")  # its queries are rotated before they are scaled


def test_attention_finds_its_heads_where_they_lie(exported: Exported) -> None:
    config = exported.checkpoint.model.config
    graph = exported.graph().graph
    kinds = [node.op_type for node in graph]
    # DeBERTa's keys are read by several products, and ModernBERT rotates its queries: these stay as they are.
    rewritten = 0 if config.model_type in ("deberta-v2", "modernbert") else config.num_hidden_layers
    assert kinds.count("FusedMatMul") == 2 * rewritten
    biased = sum(layer.bias is not None for layer in linear_layers(graph))
    if rewritten:
        assert kinds.count("Transpose") == 2 * rewritten + (config.model_type == "mpnet")  # its positions
        assert biased == len(linear_layers(graph)) - 2 * rewritten  # keys and values have none
