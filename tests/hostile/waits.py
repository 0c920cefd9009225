"""
What may let ``nerd-tag`` wait for ever, and how long it lives after a signal.

``python -m tests.hostile.waits`` measures all of them and prints the table of ``docs/durability.md``.
"""

from __future__ import annotations

import bz2
import json
import lzma
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.conftest import ROOT
from tests.support.s3_server import KEYS

PLAIN = ROOT / "tests" / "data" / "models" / "plain"
SIGNALS = (signal.SIGTERM, signal.SIGINT)
_STUCK_S = 2.0  # from the moment at which the process handles signals until it waits
_READY_S = 60.0
_END_S = 60.0
# For the pattern a*a*b: without a b in the text, the library would see at once that nothing matches. It tries a match
# from each a, which takes eight million turns at most; it gives up after ten million.
SLOW_TEXT = "a" * 4000 + "!b"


@dataclass(frozen=True)
class Wait:
    """
    A command that waits for ever.

    :param what: what it waits for
    :param arguments: makes the files in an empty folder and returns the arguments of ``nerd-tag``
    :param is_slow: whether only the long tests run it
    :param feed: what its standard input has before it waits
    :param command: ``tag``, ``view`` or ``convert``
    """

    what: str
    arguments: Callable[[Path], list[object]]
    is_slow: bool = False
    feed: bytes = b""
    command: str = "tag"


@dataclass(frozen=True)
class Ending:
    """
    How a process ended after a signal.

    :param seconds: from the signal to its end
    :param code: exit code; below 0 the signal that killed it
    :param message: what it printed
    """

    seconds: float
    code: int
    message: str


def rows(folder: Path, text: str = "Anna Bell lives in Paris.") -> Path:
    """Write an input of one row."""
    path = folder / "in.jsonl"
    path.write_text(json.dumps({"text": text}) + "\n", "utf-8")
    return path


def bad_rows(folder: Path) -> Path:
    """Write a file with a row that is rejected: without one, there is no rejects file."""
    path = folder / "bad.jsonl"
    path.write_text('{"text": "Angela Merkel met Barack Obama in Berlin."}\nnot JSON\n')
    return path


def bomb(path: Path) -> Path:
    """Write a small compressed file of many gigabytes, all of them blank lines: rows never come."""
    pack = lzma.compress if path.suffix == ".xz" else bz2.compress
    # One of 64 MB, 500 times: both formats may have several members, so that little has to be compressed here.
    path.write_bytes(pack(b"\n" * (64 << 20)) * 500)
    return path


def pipe(path: Path) -> Path:
    """Make a pipe that nobody else opens."""
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    return path


def plain_model(folder: Path) -> Path:
    """Return a copy of a plain model folder."""
    return Path(shutil.copytree(PLAIN, folder / "model"))


def with_tokenizer(folder: Path, **parts: Any) -> Path:
    """Return a plain model folder whose tokenizer has other parts."""
    model = plain_model(folder)
    tokenizer = json.loads((model / "tokenizer.json").read_text("utf-8"))
    (model / "tokenizer.json").write_text(json.dumps({**tokenizer, **parts}), "utf-8")
    return model


def split_at(pattern: str) -> dict[str, Any]:
    """Return a pre-tokenizer that splits at a pattern."""
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


def replacing(old: str, new: str) -> dict[str, Any]:
    """Return a normalizer that replaces a text."""
    return {"type": "Replace", "pattern": {"String": old}, "content": new}


