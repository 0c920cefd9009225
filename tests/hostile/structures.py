"""
Damage with structure: a change of a file that keeps what a reader looks at first, so that it reaches what comes after.

A byte that is changed anywhere mostly ends in the first check: the checksum of a compression, the syntax of JSON, the
magic bytes of Parquet. Here a value, a line, a field or a field of the footer changes, and the rest is as it was.
"""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
from collections.abc import Callable
from pathlib import PurePath
from random import Random
from typing import Any

import zstandard

from tests.hostile.originals import PACKERS
from tests.support.damage import LINE_DAMAGES, change_value, mutated

_UNPACKERS: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.decompress,
    ".zst": lambda content: zstandard.decompress(content, 1 << 20),
    ".xz": lzma.decompress,
    ".bz2": bz2.decompress,
}
_BETWEEN_FIELDS = (b'"', b'""', b"\r", b"\n", b"\r\n", b",", b";", b"\t", b"|", b"\x00", b"\xef\xbb\xbf", b"\xff", b" ")
_FOOTER_END = 8  # the length of the footer, and the magic bytes
_OPERATORS = ("Add", "Gather", "Loop", "If", "Identity", "Cast", "Reshape", "Transpose", "Nonsense", "")


def damaged(name: str, content: bytes, rng: Random) -> bytes:
    """
    Damage a valid file, by its bytes or by its structure.

    :param name: its suffixes say what it is
    """
    if rng.random() < 0.4:
        return mutated(content, rng)
    return _DAMAGES[PurePath(name).suffix](content, rng)


def _json(content: bytes, rng: Random) -> bytes:
    value = json.loads(content)
    for _ in range(rng.randint(1, 3)):
        if isinstance(value, dict) and value:
            change_value(value, rng)
    return json.dumps(value).encode()


def _lines(content: bytes, rng: Random) -> bytes:
    lines = content.splitlines(keepends=True)
    for _ in range(rng.randint(1, 3)):
        if lines:
            rng.choice(LINE_DAMAGES)(lines, rng)
    return b"".join(lines)


def _packed(suffix: str) -> Callable[[bytes, Random], bytes]:
    """Return a damage of the lines in a compressed file, or of its members."""
    pack, unpack = PACKERS[suffix], _UNPACKERS[suffix]

    def damage(content: bytes, rng: Random) -> bytes:

        kind = rng.randrange(4)
        lines = unpack(content)
        if kind == 0:
            return pack(_lines(lines, rng))
        if kind == 1:  # a file of two members, of which one is damaged
            at = rng.randrange(len(lines))
            members = [pack(lines[:at]), pack(lines[at:])]
            which = rng.randrange(2)
            members[which] = mutated(members[which], rng)
            return b"".join(members)

        if kind == 2:  # something after the end, or a member of another compression
            return content + rng.choice((b"\0" * 512, lines, *(other(lines) for other in PACKERS.values())))
        return pack(mutated(lines, rng))

    return damage


def _fields(content: bytes, rng: Random) -> bytes:
    """Put what separates or quotes fields where a field begins or ends, or take it away there."""
    for _ in range(rng.randint(1, 3)):
        places = [i for i, byte in enumerate(content) if byte in b',"\r\n'] or [0]

        at = rng.choice(places) + rng.randrange(2)
        end = at + rng.randrange(2)
        content = content[:at] + rng.choice((b"", *_BETWEEN_FIELDS)) + content[end:]
    return content


