"""
Which constants of a graph are the weights of the native encoder: the ``native`` section of ``nerd.json``.

The exporter writes it for graphs that compute exactly what the native encoder computes. The weights stay in the graph;
the section has their names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nerd_onnx.errors import ModelError
from nerd_onnx.inference.arrays import Ints
from nerd_onnx.inference.json_object import JsonObject
from nerd_onnx.inference.onnx_tensors import initializers
from nerd_onnx.native.library import Levels, Shape

_MAX_HEADS, _MAX_BYTE, _MAX_TOKENS = 1024, 255, 1 << 16
_DISTANCE = re.compile(r"-?(0|[1-9][0-9]{0,5})", re.ASCII)
_LINEAR, _NORM = ("weight", "scale", "bias"), ("gain", "shift")
_TABLES = ("words.weight", "positions", "types", "relative")
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


def roles(layers: int, *, projected: bool = False, relative: bool = False) -> list[str]:
    """
    List the weights of an encoder in the order in which the native library reads them.

    :param projected: whether a linear layer follows the embeddings
    :param relative: whether the distance of two tokens changes their attention score
    """
    names = ["words.weight", "words.scale", "types", "positions", *(f"embeddings.{part}" for part in _NORM)]
    names += [f"projection.{field}" for field in _LINEAR] if projected else []
    names += ["relative"] if relative else []

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
    :param padding: the id from behind which positions count, and which is its own position; -1 if they count from 0
    :param buckets: where distances change scores, (distance, row) in order: the row of the table ``relative`` for each
        distance from this one up to the next entry's; a distance is the place of the key minus that of the query
    """

    heads: int
    epsilon: float
    symmetric: TokenLevels
    after_gelu: TokenLevels
    tensors: Mapping[str, str | None]
    padding: int = -1
    buckets: Sequence[tuple[int, int]] = ()

    @property
    def layers(self) -> int:
        """Number of encoder layers."""
        return sum(role.endswith(".up.weight") for role in self.tensors)

    @property
    def roles(self) -> list[str]:
        """The weights that this encoder has; see :func:`roles`."""
        return roles(self.layers, projected="projection.weight" in self.tensors, relative=bool(self.buckets))

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
            padding=found.integer("padding", 0, _MAX_TOKENS) if found.has("padding") else -1,
            buckets=_buckets(found) if found.has("buckets") else (),
        )

        # The encoder finds its weights by their place in the list.
        if list(layout.tensors) != layout.roles:
            raise found.error("tensors", "does not name the weights of the native encoder in their order")
        return layout

    def to_json(self) -> dict[str, Any]:
        """Return the section as ``nerd.json`` has it."""
        # The first bundles had neither field, and encoders of BERT's kind need none.
        positions = {} if self.padding < 0 else {"padding": self.padding}
        distances = {"buckets": {str(distance): row for distance, row in self.buckets}} if self.buckets else {}

        return {
            "heads": self.heads,
            "epsilon": self.epsilon,
            "symmetric": vars(self.symmetric),
            "after_gelu": vars(self.after_gelu),
            **positions,
            **distances,
            "tensors": dict(self.tensors),
        }


def _levels(found: JsonObject) -> TokenLevels:
    return TokenLevels(
        zero_point=found.integer("zero_point", 0, _MAX_BYTE),
        positive=found.integer("positive", 1, _MAX_BYTE),
        smallest_peak=found.number("smallest_peak", 0),
    )


def _buckets(found: JsonObject) -> tuple[tuple[int, int], ...]:
    section = found.section("buckets")
    if not section.content or not all(_DISTANCE.fullmatch(key) for key in section.content):
        raise found.error("buckets", "does not list distances in tokens")

    buckets = tuple((int(key), section.integer(key, 0, _MAX_TOKENS)) for key in section.content)
    if any(one >= other for (one, _), (other, _) in pairwise(buckets)):
        raise found.error("buckets", "does not list distances in increasing order")
    return buckets


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

    widths = _Widths.of(layout, found)

    types = found["types"]
    # One row where all types are 0.
    found["types"] = np.atleast_2d(np.zeros(widths.embedding, np.float32) if types is None else types)
    rows = {role: _size(found.get(role), 0) for role in _TABLES}
    _check_tensors(layout, graph, found, widths, rows)

    sizes = (layout.layers, widths.hidden, layout.heads, widths.wide, widths.labels)
    tables = (rows["words.weight"], rows["positions"], rows["types"])
    levels = (Levels(*vars(each).values()) for each in (layout.symmetric, layout.after_gelu))
    shape = Shape(*sizes, *tables, widths.embedding, layout.padding, bool(layout.buckets), layout.epsilon, *levels)

    # The library has a row of distances per head, and the graph a row of heads per bucket of distances.
    table = found.get("relative")
    if table is not None:
        found["relative"] = table[_rows_of_distances(layout, graph, shape.longest, len(table))].T
    return shape, [found[role] for role in layout.roles]


