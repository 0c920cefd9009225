"""Nothing lets the program wait for ever: what cannot be bounded is refused, and a signal ends every other wait."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from nerd_onnx.errors import ModelError, OptionError, StoreError
from nerd_onnx.inference.encoding import EncodedBatch, TextEncoder
from nerd_onnx.inference.session import Session
from nerd_onnx.options import MAX_THREADS, TagOptions
from nerd_onnx.storage.remote import find, open_object
from nerd_onnx.tagger import Tagger
from tests.conftest import ROOT
from tests.hostile.test_hostile import external_model
from tests.hostile.waits import (
    PLAIN,
    SIGNALS,
    SLOW_TEXT,
    WAITS,
    Wait,
    ending,
    pipe,
    plain_model,
    replacing,
    rows,
    silent_server,
    slow_tokenizer,
    split_at,
    with_tokenizer,
)
from tests.support.failures import fails, failure_of
from tests.support.processes import command, start_and_stop, work_folder

LIMIT_S = 20.0  # two seconds on a machine that has time for the test


def cases() -> list[Any]:
    """Return every wait with every signal; SIGINT and the rarer waits are slow."""
    return [
        pytest.param(wait, number, marks=[pytest.mark.slow] if wait.is_slow or number != signal.SIGTERM else [])
        for wait in WAITS
        for number in SIGNALS
    ]


@pytest.mark.parametrize(("wait", "number"), cases(), ids=lambda value: getattr(value, "what", str(value)))
def test_a_signal_ends_the_wait(wait: Wait, number: int, tmp_path: Path) -> None:
    found = ending(wait, number, tmp_path)
    assert found.code == 128 + number, found
    assert found.seconds < LIMIT_S
    assert "Traceback" not in found.message
    assert len(found.message.strip().splitlines()) == 1


@pytest.mark.slow
def test_what_was_stored_before_a_step_that_does_not_end_is_safe(tmp_path: Path) -> None:
    """The process ends in the middle of a call of the tokenizer, as if it were killed."""
    lines = [{"text": f"Anna Bell number {i}"} for i in range(40)] + [{"text": SLOW_TEXT}]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    arguments = [tmp_path / "in.jsonl", tmp_path / "o.jsonl", "--model", slow_tokenizer(tmp_path), "--chunk-rows", 10]
    with start_and_stop(2, *arguments) as process:
        process.send_signal(signal.SIGCONT)
        time.sleep(2)  # then it is in the call, which takes a minute
        process.send_signal(signal.SIGTERM)
        said = process.communicate(timeout=60)[1].decode()
    assert process.returncode == 128 + signal.SIGTERM
    assert len([line for line in said.splitlines() if "error: " in line]) == 1
    assert not (tmp_path / "o.jsonl").exists()

    done = subprocess.run(command(*arguments, "--resume", "--dry-run", "--json"), capture_output=True, check=True)
    assert json.loads(done.stderr)["safe_rows"] >= 20


@pytest.mark.slow
def test_a_signal_leaves_nothing_of_a_converted_folder(tmp_path: Path) -> None:
    arguments = ["-", tmp_path / "o", "--format", "jsonl", "--to", "brat"]
    wait = Wait("", lambda _: [*arguments], feed=b'{"text": "a", "entities": []}\n' * 3000, command="convert")
    found = ending(wait, signal.SIGTERM, tmp_path)
    assert found.code == 128 + signal.SIGTERM
    assert len(found.message.strip().splitlines()) == 1  # click ends the line of ^C
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_pipe_is_read_like_a_file(tmp_path: Path) -> None:
    """As shells make one of ``<(zcat in.jsonl.gz)``."""
    expected = subprocess.run(command(rows(tmp_path), "-"), capture_output=True, check=True).stdout
    script = f"{' '.join(map(str, command()))} <(cat {tmp_path / 'in.jsonl'}) - --format jsonl"
    assert subprocess.run(["bash", "-c", script], capture_output=True, check=True).stdout == expected  # noqa: S607


@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json", "config.json", "nerd.json"])
def test_a_pipe_in_a_model_folder_is_refused(tmp_path: Path, name: str) -> None:
    model = plain_model(tmp_path)
    pipe(model / name)
    reason = "no-graph" if name == "model.onnx" else "not-regular-file"
    with pytest.raises(ModelError) as caught:
        Tagger.load(model)
    assert caught.value.reason == reason


@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json"])
def test_a_pipe_in_a_bundle_is_refused(tiny_bundle: Path, tmp_path: Path, name: str) -> None:
    model = tmp_path / "model"
    model.mkdir()
    for path in tiny_bundle.iterdir():
        (model / path.name).write_bytes(path.read_bytes())
    pipe(model / name)
    with fails(ModelError, "not-regular-file", file=model / name):
        Tagger.load(model)


@pytest.mark.parametrize("name", ["lock", "journal.jsonl"])
def test_a_pipe_in_a_work_folder_is_refused(tmp_path: Path, name: str) -> None:
    output = tmp_path / "o.jsonl"
    work_folder(output).mkdir()
    pipe(work_folder(output) / name)
    done = subprocess.run(command(rows(tmp_path), output, "--resume"), capture_output=True, check=False, timeout=60)
    assert done.returncode == 1
    assert done.stderr.count(b"\n") == 1


def test_weights_in_a_pipe_are_refused(tmp_path: Path) -> None:
    external_model(tmp_path / "model.onnx", "weights.bin")
    pipe(tmp_path / "weights.bin")
    with fails(ModelError, "not-regular-file", file=tmp_path / "weights.bin"):
        Session(tmp_path / "model.onnx", optimized=False)


def test_weights_that_are_cut_while_they_are_used(tmp_path: Path) -> None:
    """Mapped, they would end the process; so this is a process of its own."""
    external_model(tmp_path / "model.onnx", "weights.bin")
    (tmp_path / "weights.bin").write_bytes(np.arange(4, dtype=np.float32).tobytes())
    program = f"""
