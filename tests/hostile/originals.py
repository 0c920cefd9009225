"""Small valid files of each kind, which the fuzzers damage."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

from nerd_onnx.inference.bundle import DEFAULT_FOLDER

SENTENCES = ["Angela Merkel met Barack Obama in Berlin.", "東京 🙂 São Paulo", "", "x" * 300]
TITLES = ["Berlin", None, "a\nb", "y"]
PACKERS: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".zst": zstandard.compress,
    ".xz": lzma.compress,
    ".bz2": bz2.compress,
}


def originals() -> dict[str, bytes]:
    """Make a small valid file of each kind."""
    lines = "".join(
        json.dumps({"text": text, "title": title, "n": i if i < 3 else "three", "d": {"k": [1]}}) + "\n"
        for i, (text, title) in enumerate(zip(SENTENCES, TITLES, strict=True))
    ).encode()
    return {
        "plain.jsonl": lines,
        **{f"packed.jsonl{suffix}": pack(lines) for suffix, pack in PACKERS.items()},
        "plain.csv": b"n,text,title\r\n"
        + b"".join(b'%d,"%s, ""x""\n",t\r\n' % (i, sentence.encode()) for i, sentence in enumerate(SENTENCES)),
        "plain.txt": "\r\n".join(SENTENCES).encode(),
        **_parquet_files(),
        **_arrow_files(),
        **_tagged_files(),
        "nerd.json": (DEFAULT_FOLDER / "nerd.json").read_bytes(),
        "config.json": (DEFAULT_FOLDER / "config.json").read_bytes(),
        "tokenizer.json": _small_tokenizer(),
        "model.onnx": _small_graph(),
    }


def _parquet_files() -> dict[str, bytes]:
    table = pa.table(
        {"text": SENTENCES, "title": TITLES, "n": range(4), "tags": [["a"], [], None, ["b"]], "b": [b"\xff"] * 4}
    )

    found = {}
    for codec in ("none", "snappy", "zstd"):
        buffer = io.BytesIO()
        # Both kinds of page header: with a checksum, damage of a page is found by it; without, by what reads the page.
        pq.write_table(table, buffer, row_group_size=2, compression=codec, write_page_checksum=codec == "zstd")
        found[f"{codec}.parquet"] = buffer.getvalue()

    return found


def _arrow_files() -> dict[str, bytes]:
    table = pa.table({"text": SENTENCES, "title": TITLES, "n": range(4), "tags": [["a"], [], None, ["b"]]})
    table = table.append_column("word", table["text"].dictionary_encode())

    found = {}
    for name, opener, compression in (
        ("file", pa.ipc.new_file, None),
        ("lz4", pa.ipc.new_file, "lz4"),
        ("stream", pa.ipc.new_stream, None),
    ):
        sink = io.BytesIO()
        with opener(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression=compression)) as writer:
            writer.write_table(table, max_chunksize=2)
        found[f"{name}.arrow"] = sink.getvalue()

    return found


def _tagged_files() -> dict[str, bytes]:
    """Make the same tagged rows as JSON Lines, CSV and Parquet."""
    entities: list[list[dict[str, Any]] | None] = [
        [
            {"start": 0, "end": 13, "label": "person", "fine_label": "person-actor", "score": 0.9},
            {"start": 34, "end": 40, "label": "location", "fine_label": None, "score": 1.0},
        ],
        [{"start": 0, "end": 2, "label": "location", "fine_label": "location-GPE", "score": 0.25}],
        [],
        None,
    ]
    rows = [{"text": text, "entities": found} for text, found in zip(SENTENCES, entities, strict=True)]

    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), buffer)
    quoted = (json.dumps(row["entities"]).replace('"', '""') if row["entities"] is not None else "" for row in rows)

    fields = "".join(
        f'"{text}","{found}"\n' if found else f'"{text}",\n' for text, found in zip(SENTENCES, quoted, strict=True)
    )
    return {
        "tagged.jsonl": "".join(json.dumps(row) + "\n" for row in rows).encode(),
        "tagged.csv": f"text,entities\n{fields}".encode(),
        "tagged.parquet": buffer.getvalue(),
    }


def _small_tokenizer() -> bytes:
    """Cut the default model's vocabulary down, so that a case takes little time."""
    facts = json.loads((DEFAULT_FOLDER / "tokenizer.json").read_text("utf-8"))
    facts["model"]["vocab"] = dict(list(facts["model"]["vocab"].items())[:300])
    return json.dumps(facts).encode()


def _small_graph() -> bytes:
    """Make a network of four operators that scores three labels."""
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    ids = helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "tokens"])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", "tokens", 3])
    weights = {"words": (20, 4), "matrix": (4, 3), "bias": (3,)}
    nodes = [
        helper.make_node("Gather", ["words", "input_ids"], ["e"]),
        helper.make_node("MatMul", ["e", "matrix"], ["x"]),
        helper.make_node("Gelu", ["x"], ["y"]),
        helper.make_node("Add", ["y", "bias"], ["logits"]),
    ]
    constants = [numpy_helper.from_array(rng.normal(size=s).astype(np.float32), n) for n, s in weights.items()]

    graph = helper.make_graph(nodes, "graph", [ids], [logits], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    content: bytes = model.SerializeToString()
    return content
