"""Find the linear layers of a graph by their structure, not by their names."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from nerd_export.graph.nodes import constant, consumers, descendants, nodes_of, only_reader
from nerd_onnx.errors import OptionError

_MOVING = frozenset({"Reshape", "Transpose"})  # nodes that move numbers and change none
_REACHING = frozenset({"Identity", "Reshape", "Cast"})  # nodes between the classifier and the logits


@dataclass(frozen=True)
class Linear:
    """
    A linear layer: a MatMul with a constant matrix, and its bias.

    :param matmul: the product
    :param source_name: name of the activation that it reads in the original graph
    :param weight: *Shape:* (inputs, outputs)
    :param bias: the Add that follows, None without one
    """

    matmul: ir.Node
    source_name: str
    weight: npt.NDArray[np.float32]
    bias: ir.Node | None

    @property
    def name(self) -> str:
        """Name for messages and parameters."""
        return str(self.matmul.name or self.matmul.outputs[0].name)

    @property
    def weight_name(self) -> str:
        """Name of the constant matrix; layers that share their weights have the same."""
        value = self.matmul.inputs[1]
        assert value is not None  # noqa: S101 - a MatMul has two inputs
        return str(value.name)

    @property
    def source(self) -> ir.Value:
        """The activation it reads now; several layers may read the same. *Shape:* (batch, tokens, inputs)."""
        value = self.matmul.inputs[0]
        assert value is not None  # noqa: S101 - a MatMul has two inputs
        return value

    @property
    def result(self) -> ir.Value:
        """The output of the layer, with the bias."""
        return (self.bias or self.matmul).outputs[0]

    @property
    def bias_vector(self) -> ir.Value | None:
        """The bias, a constant. *Shape:* (outputs,)."""
        values = self.bias.inputs if self.bias else ()
        return next((value for value in values if constant(value) is not None), None)


def linear_layers(graph: ir.Graph) -> list[Linear]:
    """
    List, in order, the linear layers whose input depends on the text.

    A product of two constants (DeBERTa's relative positions) is folded when the model is loaded, so it does not count.
    """
    ids = next(value for value in graph.inputs if value.name == "input_ids")
    # Shape reads no numbers: what depends on the length alone, such as positions, is no activation of a text.
    computed = descendants(ids, follow=lambda node: node.op_type != "Shape")
    layers = []

    for node in nodes_of(graph, "MatMul"):
        source, weight = node.inputs[0], constant(node.inputs[1])
        if source is not None and weight is not None and weight.ndim == 2 and source in computed:  # noqa: PLR2004
            layers.append(Linear(node, str(source.name), weight.astype(np.float32), bias_of(node, weight.shape[1])))

    return layers


def quantizable_layers(graph: ir.Graph, keep_fp32: Collection[str] = ()) -> list[Linear]:
    """
    List the linear layers to quantize: all but the classifier and those to keep.

    :param keep_fp32: names of layers to keep, as in the graph or as :func:`plain_name` returns them
    :raises OptionError: when a name in ``keep_fp32`` is not the name of a layer
    """
    layers = linear_layers(graph)
    names, kept = [plain_name(layer.name) for layer in layers], set(map(plain_name, keep_fp32))
    if unknown := sorted(kept - set(names)):
        raise OptionError(
            f"--keep-fp32: no layer is named {', '.join(unknown)}; the linear layers are {', '.join(names)}",
            reason="unknown-layer",
            option="--keep-fp32",
            found=", ".join(unknown),
        )

    # The classifier is small, and an error in it goes into the logits without anything that evens it out.
    return [layer for layer in layers if plain_name(layer.name) not in kept and not _gives_logits(layer.result)]


def plain_name(name: str) -> str:
    """Return the name of a layer for people, without the exporter's outer slashes."""
    return name.strip("/").removesuffix("/MatMul")


@dataclass(frozen=True)
class Behind:
    """
    The linear layer that computes a value.

    :param bias: the Add after the product, None without one
    :param moves: the nodes between the layer and the value, in order; they move numbers and change none
    """

    matmul: ir.Node
    bias: ir.Node | None
    moves: tuple[ir.Node, ...]


def layer_behind(value: ir.Value | None) -> Behind | None:
    """Return the linear layer that computes a value, apart from moves; None without one, or if other nodes read it."""
    # Backwards from the value: moves, then perhaps the Add of a bias, then the product.
    moves: list[ir.Node] = []
    while (node := _alone(value)) is not None and node.op_type in _MOVING:
        moves.insert(0, node)
        value = node.inputs[0]

    bias = None
    # The other input of the Add may be a residual connection; only a constant vector is a bias.
    if node is not None and node.op_type == "Add":
        place = vector_place(node)
        bias, node = node, None if place is None else _alone(node.inputs[1 - place])

    if node is None or node.op_type != "MatMul" or constant(node.inputs[1]) is None:
        return None

    return Behind(node, bias, tuple(moves))


def _alone(value: ir.Value | None) -> ir.Node | None:
    """Return the node that computes a value; None if several nodes read the value."""
    return value.producer() if value is not None and only_reader(value) else None


def vector_place(add: ir.Node) -> int | None:
    """Return the index of the constant vector among the inputs of an Add; None without one."""
    vectors = (constant(value) for value in add.inputs)
    return next((i for i, vector in enumerate(vectors) if vector is not None and vector.ndim == 1), None)


def _gives_logits(value: ir.Value) -> bool:
    """Whether a value is an output of the graph, either directly or through nodes that only move numbers."""
    return value.is_graph_output() or any(
        node.op_type in _REACHING and _gives_logits(node.outputs[0]) for node in consumers(value)
    )


def bias_of(matmul: ir.Node, outputs: int) -> ir.Node | None:
    """Return the Add of a constant vector of ``outputs`` numbers that alone reads a product; None without one."""
    followers = list(consumers(matmul.outputs[0]))
    # If another node reads the product without the bias, the two cannot be treated as one layer.
    alone = len(followers) == 1 and not matmul.outputs[0].is_graph_output()
    add = followers[0] if alone and followers[0].op_type == "Add" else None
    return add if add is not None and any(_is_vector(value, outputs) for value in add.inputs) else None


def _is_vector(value: ir.Value | None, length: int) -> bool:
    array = constant(value)
    return array is not None and array.shape == (length,)