import os
from pathlib import Path
import numpy as np
from nerd_onnx.inference.encoding import EncodedBatch
from nerd_onnx.inference.session import Session
session = Session(Path({str(tmp_path / "model.onnx")!r}), optimized=False)
os.truncate({str(tmp_path / "weights.bin")!r}, 0)
print(session.logits(EncodedBatch(np.array([[7, 8]]))).tolist())
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, check=True, text=True)
    assert json.loads(done.stdout) == [[[7.0, 8.0, 9.0, 10.0], [8.0, 9.0, 10.0, 11.0]]]


def looping_graph(path: Path, *, inside: bool) -> None:
    """Write a graph with a loop of 2**62 turns, at its top or inside of a branch."""
    value = helper.make_tensor_value_info
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Add", ["x", "x"], ["y"])],
        "body",
        [value("i", TensorProto.INT64, []), value("go", TensorProto.BOOL, []), value("x", TensorProto.FLOAT, None)],
        [value("on", TensorProto.BOOL, []), value("y", TensorProto.FLOAT, None)],
    )
    loop = helper.make_node("Loop", ["turns", "yes", "wide"], ["scores"], body=body)
    last = [loop]
    if inside:
        outer = helper.make_graph([loop], "branch", [], [value("scores", TensorProto.FLOAT, None)])
        last = [helper.make_node("If", ["yes"], ["scores"], then_branch=outer, else_branch=outer)]
    nodes = [
        helper.make_node("Cast", ["input_ids"], ["f"], to=1),
        helper.make_node("Unsqueeze", ["f", "two"], ["wide"]),
        *last,
        helper.make_node("Identity", ["scores"], ["logits"]),
    ]
    constants = [
        helper.make_tensor("two", TensorProto.INT64, [1], [2]),
        helper.make_tensor("turns", TensorProto.INT64, [], [2**62]),
        helper.make_tensor("yes", TensorProto.BOOL, [], [True]),
    ]
    ids = value("input_ids", TensorProto.INT64, ["batch", "tokens"])
    graph = helper.make_graph(nodes, "g", [ids], [value("logits", TensorProto.FLOAT, ["b", "t", 1])], constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


@pytest.mark.parametrize("inside", [False, True])
def test_a_graph_that_may_never_end_is_refused(tmp_path: Path, inside: bool) -> None:  # noqa: FBT001
    looping_graph(tmp_path / "model.onnx", inside=inside)
    with fails(ModelError, "has-loop", file=tmp_path / "model.onnx"):
        Session(tmp_path / "model.onnx", optimized=False)


BOMBS = {
    "a thousandfold, three times": {"type": "Sequence", "normalizers": [replacing("a", "a" * 1000)] * 3},
    "nothing, between all characters": {
        "type": "Sequence",
        "normalizers": [{"type": "Replace", "pattern": {"Regex": "x*"}, "content": "yy"}] * 20,
    },
    "bytes of bytes": {"type": "Sequence", "normalizers": [{"type": "ByteLevel"}] * 30},
    "in front of every text": {"type": "Prepend", "prepend": "a" * 100_000},
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_tokenizer_that_multiplies_texts_is_refused(tmp_path: Path, bomb: str) -> None:
    model = with_tokenizer(tmp_path, normalizer=BOMBS[bomb])
    with fails(ModelError, "growing-tokenizer", file=model / "tokenizer.json"):
        TextEncoder(model / "tokenizer.json")


@pytest.mark.slow
def test_a_tokenizer_that_may_grow_is_used_in_small_calls(tmp_path: Path) -> None:
    """Its limit is far above what known tokenizers do, and the tokens are the same however texts are grouped."""
    model = with_tokenizer(tmp_path, normalizer={"type": "Sequence", "normalizers": [replacing("q", "a b " * 16)]})
    encoder = TextEncoder(model / "tokenizer.json")
    texts = ["Anna q " * 3000, "", "q", "Berlin"]
    together, alone = encoder.encode(texts), [encoder.encode([text]) for text in texts]
    assert together.ids.tolist() == [token for one in alone for token in one.ids.tolist()]
    assert together.token_end.tolist() == [end for one in alone for end in one.token_end.tolist()]


@pytest.mark.parametrize("options", [[], pytest.param(["--on-error", "skip", "--rejects"], marks=pytest.mark.slow)])
def test_a_pattern_that_gives_up_is_one_line(tmp_path: Path, options: list[str]) -> None:
    model = with_tokenizer(tmp_path, normalizer=None, pre_tokenizer=split_at("(a+)+$"))
    lines = [{"text": "a b"}, *({"text": "a" * 40 + "!"} for _ in range(10))]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    rejects = [str(tmp_path / "r.jsonl")] if options else []
    done = subprocess.run(
        command(tmp_path / "in.jsonl", tmp_path / "o.jsonl", "--model", model, "--json", *options, *rejects),
        capture_output=True,
        check=False,
        env={**os.environ, "RUST_BACKTRACE": "1"},
    )
    assert done.stderr.count(b"\n") == 1
    found = json.loads(done.stderr)
    if options:
        assert (done.returncode, found["rejected"]) == (3, 10)
    else:
        assert (done.returncode, found["reason"]) == (1, "tokenizer-fails")


@pytest.mark.parametrize("threads", [MAX_THREADS + 1, 10**6, 10**30])
def test_more_threads_than_any_machine_has(threads: int) -> None:
    with fails(OptionError, "too-many-threads", option="threads", found=threads, maximum=MAX_THREADS):
        TagOptions(threads=threads)


@pytest.mark.parametrize("ask", [find, open_object])
def test_a_silent_server_is_given_up(ask: Callable[[str], object], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NERD_STORE_TIMEOUT", "0.5")
    with silent_server() as address:
        uri = f"http://{address}/in.parquet?key=secret"
        with fails(StoreError, "no-answer", file=f"http://{address}/in.parquet") as caught:
            ask(uri)
    assert "secret" not in str(caught.value)


def test_a_run_at_a_silent_server_ends(tmp_path: Path) -> None:
    """Also at its end, where libraries wait for their threads."""
    with silent_server() as address:
        done = subprocess.run(
            command(f"s3://corpora/in.jsonl?endpoint_override=http://{address}&region=eu", tmp_path / "o", "--json"),
            env={**os.environ, "NERD_STORE_TIMEOUT": "1", "AWS_EC2_METADATA_DISABLED": "true"},
            capture_output=True,
            check=False,
            timeout=60,
        )
    assert done.returncode == 1
    assert failure_of(done.stderr.decode())["reason"] == "no-answer"


@pytest.mark.parametrize("text", ["0", "-1", "soon", "nan", "inf"])
def test_a_time_limit_is_a_number_of_seconds(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NERD_STORE_TIMEOUT", text)
    with fails(OptionError, "bad-value", option="NERD_STORE_TIMEOUT"):
        find("http://127.0.0.1:9/in.parquet")


def test_a_stopped_network_is_used_again() -> None:
    session = Session(PLAIN / "model.onnx", optimized=False)
    batch = EncodedBatch(np.array([[2, 5, 3]]))
    before = session.logits(batch)
    session.stop()
    assert session.logits(batch).tolist() == before.tolist()
