"""
Damaged inputs and model files: ``python -m tests.hostile.fuzz --seconds 600``.

Valid files are mutated byte by byte; whatever comes of it, the program reads the file or says in one line why not.
Anything else ends the process with the seed that shows it again.
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import random
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

from nerd_onnx.errors import NerdError
from nerd_onnx.formats.readers import Format, open_reader
from nerd_onnx.inference.bundle import DEFAULT_FOLDER, Bundle
from nerd_onnx.inference.encoding import EncodedBatch, TextEncoder
from nerd_onnx.inference.session import Session
from nerd_onnx.machine.memory import peak_rss_bytes

LONGEST_S = 20.0
_MOST_BYTES = 8 << 30
SPLICES = (b"\x00", b"\xff" * 8, b"{", b"}", b'"', b"[" * 2000, b"\\u", b"\n", b"1e999", b"null", b"\x7f\xff\xff\xff")
SENTENCES = ["Angela Merkel met Barack Obama in Berlin.", "東京 🙂 São Paulo", "", "x" * 300]


def mutated(content: bytes, rng: random.Random) -> bytes:
    """Damage bytes in one to four places: flip, cut, repeat, splice, or cut the end off."""
    data = bytearray(content)
    for _ in range(rng.randint(1, 4)):
        at, size = rng.randrange(len(data) + 1), rng.choice((1, 1, 2, 4, 16, 200))
        kind = rng.randrange(6)
        if kind == 0:
            data[at : at + 1] = bytes([rng.randrange(256)])
        elif kind == 1:
            del data[at : at + size]
        elif kind == 2:
            data[at:at] = data[at : at + size]
        elif kind == 3:
            data[at:at] = rng.choice(SPLICES)
        elif kind == 4:
            data[at : at + size] = rng.randbytes(size)
        else:
            del data[at:]
    return bytes(data)


def originals() -> dict[str, bytes]:
    """Make a small valid file of each kind."""
    lines = "".join(json.dumps({"text": text, "n": i, "d": {"k": [1]}}) + "\n" for i, text in enumerate(SENTENCES))
    table = pa.table({"text": SENTENCES, "n": range(4), "tags": [["a"], [], None, ["b"]]})
    parquet = {}
    for codec in ("none", "snappy", "zstd"):
        buffer = io.BytesIO()
        pq.write_table(table, buffer, row_group_size=2, compression=codec)
        parquet[f"{codec}.parquet"] = buffer.getvalue()
    return {
        "plain.jsonl": lines.encode(),
        "packed.jsonl.gz": gzip.compress(lines.encode()),
        "packed.jsonl.zst": zstandard.compress(lines.encode()),
        **parquet,
        "nerd.json": (DEFAULT_FOLDER / "nerd.json").read_bytes(),
        "config.json": (DEFAULT_FOLDER / "config.json").read_bytes(),
        "tokenizer.json": small_tokenizer(),
        "model.onnx": small_graph(),
    }


def small_tokenizer() -> bytes:
    """Cut the default model's vocabulary down, so that a case takes little time."""
    facts = json.loads((DEFAULT_FOLDER / "tokenizer.json").read_text("utf-8"))
    facts["model"]["vocab"] = dict(list(facts["model"]["vocab"].items())[:300])
    return json.dumps(facts).encode()


def small_graph() -> bytes:
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


def read_graph(path: Path, _: random.Random) -> None:
    """Load a network, and run it where that goes well."""
    Session(path, optimized=False).logits(EncodedBatch(np.array([[1, 2, 3]], dtype=np.int64)))


def read_table(path: Path, rng: random.Random) -> None:
    """Read an input as any run might."""
    kind: Format = "parquet" if path.suffix == ".parquet" else "jsonl"
    options: dict[str, Any] = {
        "typed": rng.random() < 0.5,
        "lenient": rng.random() < 0.5,
        "added_columns": rng.choice([None, ("entities",)]),
    }
    with open_reader(
        str(path), format=kind, text_column="text", batch_rows=3, batch_bytes=1 << 16, limit=None, **options
    ) as source:
        for rows in source.batches():
            rows.texts.to_pylist()


def read_model(path: Path, _: random.Random) -> None:
    """Read a model folder in which one file is damaged."""
    if path.name == "tokenizer.json":
        TextEncoder(path).encode(SENTENCES)
        return
    folder = path.parent / "model"
    folder.mkdir(exist_ok=True)
    for name in ("model.onnx", "tokenizer.json"):
        if not (folder / name).exists():
            (folder / name).write_bytes(b"not looked at")
    for name in ("nerd.json", "config.json"):
        (folder / name).unlink(missing_ok=True)
    shutil.copy(path, folder / path.name)
    Bundle.load(folder)


def case(seed: int, folder: Path, files: dict[str, bytes], only: str | None) -> str:
    """
    Do one case.

    :return: what came of it
    """
    rng = random.Random(seed)
    name = only or rng.choice(list(files))
    return f"{name} {read_file(folder / name, mutated(files[name], rng), rng, f'seed {seed}')}"


def read_file(path: Path, content: bytes, rng: random.Random, which: str) -> str:
    """
    Write a file and read it as its kind is read.

    :param which: names the case in errors
    :return: ``read`` or ``refused``
    :raises RuntimeError: when it ended in anything but success or one line
    """
    path.write_bytes(content)
    readers: dict[str, Callable[[Path, random.Random], None]] = {".json": read_model, ".onnx": read_graph}
    read = readers.get(path.suffix, read_table)
    begin = time.monotonic()
    try:
        read(path, rng)
        ended = "read"
    except NerdError as err:
        if "\n" in str(err):
            raise RuntimeError(f"{which}, {path.name}: an error of several lines: {err}") from err
        ended = "refused"
    except BaseException as err:
        raise RuntimeError(f"{which}, {path.name}: {type(err).__name__}: {err}") from err
    if time.monotonic() - begin > LONGEST_S:
        raise RuntimeError(f"{which}, {path.name}: took over {LONGEST_S} s")
    return ended


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=3600)
    parser.add_argument("--seed", type=int, default=0, help="of the first case")
    parser.add_argument("--only", choices=sorted(originals()))
    asked = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_AS, (_MOST_BYTES, _MOST_BYTES))  # a network may ask for any size
    files, counts, begin = originals(), dict[str, int](), time.monotonic()
    seed = asked.seed
    with tempfile.TemporaryDirectory(prefix="nerd-fuzz-") as folder:
        while seed < asked.seed + asked.cases and time.monotonic() - begin < asked.seconds:
            Path(folder, "seed").write_text(str(seed))  # where it crashes, this is left
            ended = case(seed, Path(folder), files, asked.only)
            counts[ended] = counts.get(ended, 0) + 1
            seed += 1
    summary = {"cases": seed - asked.seed, "peak_rss_bytes": peak_rss_bytes(), **dict(sorted(counts.items()))}
    sys.stdout.write(json.dumps(summary) + "\n")


if __name__ == "__main__":
    main()