def slow_graph(path: Path, labels: int, products: int = 2000) -> None:
    """Write a graph that multiplies large matrices for many minutes."""
    import onnx
    from onnx import TensorProto, helper

    ids = helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "tokens"])
    scores = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", "tokens", labels])
    constants = [
        helper.make_tensor("two", TensorProto.INT64, [1], [2]),
        helper.make_tensor("all", TensorProto.INT64, [2], [3000, 3000]),
        helper.make_tensor("one", TensorProto.INT64, [2], [1, 1]),
        helper.make_tensor("bias", TensorProto.FLOAT, [labels], [0.0] * labels),
    ]

    nodes = [
        helper.make_node("Cast", ["input_ids"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["f"], ["mean"], keepdims=0),
        helper.make_node("Reshape", ["mean", "one"], ["seed"]),
        helper.make_node("Expand", ["seed", "all"], ["m0"]),
        *(
            node
            for i in range(products)
            for node in (
                helper.make_node("MatMul", [f"m{i}", "m0"], [f"p{i}"]),
                # Tanh keeps the numbers finite, however often the matrix is multiplied.
                helper.make_node("Tanh", [f"p{i}"], [f"m{i + 1}"]),
            )
        ),
        helper.make_node("ReduceMean", [f"m{products}"], ["last"], keepdims=0),
        helper.make_node("Add", ["f", "last"], ["sum"]),
        helper.make_node("Unsqueeze", ["sum", "two"], ["wide"]),
        helper.make_node("Add", ["wide", "bias"], ["logits"]),
    ]

    graph = helper.make_graph(nodes, "slow", [ids], [scores], constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


@contextmanager
def silent_server() -> Iterator[str]:
    """Accept connections and never answer; yield host and port."""
    connections: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def accept() -> None:
            with suppress(OSError):
                while True:
                    connections.append(server.accept()[0])

        threading.Thread(target=accept, daemon=True).start()
        yield f"127.0.0.1:{server.getsockname()[1]}"

        server.shutdown(socket.SHUT_RDWR)
    for connection in connections:
        connection.close()


def _slow_network(folder: Path) -> list[object]:
    model = plain_model(folder)
    slow_graph(model / "model.onnx", len(json.loads((model / "config.json").read_text("utf-8"))["id2label"]))
    return [rows(folder), folder / "o.jsonl", "--model", model]


def _slow_tokenizer(folder: Path) -> list[object]:
    return [rows(folder, SLOW_TEXT), folder / "o.jsonl", "--model", slow_tokenizer(folder)]


def slow_tokenizer(folder: Path) -> Path:
    """Return a plain model folder whose tokenizer takes minutes for :data:`SLOW_TEXT`, and no time for most texts."""
    return with_tokenizer(folder, normalizer=None, pre_tokenizer=split_at("a*a*b"))


SERVER = "SERVER"  # stands for the address of a silent server
WAITS = [
    Wait("input: a pipe without writer", lambda folder: [pipe(folder / "in"), folder / "o.jsonl", "--format", "jsonl"]),
    Wait(
        "input: a pipe without writer, Parquet",
        lambda folder: [pipe(folder / "in"), folder / "o.parquet", "--format", "parquet"],
        is_slow=True,
    ),
    Wait("input: standard input that does not end", lambda folder: ["-", folder / "o.jsonl", "--format", "jsonl"]),
    Wait(
        "input: standard input that never ends a line",
        lambda folder: ["-", folder / "o.jsonl", "--format", "jsonl"],
        is_slow=True,
        feed=b'{"text": "' + b"x" * (1 << 20),
    ),
    Wait(
        "input: xz, blank lines without end",
        lambda folder: [bomb(folder / "in.jsonl.xz"), folder / "o.jsonl"],
        is_slow=True,
    ),
    Wait(
        "input: bzip2, blank lines without end, before the types of columns are known",
        lambda folder: [bomb(folder / "in.jsonl.bz2"), folder / "o.parquet"],
        is_slow=True,
    ),
    Wait(
        "nerd-view: a pipe without writer",
        lambda folder: [pipe(folder / "in"), folder / "o.html", "--format", "jsonl"],
        is_slow=True,
        command="view",
    ),
    Wait(
        "nerd-convert: a pipe without writer",
        lambda folder: [pipe(folder / "in"), folder / "o.conll", "--format", "jsonl", "--to", "conll"],
        is_slow=True,
        command="convert",
    ),
    Wait(
        "output: a pipe without reader", lambda folder: [rows(folder), pipe(folder / "o"), "--output-format", "jsonl"]
    ),
    Wait(
        "rejects file: a pipe without reader",
        lambda folder: [bad_rows(folder), folder / "o.jsonl", "--on-error", "skip", "--rejects", pipe(folder / "r")],
        is_slow=True,
    ),
    Wait("input: a silent S3 server", lambda folder: ["s3://corpora/in.jsonl", folder / "o.jsonl"]),
    Wait("output: a silent S3 server", lambda folder: [rows(folder), "s3://corpora/o.jsonl"], is_slow=True),
    Wait("input: a silent web server", lambda folder: [f"http://{SERVER}/in.jsonl", folder / "o.jsonl"], is_slow=True),
    Wait(
        "model: a silent S3 server",
        lambda folder: [rows(folder), folder / "o.jsonl", "--model", "s3://corpora/m"],
        is_slow=True,
    ),
    Wait("a network that takes an hour", _slow_network),
    Wait("a tokenizer whose pattern takes minutes", _slow_tokenizer, is_slow=True),
]


def ending(wait: Wait, number: int, folder: Path) -> Ending:
    """Start a command that waits, send one signal, and return how it ended; it is killed after a minute."""
    with silent_server() as address:
        arguments = [str(argument).replace(SERVER, address) for argument in wait.arguments(folder)]

        environment = {**os.environ, **KEYS, "AWS_ENDPOINT_URL": f"http://{address}", "AWS_DEFAULT_REGION": "us-east-1"}
        # Caches of models from remote storage must not answer instead of the silent server.
        environment["XDG_CACHE_HOME"] = str(folder / "cache")
        with subprocess.Popen(
            [sys.executable, "-c", f"from nerd_onnx.cli.{wait.command} import main; main()", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,  # what waits in a buffer fails when the file is closed
            env=environment,
        ) as process:
            try:
                _feed(process, wait.feed)
                _wait_until_ready(process)

                time.sleep(_STUCK_S)
                if process.poll() is not None:
                    return Ending(0.0, process.returncode, _said(process))

                begin = time.monotonic()
                process.send_signal(number)
                process.wait(_END_S)
                return Ending(time.monotonic() - begin, process.returncode, _said(process))
            finally:
                process.kill()


def _feed(process: subprocess.Popen[bytes], content: bytes) -> None:
    """Write to standard input, which stays open, in a thread: the process reads it when it has started."""
    if process.stdin is not None and content:
        write = process.stdin.write

        def feed() -> None:
            with suppress(OSError):  # the process ends before it has read all
                write(content)

        threading.Thread(target=feed, daemon=True).start()


def _wait_until_ready(process: subprocess.Popen[bytes]) -> None:
    """Wait until the process has a handler for SIGTERM, or has ended."""
    end = time.monotonic() + _READY_S
    status = Path(f"/proc/{process.pid}/status")
    while process.poll() is None and time.monotonic() < end:
        caught = re.search(r"^SigCgt:\s*([0-9a-f]+)$", status.read_text(), re.MULTILINE)
        # SigCgt has one bit per signal that has a handler; bit 0 is signal 1.
        if caught and int(caught[1], 16) >> (signal.SIGTERM - 1) & 1:
            return
        time.sleep(0.05)


def _said(process: subprocess.Popen[bytes]) -> str:
    return (process.stderr.read() if process.stderr else b"").decode()


def main() -> None:
    """Print the table."""
    print("| what the program waits for | seconds to the end after SIGTERM | after SIGINT |\n|---|---|---|")
    for wait in WAITS:
        cells = []
        for number in SIGNALS:
            with tempfile.TemporaryDirectory() as folder:
                found = ending(wait, number, Path(folder))
            cells.append(f"{found.seconds:.1f}" if found.code == 128 + number else f"{found}")
        print(f"| {wait.what} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
