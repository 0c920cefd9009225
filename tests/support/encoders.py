"""Random encoders for the native library, and what they compute, in double precision."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import numpy.typing as npt

from nerd_onnx.inference.arrays import Doubles, Floats, Ints
from nerd_onnx.native.library import Encoder, Levels, Library, Shape

Tensor = npt.NDArray[Any] | None
_FLOAT, _BYTE = np.float32, np.int8


@dataclass(frozen=True)
class Sizes:
    """Sizes of an encoder; see :class:`nerd_onnx.native.library.Shape`."""

    layers: int = 2
    hidden: int = 64
    heads: int = 2
    intermediate: int = 128
    labels: int = 5
    vocabulary: int = 50
    positions: int = 90
    token_types: int = 4
    embedding: int | None = None
    padding: int = -1
    relative: bool = False

    @property
    def embedding_width(self) -> int:
        """Width of the embeddings: that of the hidden states, unless there is another."""
        return self.hidden if self.embedding is None else self.embedding

    @property
    def longest(self) -> int:
        """Maximum number of tokens."""
        return self.positions - self.padding - 1

    def shape(self) -> Shape:
        """Return the sizes as the library takes them, with the levels of the exporter's recipe."""
        sizes = (self.layers, self.hidden, self.heads, self.intermediate, self.labels)
        tables = (self.vocabulary, self.positions, self.token_types)
        rest = (*tables, self.embedding_width, self.padding, self.relative)
        return Shape(*sizes, *rest, 1e-12, Levels(128, 127, 1.27e-7), Levels(40, 215, 0.91375))