def _footer(content: bytes, rng: Random) -> bytes:
    """Change bytes of a Parquet footer, mostly numbers and types, and keep its length; sometimes a page header."""
    data = bytearray(content)
    size = int.from_bytes(content[-_FOOTER_END:-4], "little")
    begin = len(content) - _FOOTER_END - size

    is_footer = rng.random() < 0.8
    for _ in range(rng.randint(1, 4)):
        # Bytes 0 to 3 are the magic bytes, which all readers check first.
        at = rng.randrange(begin, begin + size) if is_footer else rng.randrange(4, begin)

        kind = rng.randrange(3)
        if kind == 0:
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            data[at] = (data[at] + rng.choice((-2, -1, 1, 2))) % 256
        else:
            data[at] = rng.choice((0, 1, 2, 0x7F, 0x80, 0xFF, rng.randrange(256)))

    if rng.random() < 0.05:
        data[-_FOOTER_END:-4] = rng.choice((0, 1, size - 1, size + 1, len(content), 0xFFFFFFFF)).to_bytes(4, "little")

    return bytes(data)


def _graph(content: bytes, rng: Random) -> bytes:
    """Change nodes, tensors, inputs and outputs of a network."""
    from onnx import ModelProto

    model = ModelProto.FromString(content)
    for _ in range(rng.randint(1, 3)):
        try:
            rng.choice(_GRAPH_CHANGES)(model, rng)
        except IndexError:  # nothing of that kind is left
            continue

    found: bytes = model.SerializeToString()
    return found


def _change_node(model: Any, rng: Random) -> None:
    node = rng.choice(model.graph.node)

    kind = rng.randrange(5)
    if kind == 0:
        node.op_type = rng.choice(_OPERATORS)
    elif kind == 1:
        node.input[rng.randrange(len(node.input))] = rng.choice(("", "e", "x", "logits", "input_ids", "nowhere"))
    elif kind == 2:
        node.output[0] = rng.choice(("", "e", "x", "logits", "input_ids"))
    elif kind == 3:
        node.domain = rng.choice(("com.microsoft", "nowhere", "ai.onnx.ml"))
    else:
        model.graph.node.remove(node)


def _change_tensor(model: Any, rng: Random) -> None:
    tensor = rng.choice(model.graph.initializer)

    kind = rng.randrange(5)
    if kind == 0:
        tensor.dims[rng.randrange(len(tensor.dims))] = rng.choice((0, 1, -1, 2, 2**31, 2**62))
    elif kind == 1:
        tensor.data_type = rng.randrange(25)
    elif kind == 2:
        tensor.raw_data = tensor.raw_data[: rng.randrange(len(tensor.raw_data) + 1)]
    elif kind == 3:
        tensor.data_location = 1
        for key, value in (
            ("location", rng.choice(("w.bin", "../w", "/dev/zero", ""))),
            ("offset", str(rng.choice((0, -1, 2**62)))),
        ):
            entry = tensor.external_data.add()
            entry.key, entry.value = key, value
    else:
        tensor.name = rng.choice(("", "e", "input_ids", "words"))


def _change_border(model: Any, rng: Random) -> None:
    border = rng.choice([*model.graph.input, *model.graph.output])

    kind = rng.randrange(4)
    shape = border.type.tensor_type.shape
    if kind == 0:
        border.type.tensor_type.elem_type = rng.randrange(25)
    elif kind == 1:
        shape.dim[rng.randrange(len(shape.dim))].dim_value = rng.choice((0, 1, -1, 3, 2**40))
    elif kind == 2:
        del shape.dim[rng.randrange(len(shape.dim))]
    else:
        border.name = rng.choice(("", "logits", "input_ids", "attention_mask", "other"))


def _change_facts(model: Any, rng: Random) -> None:
    if rng.random() < 0.5:
        model.ir_version = rng.choice((0, 1, 3, 8, 99, 2**40))
    else:
        model.opset_import[0].version = rng.choice((0, 1, 7, 13, 99, 2**40))


_GRAPH_CHANGES = (_change_node, _change_tensor, _change_border, _change_facts)
_DAMAGES: dict[str, Callable[[bytes, Random], bytes]] = {
    ".json": _json,
    ".jsonl": _lines,
    **{suffix: _packed(suffix) for suffix in PACKERS},
    ".csv": _fields,
    ".txt": _fields,
    ".parquet": _footer,
    ".arrow": mutated,
    ".onnx": _graph,
}