def _check_tensors(
    layout: NativeLayout,
    graph: Path,
    found: Mapping[str, npt.NDArray[Any] | None],
    widths: _Widths,
    rows: Mapping[str, int],
) -> None:
    """
    Check the types and shapes of weights; the library compares nothing but their sizes in bytes.

    :param found: the weights by their roles; a bias may be None
    :param rows: number of rows of each table
    :raises ModelError: for the first weight that has another type or shape, or a number that is not finite
    """
    for role in layout.roles:
        tensor = found[role]
        if tensor is None and role.endswith(".bias"):
            continue

        expected = widths.expected(role, rows)
        if tensor is None or (tensor.dtype, tensor.shape) != expected:
            seen = "nothing" if tensor is None else f"{tensor.dtype} {tensor.shape}"
            raise _not_this_graph(graph, str(layout.tensors[role]), seen, f"{expected[0]} {expected[1]}")
        if tensor.dtype == np.float32 and not np.isfinite(tensor).all():
            raise _not_this_graph(graph, str(layout.tensors[role]), "a number that is not finite", "finite numbers")


@dataclass(frozen=True)
class _Widths:
    """The widths of an encoder, as some of its weights have them; 0 where a weight is missing."""

    embedding: int
    hidden: int
    wide: int
    labels: int
    heads: int

    @classmethod
    def of(cls, layout: NativeLayout, found: Mapping[str, npt.NDArray[Any] | None]) -> _Widths:
        """Read the widths."""
        last = "projection.weight" if "projection.weight" in found else "words.weight"
        names = ("words.weight", last, "layer.0.up.weight", "classifier.weight")
        embedding, hidden, wide, labels = (_size(found.get(name), -1) for name in names)
        return cls(embedding, hidden, wide, labels, layout.heads)

    def expected(self, role: str, rows: Mapping[str, int]) -> tuple[np.dtype[Any], tuple[int, ...]]:
        """
        Return the type and the shape of a weight.

        :param rows: number of rows of each table
        """
        part, field = role.split(".")[-2:] if "." in role else (role, "")
        # Attention's own layers are not listed: they keep the width.
        inputs, outputs = {
            "embeddings": (0, self.embedding),
            "projection": (self.embedding, self.hidden),
            "up": (self.hidden, self.wide),
            "down": (self.wide, self.hidden),
            "classifier": (self.hidden, self.labels),
        }.get(part, (self.hidden, self.hidden))

        tables = {role: (count, self.embedding) for role, count in rows.items()}
        tables |= {"words.scale": (rows["words.weight"], 1), "relative": (rows["relative"], self.heads)}

        is_byte = field == "weight" and part != "classifier"
        shape = tables.get(role) or ((inputs, outputs) if field == "weight" else (outputs,))
        return np.dtype(np.int8 if is_byte else np.float32), shape


def _size(tensor: npt.NDArray[Any] | None, axis: int) -> int:
    """Return the length of an axis; 0 where there is none."""
    return 0 if tensor is None or tensor.ndim == 0 else tensor.shape[axis]


def _rows_of_distances(layout: NativeLayout, graph: Path, longest: int, rows: int) -> Ints:
    """
    Return the row of the table ``relative`` for each distance from ``1 - longest`` to ``longest - 1``.

    :raises ModelError: when the table has no such row, or a distance has none
    """
    first, row = np.array(layout.buckets, dtype=np.int64).T
    if first[0] > 1 - longest or row.max() >= rows:
        name = str(layout.tensors["relative"])
        raise _not_this_graph(graph, name, f"{rows} rows", f"rows to {row.max()}, for distances from {1 - longest}")
    return np.asarray(row[np.searchsorted(first, np.arange(1 - longest, longest), side="right") - 1])


def _not_this_graph(graph: Path, name: str, found: str, expected: str) -> ModelError:
    return ModelError(
        f"{graph}: nerd.json describes a weight {name!r} for the native encoder; found {found}, expected {expected}; "
        "export the model again",
        reason="other-weights",
        file=str(graph),
        found=found,
        expected=expected,
    )