@dataclass(frozen=True)
class RandomEncoder:
    """
    An encoder with random weights.

    :param sizes: its sizes
    :param tensors: its weights, in the order of the library
    """

    sizes: Sizes
    tensors: Sequence[Tensor]

    @classmethod
    def make(cls, sizes: Sizes, seed: int = 0, *, largest_weights: bool = False) -> RandomEncoder:
        """
        Draw weights.

        :param largest_weights: weights at the limit for the first half of the inputs: sums of 16 bits wrap around there
        """
        random = Random(seed)
        hidden, wide, embedding = sizes.hidden, sizes.intermediate, sizes.embedding_width

        def floats(*shape: int, scale: float = 0.5) -> Floats:
            return (_integers(random, -1024, 1024, *shape) / 1024 * scale).astype(_FLOAT)

        def linear(inputs: int, outputs: int, *, bias: bool = True) -> list[Tensor]:
            weight = _integers(random, -64, 64, inputs, outputs).astype(_BYTE)
            if largest_weights:
                # Neighbours of different signs may both have the largest size; those of one sign are limited together
                # (quantization/rounding.py).
                weight[0 : inputs // 2 : 2] = np.where(weight[0 : inputs // 2 : 2] < 0, -127, 127)
                weight[1 : inputs // 2 : 2] = -weight[0 : inputs // 2 : 2]
            scale = (np.abs(floats(outputs, scale=0.5)) + 0.5).astype(_FLOAT) / _FLOAT(40 * np.sqrt(inputs))
            return [weight, scale, floats(outputs) if bias else None]

        def norm(width: int = hidden) -> list[Tensor]:
            return [floats(width, scale=0.25) + _FLOAT(1), floats(width)]

        words = _integers(random, -127, 127, sizes.vocabulary, embedding).astype(_BYTE)
        tensors: list[Tensor] = [words, np.abs(floats(sizes.vocabulary, 1, scale=0.02)) + _FLOAT(0.005)]
        tensors += [floats(sizes.token_types, embedding), floats(sizes.positions, embedding), *norm(embedding)]
        tensors += linear(embedding, hidden) if embedding != hidden else []
        tensors += [floats(sizes.heads, 2 * sizes.longest - 1, scale=2)] if sizes.relative else []

        for _ in range(sizes.layers):
            tensors += [
                *linear(hidden, hidden),
                *linear(hidden, hidden, bias=False),
                *linear(hidden, hidden, bias=False),
            ]
            tensors += [*linear(hidden, hidden), *norm(), *linear(hidden, wide), *linear(wide, hidden), *norm()]

        tensors += [floats(hidden, sizes.labels), floats(sizes.labels)]

        return cls(sizes, tensors)

    def opened(self, library: Library, path: str = "") -> Encoder:
        """Open it in a library."""
        return Encoder(library, path, self.sizes.shape(), self.tensors, "random")

    def inputs(self, sequences: int, tokens: int, seed: int = 1) -> tuple[Ints, Ints]:
        """Draw token ids and types. *Shape:* (sequences, tokens) each."""
        random, sizes = Random(seed), self.sizes
        ids = _integers(random, 0, sizes.vocabulary - 1, sequences, tokens)
        return ids, _integers(random, 0, sizes.token_types - 1, sequences, tokens)

    def to_file(self, file: Path, sequences: int, tokens: int) -> Path:
        """Write it and its inputs for the programs in C++ (``tests/native/encoder_file.h``), and return the file."""
        ids, types = self.inputs(sequences, tokens)

        numbers = np.array([len(self.tensors), sequences, tokens], np.int32)
        tensors = [b"" if tensor is None else tensor.tobytes() for tensor in self.tensors]
        blocks = [bytes(self.sizes.shape()), numbers.tobytes(), *tensors, ids.tobytes(), types.tobytes()]
        file.write_bytes(b"".join(len(block).to_bytes(8, "little") + block for block in blocks))
        return file

    def with_tensor(self, place: int, tensor: Tensor) -> RandomEncoder:
        """Return an encoder with one tensor replaced."""
        return replace(self, tensors=[tensor if i == place else old for i, old in enumerate(self.tensors)])

    def expected(self, ids: Ints, types: Ints) -> Doubles:
        """Return the logits, computed with numpy in double precision. *Shape:* (sequences, tokens, labels)."""
        left = iter(self.tensors)

        # Each call reads the next weight, so the order of these lines is that of the library.
        def take() -> Any:
            tensor = next(left)
            return 0.0 if tensor is None else tensor.astype(np.float64)

        def linear(x: Doubles, peak: Doubles | None = None, positive: int = 127, zero_point: int = 128) -> Doubles:
            largest = np.abs(x).max(-1, keepdims=True) if peak is None else peak
            integers, step = _quantized(x, largest, positive, zero_point)
            return np.asarray((integers @ take()) * take() * step + take())

        sizes, tokens = self.sizes, ids.shape[1]
        words, scale, type_table, positions = take(), take(), take(), take()
        is_token = ids != sizes.padding
        # Positions of RoBERTa's kind: the padding's id plus the number of tokens up to this one; with an id of -1 they
        # count from 0.
        x = words[ids] * scale[ids] + type_table[types] + positions[np.cumsum(is_token, 1) * is_token + sizes.padding]
        x = _normalized(x, take(), take())
        if sizes.embedding_width != sizes.hidden:
            x = linear(x)

        place = np.arange(tokens)
        # A number per distance, the key's place minus the query's. *Shape:* (heads, tokens, tokens) of keys per query.
        relative = take()[:, place - place[:, None] + sizes.longest - 1] if sizes.relative else 0.0

        for _ in range(sizes.layers):
            query, key, value = (linear(x) for _ in range(3))
            context = _attention(query, key, value, sizes.heads, relative)
            x = _normalized(linear(context) + x, take(), take())

            wide = gelu(linear(x))
            # After gelu most levels are above zero; the smallest peak leaves room for its minimum.
            narrow = linear(wide, np.maximum(wide.max(-1, keepdims=True), 0.91375), positive=215, zero_point=40)
            x = _normalized(narrow + x, take(), take())

        return np.asarray(x @ take() + take())


def _integers(random: Random, low: int, high: int, *shape: int) -> Ints:
    """Draw integers. Python's generator is used because it draws the same ones in every version."""
    words = np.frombuffer(random.randbytes(4 * math.prod(shape)), "<u4").astype(np.int64)
    return (low + words % (high - low + 1)).reshape(shape)


def gelu(x: Doubles) -> Doubles:
    """Return the gelu of each value, by the error function of the standard library."""
    from scipy.special import erf

    return np.asarray(x * (0.5 + 0.5 * erf(x / np.sqrt(2))))


def _normalized(x: Doubles, gain: Doubles, shift: Doubles) -> Doubles:
    distance = x - x.mean(-1, keepdims=True)
    return np.asarray(distance / np.sqrt((distance**2).mean(-1, keepdims=True) + 1e-12) * gain + shift)


def _quantized(x: Doubles, peak: Doubles, positive: int, zero_point: int) -> tuple[Doubles, Doubles]:
    step = peak / positive
    return np.clip(np.rint(x / step), -zero_point, 255 - zero_point), step


def _attention(query: Doubles, key: Doubles, value: Doubles, heads: int, relative: Doubles | float) -> Doubles:
    def split(x: Doubles) -> Doubles:
        return x.reshape(*x.shape[:2], heads, -1).transpose(0, 2, 1, 3)

    scores = split(query) @ split(key).transpose(0, 1, 3, 2) + relative
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    mixed = weights / weights.sum(-1, keepdims=True) @ split(value)
    return np.asarray(mixed.transpose(0, 2, 1, 3).reshape(query.shape))
