"""
Restore a PyTorch checkpoint from the ONNX graph of a bundle, to train it further or export it again.

The weights are those that run: rounded to 8 bits where they are stored that way. What the export moved between layers
is moved back where PyTorch has it: the scale of the scores is taken out of the queries; the biases of keys and values,
which the export folded into other layers or dropped, are zero; the means that centering subtracted from layer norms
stay in the biases of the next layers. Then both run on real text; a difference larger than rounding is refused.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from nerd_export.data.sample import sample_texts
from nerd_export.graph.nodes import constant, consumers
from nerd_export.graph.rewritten_constants import INT8, ONE_ROW, SCALED, has_mark, without_mark
from nerd_export.models.networks import Observed, TorchNetwork
from nerd_onnx.errors import ModelError, first_line
from nerd_onnx.inference.bundle import Bundle
from nerd_onnx.inference.session import Network
from nerd_onnx.tagger import Tagger, TagOptions

_MOST_CHANGED = 0.05  # share of the tokens: rounding changes one tag in a hundred, a lost scale one in ten
_TEXTS = 20  # number of sample texts to compare on
_INTEGER_PRODUCT = "MatMulIntegerToFloat"
_BIAS = 6  # index of its bias among its inputs

Floats = npt.NDArray[np.float32]


def restored(bundle: Bundle) -> tuple[Any, Any]:
    """
    Return the PyTorch model of a bundle, and its tokenizer.

    :raises ModelError: when its weights cannot be read from the graph
    """
    import torch

    # Random weights at first; every one of them must then be found in the graph.
    model, tokenizer = _random_model(bundle)

    with torch.no_grad():
        weights = _weights(ir.load(bundle.model_file).graph, model.config)
        lacking = []
        for key, parameter in model.named_parameters():
            found = weights.get(key)
            # A table with one row per token type was reduced to its first row at export; copying repeats it.
            if found is not None and found.shape in (tuple(parameter.shape), (1, *parameter.shape[1:])):
                parameter.copy_(torch.tensor(found))
            else:
                lacking.append(key)

    if lacking:
        raise ModelError(
            f"{bundle.name}: {len(lacking)} weights of its architecture ({model.config.model_type}), such as "
            f"{lacking[0]}, cannot be read from its ONNX graph; give the checkpoint that it was exported from",
            reason="weights-missing",
            file=bundle.name,
            found=len(lacking),
            weight=lacking[0],
        )

    # Names alone can mislead, for example where an exporter merged equal constants. Real text shows it.
    changed = _labels_changed(bundle, TorchNetwork(model))
    if changed > _MOST_CHANGED:
        raise ModelError(
            f"{bundle.name}: with the weights that were read from its ONNX graph, {changed:.0%} of the tokens of real "
            "text get another label; give the checkpoint that it was exported from",
            reason="restored-differs",
            file=bundle.name,
            found=changed,
            maximum=_MOST_CHANGED,
        )

    return model, tokenizer


def _random_model(bundle: Bundle) -> tuple[Any, Any]:
    """
    Return a PyTorch model of a bundle's architecture with random weights, and its tokenizer.

    :raises ModelError: when its configuration describes none
    """
    import transformers

    folder = bundle.model_file.parent

    try:
        config = transformers.AutoConfig.from_pretrained(folder)
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        model = transformers.AutoModelForTokenClassification.from_config(config).eval()
    except (OSError, ValueError, KeyError, ImportError, AttributeError, TypeError, RuntimeError) as err:
        raise ModelError(
            f"{bundle.name}: its config.json describes no PyTorch model that can be made: {first_line(err)}",
            reason="cannot-load",
            file=bundle.name,
        ) from err

    return model, tokenizer


def _labels_changed(bundle: Bundle, original: Network) -> float:
    """Return the share of tokens in real text whose best label differs between the bundle and another network."""
    exported = Tagger(bundle)
    observed = Observed(original, exported.network)
    # PyTorch uses all processors in one call.
    tagger = Tagger(bundle, TagOptions(threads=1), network=observed)

    try:
        tagger.tag_arrays(sample_texts()[:_TEXTS])
    finally:
        tagger.close()
        exported.close()

    return observed.changed / max(1, observed.tokens)


@dataclass(frozen=True)
class _Layer:
    """
    A linear layer as the graph computes it.

    :param weight: *Shape:* (inputs, outputs)
    :param bias: None without one. *Shape:* (outputs,)
    :param scaled: whether the export multiplied it by the scale of the attention scores
    """

    weight: Floats
    bias: Floats | None
    scaled: bool


def _weights(graph: ir.Graph, config: Any) -> Mapping[str, Floats]:
    """
    Read all weights from a graph under their names in PyTorch. These are the names of the constants that hold them, or,
    where equal constants were merged, the names of the nodes that read them.
    """
    heads = getattr(config, "num_attention_heads", None)
    found: dict[str, Floats] = {}

    for name, value in graph.initializers.items():
        array = constant(value)
        if (path := without_mark(name, INT8)) is not None:
            table = _floats(value, graph.initializers.get(f"{path}.scale"))
            found |= {} if table is None else {path: table}
        elif (path := without_mark(name, ONE_ROW)) is not None:
            found[path] = array[None]
        else:
            found[name] = array

    for node in graph:
        path = _path(node)
        if node.op_type == "LayerNormalization":
            # A layer norm may have no bias.
            named = zip((f"{path}.weight", f"{path}.bias"), node.inputs[1:], strict=False)
            found |= {key: constant(value) for key, value in named}
        elif node.op_type == "Gather" and constant(node.inputs[0]) is not None:
            # A table whose own name was kept is there already; this is for one whose name was lost when equal constants
            # were merged.
            found.setdefault(f"{path}.weight", constant(node.inputs[0]))
        elif (layer := _layer(node)) is not None:
            width = layer.weight.shape[1]
            # The inverse of the scale that the export folded into the queries: 1 / sqrt(width of a head).
            factor = np.float32(math.sqrt(width / heads) if layer.scaled and heads else 1.0)
            found[f"{path}.weight"] = layer.weight.T * factor
            if layer.bias is None:
                # The export dropped or moved this bias; PyTorch needs one, and zeros change nothing.
                found.setdefault(f"{path}.bias", np.zeros(width, dtype=np.float32))
            else:
                found[f"{path}.bias"] = layer.bias * factor

    return found


def _path(node: ir.Node) -> str:
    """Return the path in the PyTorch model after which the exporter named a node."""
    return str(node.name).strip("/").rpartition("/")[0].replace("/", ".")


def _layer(node: ir.Node) -> _Layer | None:
    """Return the linear layer of a product; None for other nodes."""
    weight = _weight(node)
    if weight is None:
        return None
    bias = _bias(node)
    return _Layer(weight, constant(bias), has_mark(bias, SCALED))


def _bias(node: ir.Node) -> ir.Value | None:
    """Return the bias of a product: its own, or that of the Add after it; a scale per token may come between them."""
    if len(node.inputs) > _BIAS and node.inputs[_BIAS] is not None:
        return node.inputs[_BIAS]

    readers = list(consumers(node.outputs[0]))
    # The scale of a token is applied before the bias is added.
    if node.op_type == _INTEGER_PRODUCT and [reader.op_type for reader in readers] == ["Mul"]:
        readers = list(consumers(readers[0].outputs[0]))

    vectors = [value for reader in readers if reader.op_type == "Add" for value in reader.inputs if _is_vector(value)]
    return vectors[0] if len(readers) == len(vectors) == 1 else None


def _is_vector(value: ir.Value | None) -> bool:
    found = constant(value)
    return found is not None and found.ndim == 1


def _weight(node: ir.Node) -> Floats | None:
    """Return the constant matrix of a product as floats, whatever its storage; None if it has none."""
    if node.op_type == _INTEGER_PRODUCT:
        return _floats(node.inputs[1], node.inputs[3])
    if node.op_type != "MatMul" or node.inputs[1] is None:
        return None

    stored = constant(node.inputs[1])
    if stored is not None:
        return np.asarray(stored, dtype=np.float32) if stored.ndim == 2 else None  # noqa: PLR2004

    scaled = node.inputs[1].producer()
    cast = scaled.inputs[0].producer() if scaled is not None and scaled.op_type == "Mul" and scaled.inputs[0] else None
    if scaled is None or cast is None or cast.op_type != "Cast":
        return None

    return _floats(cast.inputs[0], scaled.inputs[1])


def _floats(integers: ir.Value | None, scale: ir.Value | None) -> Floats | None:
    """Turn constant integers back into floats; None where one of the two is no constant."""
    stored, step = constant(integers), constant(scale)
    return None if stored is None or step is None else stored.astype(np.float32) * step
