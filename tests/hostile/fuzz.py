"""
Damaged inputs, model files, journals and work folders: ``python -m tests.hostile.fuzz --seconds 600``.

Valid files are mutated byte by byte; whatever comes of it, the program reads the file or says in one line why not.
Journals and work folders are damaged by lines, fields and files too, see :mod:`work_folders`; a run that is resumed
from them has the bytes of an undisturbed one. Anything else ends the process with the seed that shows it again.
"""

from __future__ import annotations

import argparse
import bz2
import gzip
import io
import json
import lzma
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
from nerd_onnx.formats.readers import format_of_name, open_reader
from nerd_onnx.inference.bundle import DEFAULT_FOLDER, Bundle
from nerd_onnx.inference.encoding import EncodedBatch, TextEncoder
from nerd_onnx.inference.session import Session
from nerd_onnx.machine.memory import peak_rss_bytes
from tests.hostile.work_folders import WorkFolders
from tests.support.damage import mutated

# Targets, each with its share of the cases. A resumed run takes as long as fifty files that are read.
SHARES = {
    **dict.fromkeys(("plain.jsonl", "plain.csv", "packed.jsonl.gz", "packed.jsonl.zst"), 50),
    **dict.fromkeys(("packed.jsonl.xz", "packed.jsonl.bz2"), 50),
    **dict.fromkeys(("none.parquet", "snappy.parquet", "zstd.parquet"), 50),
    **dict.fromkeys(("file.arrow", "lz4.arrow", "stream.arrow"), 50),
    **dict.fromkeys(("nerd.json", "config.json", "tokenizer.json", "model.onnx"), 50),
    "journal": 50,
    "work-folder": 5,
}
LONGEST_S = 20.0
_MOST_BYTES = 8 << 30
SENTENCES = ["Angela Merkel met Barack Obama in Berlin.", "東京 🙂 São Paulo", "", "x" * 300]


def originals() -> dict[str, bytes]:
    """Make a small valid file of each kind."""
    lines = "".join(json.dumps({"text": text, "n": i, "d": {"k": [1]}}) + "\n" for i, text in enumerate(SENTENCES))
    table = pa.table({"text": SENTENCES, "n": range(4), "tags": [["a"], [], None, ["b"]]})
    parquet = {}
    for codec in ("none", "snappy", "zstd"):
        buffer = io.BytesIO()
        pq.write_table(table, buffer, row_group_size=2, compression=codec)
        parquet[f"{codec}.parquet"] = buffer.getvalue()
    arrow = {}
    for name, opener, options in (
        ("file", pa.ipc.new_file, pa.ipc.IpcWriteOptions()),
        ("lz4", pa.ipc.new_file, pa.ipc.IpcWriteOptions(compression="lz4")),
        ("stream", pa.ipc.new_stream, pa.ipc.IpcWriteOptions()),
    ):
        sink = io.BytesIO()
        words = table.append_column("word", table["text"].dictionary_encode())
        with opener(sink, words.schema, options=options) as writer:
            writer.write_table(words, max_chunksize=2)
        arrow[f"{name}.arrow"] = sink.getvalue()
    return {
        "plain.jsonl": lines.encode(),
        "packed.jsonl.gz": gzip.compress(lines.encode()),
        "packed.jsonl.zst": zstandard.compress(lines.encode()),
        "packed.jsonl.xz": lzma.compress(lines.encode()),
        "packed.jsonl.bz2": bz2.compress(lines.encode()),
        "plain.csv": b"n,text\r\n"
        + b"".join(b'%d,"%s, ""x""\n"\r\n' % (i, s.encode()) for i, s in enumerate(SENTENCES)),
        **parquet,
        **arrow,
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
    options: dict[str, Any] = {
        "typed": rng.random() < 0.5,
        "lenient": rng.random() < 0.5,
        "added_columns": rng.choice([None, ("entities",)]),
    }
    with open_reader(
        str(path),
        format=format_of_name(str(path)),
        text_column="text",
        batch_rows=3,
        batch_bytes=1 << 16,
        limit=None,
        **options,
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


class Fuzzer:
    """
    All targets.

    :param folder: for the files of a case
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files = originals()
        self._work_folders = WorkFolders(folder)

    def case(self, seed: int, only: str | None = None) -> str:
        """
        Do one case.

        :param only: a target; None for any
        :return: target, and what came of it
        :raises RuntimeError: when it ended in anything but success or one line
        """
        rng = random.Random(seed)
        name = only or rng.choices(*zip(*SHARES.items(), strict=True))[0]
        if name in self._files:
            return f"{name} {read_file(self._folder / name, mutated(self._files[name], rng), rng, f'seed {seed}')}"

        damaged = self._work_folders.journal if name == "journal" else self._work_folders.work_folder
        try:
            return f"{name} {damaged(self._work_folders.run_of(seed), rng)}"
        except BaseException as err:
            raise RuntimeError(f"seed {seed}, {name}: {type(err).__name__}: {err}") from err


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
    parser.add_argument("--only", choices=SHARES)
    asked = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_AS, (_MOST_BYTES, _MOST_BYTES))  # a network may ask for any size
    counts, begin, seed = dict[str, int](), time.monotonic(), asked.seed
    with tempfile.TemporaryDirectory(prefix="nerd-fuzz-") as folder:
        fuzzer = Fuzzer(Path(folder))
        while seed < asked.seed + asked.cases and time.monotonic() - begin < asked.seconds:
            Path(folder, "seed").write_text(str(seed))  # where it crashes, this is left
            ended = fuzzer.case(seed, asked.only)
            counts[ended] = counts.get(ended, 0) + 1
            seed += 1
    summary = {"cases": seed - asked.seed, "peak_rss_bytes": peak_rss_bytes(), **dict(sorted(counts.items()))}
    sys.stdout.write(json.dumps(summary) + "\n")


if __name__ == "__main__":
    main()
