"""
Which constants of a graph are the weights of the native encoder: the ``native`` section of ``nerd.json``.

The exporter writes it for graphs that compute exactly what the native encoder computes. The weights stay in the graph;
the section has their names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nerd_onnx.errors import ModelError
from nerd_onnx.inference.json_object import JsonObject
from nerd_onnx.inference.onnx_tensors import initializers
from nerd_onnx.native.library import Levels, Shape

_MAX_HEADS, _MAX_BYTE = 1024, 255
_LINEAR, _NORM = ("weight", "scale", "bias"), ("gain", "shift")
_PARTS = {
    "query": _LINEAR,
    "key": _LINEAR,
    "value": _LINEAR,
    "output": _LINEAR,
    "after_attention": _NORM,
    "up": _LINEAR,
    "down": _LINEAR,
    "after_feed_forward": _NORM,
}


def roles(layers: int) -> list[str]:
    """List the weights of an encoder in the order in which the native library reads them."""
    names = ["words.weight", "words.scale", "types", "positions", *(f"embeddings.{part}" for part in _NORM)]
    for i in range(layers):
        names += [f"layer.{i}.{part}.{field}" for part, fields in _PARTS.items() for field in fields]
    return [*names, "classifier.weight", "classifier.bias"]


@dataclass(frozen=True)
class TokenLevels:
    """
    How the 256 integers of a token are divided.

    :param zero_point: the integer for 0.0
    :param positive: number of levels above it
    :param smallest_peak: lower bound of the value that the highest integer stands for
    """

    zero_point: int
    positive: int
    smallest_peak: float


@dataclass(frozen=True)
class NativeLayout:
    """
    The part of a graph that the native encoder needs.

    :param heads: attention heads
    :param epsilon: of the layer norms
    :param symmetric: levels of the inputs of linear layers
    :param after_gelu: levels of what the activation function returns
    :param tensors: name of the constant for each of :func:`roles`, in their order; None for a weight that is zero
    """

    heads: int
    epsilon: float
    symmetric: TokenLevels
    after_gelu: TokenLevels
    tensors: Mapping[str, str | None]

    @property
    def layers(self) -> int:
        """Number of encoder layers."""
        return (len(self.tensors) - len(roles(0))) // (len(roles(1)) - len(roles(0)))

    @classmethod
    def from_json(cls, found: JsonObject) -> NativeLayout:
        """
        Read a section of ``nerd.json``.

        :raises ModelError: when it is incomplete or malformed
        """
        tensors = found.section("tensors")
        layout = cls(
            heads=found.integer("heads", 1, _MAX_HEADS),
            epsilon=found.number("epsilon", 0, 1),
            symmetric=_levels(found.section("symmetric")),
            after_gelu=_levels(found.section("after_gelu")),
            tensors={role: tensors.text(role) if tensors.has(role) else None for role in tensors.content},
        )
        if list(layout.tensors) != roles(layout.layers):
            raise found.error("tensors", "does not name the weights of the native encoder in their order")
        return layout

    def to_json(self) -> dict[str, Any]:
        """Return the section as ``nerd.json`` has it."""
        return {
            "heads": self.heads,
            "epsilon": self.epsilon,
            "symmetric": vars(self.symmetric),
            "after_gelu": vars(self.after_gelu),
            "tensors": dict(self.tensors),
        }


def _levels(found: JsonObject) -> TokenLevels:
    return TokenLevels(
        zero_point=found.integer("zero_point", 0, _MAX_BYTE),
        positive=found.integer("positive", 1, _MAX_BYTE),
        smallest_peak=found.number("smallest_peak", 0),
    )


def read_weights(layout: NativeLayout, graph: Path) -> tuple[Shape, list[npt.NDArray[Any] | None]]:
    """
    Read the weights of a graph for the native library, with a check of their types and shapes.

    :return: the sizes of the encoder, and the weights in the library's order
    :raises ModelError: when a weight is not in the graph, or has another type or shape
    """
    try:
        constants = initializers(graph)
    except (OSError, ValueError) as err:
        raise ModelError(
            f"{graph}: its weights cannot be read: {err}; copy the model again", reason="cannot-load", file=str(graph)
        ) from err

    found = {role: None if name is None else constants.get(name) for role, name in layout.tensors.items()}
    missing = [name for role, name in layout.tensors.items() if name is not None and found[role] is None]
    if missing:
        raise _not_this_graph(graph, missing[0], "nothing", "a constant")

    words, types, positions, up, classifier = (
        found[role] for role in ("words.weight", "types", "positions", "layer.0.up.weight", "classifier.weight")
    )
    hidden, wide, labels = (0 if t is None else t.shape[-1] for t in (words, up, classifier))
    if types is None:
        types = np.zeros((1, hidden), np.float32)
    found["types"] = types = np.atleast_2d(types)  # one row where all types are 0
    rows = [0 if table is None else len(table) for table in (words, positions, types)]

    for role in roles(layout.layers):
        expected = _expected(role, hidden, wide, labels, rows)
        tensor = found[role]
        if tensor is None and role.endswith(".bias"):
            continue
        if tensor is None or (tensor.dtype, tensor.shape) != expected:
            seen = "nothing" if tensor is None else f"{tensor.dtype} {tensor.shape}"
            raise _not_this_graph(graph, str(layout.tensors[role]), seen, f"{expected[0]} {expected[1]}")
        if tensor.dtype == np.float32 and not np.isfinite(tensor).all():
            raise _not_this_graph(graph, str(layout.tensors[role]), "a number that is not finite", "finite numbers")

    sizes = (layout.layers, hidden, layout.heads, wide, labels, *rows)
    levels = (Levels(*vars(each).values()) for each in (layout.symmetric, layout.after_gelu))
    return Shape(*sizes, layout.epsilon, *levels), [found[role] for role in roles(layout.layers)]


def _expected(role: str, hidden: int, wide: int, labels: int, rows: list[int]) -> tuple[np.dtype[Any], tuple[int, ...]]:
    """Return the type and the shape of a weight."""
    part, field = role.split(".")[-2:] if "." in role else (role, "")
    inputs, outputs = {"up": (hidden, wide), "down": (wide, hidden), "classifier": (hidden, labels)}.get(
        part, (hidden, hidden)
    )
    tables = {"words.weight": (rows[0], hidden), "words.scale": (rows[0], 1)}
    tables |= {"positions": (rows[1], hidden), "types": (rows[2], hidden)}

    is_byte = field == "weight" and part != "classifier"
    shape = tables.get(role) or ((inputs, outputs) if field == "weight" else (outputs,))
    return np.dtype(np.int8 if is_byte else np.float32), shape


def _not_this_graph(graph: Path, name: str, found: str, expected: str) -> ModelError:
    return ModelError(
        f"{graph}: nerd.json describes a weight {name!r} for the native encoder; found {found}, expected {expected}; "
        "export the model again",
        reason="other-weights",
        file=str(graph),
        found=found,
        expected=expected,
    )
