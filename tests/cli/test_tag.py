"""nerd-tag as a user meets it: every mistake is one line, an exit code and no output; what is no mistake works."""

from __future__ import annotations

import gzip
import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nerd_onnx.cli.tag import main
from nerd_onnx.machine.cpu import integer_kernels
from nerd_onnx.terminal import printable
from tests.conftest import SHARED
from tests.support.commands import Run, runner
from tests.support.failures import failure_of
from tests.support.models import SAMPLE, sample_texts


@pytest.fixture
def nerd_tag(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """Return a function that runs the command with the tiny model, and gives exit code, stdout and stderr."""
    run = runner("nerd-tag", main, monkeypatch, capfd)
    return lambda *arguments: run(*arguments, *(() if "--model" in arguments else ("--model", tiny_bundle)))


def process(bundle: Path, *arguments: object, **options: Any) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "nerd_onnx.cli", *map(str, arguments), "--model", str(bundle)]
    return subprocess.run(command, capture_output=True, check=False, **options)


def parquet(path: Path, **columns: Any) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


def test_parquet_keeps_rows_columns_types_and_metadata(nerd_tag: Run, tmp_path: Path) -> None:
    texts = [*sample_texts()[:5], None, ""]
    table = pa.table(
        {
            "id": pa.array(range(7), pa.int16()),
            "text": pa.array(texts, pa.large_string()),
            "tags": pa.array([["a"]] * 7, pa.list_(pa.dictionary(pa.int32(), pa.string()).value_type)),
        }
    ).replace_schema_metadata({"owner": "us"})
    pq.write_table(table, tmp_path / "in.parquet", row_group_size=3)
    code, out, err = nerd_tag(tmp_path / "in.parquet", tmp_path / "out.parquet")
    assert (code, out) == (0, "")
    assert err.startswith("7 rows (1 null), ")
    assert "rows/s" in err
    assert "peak memory" in err
    tagged = pq.read_table(tmp_path / "out.parquet")
    assert tagged.drop(["entities"]).cast(table.schema).equals(table)
    assert tagged.schema.metadata[b"owner"] == b"us"
    assert tagged.schema.metadata[b"nerd_onnx.entities.offset_unit"] == b"codepoint"
    assert pq.ParquetFile(tmp_path / "out.parquet").num_row_groups == 3
    rows = tagged["entities"].to_pylist()
    assert rows[5] is None
    assert rows[6] == []
    for text, entities in zip(texts[:5], rows[:5], strict=True):
        assert all((text or "")[e["start"] : e["end"]] == e["text"] for e in entities)


def test_json_lines_keep_every_other_byte(nerd_tag: Run, tmp_path: Path) -> None:
    lines = [
        b'{"text": "Paris", "n": 1.000, "deep": {"k": [1, 2]}}',
        b'{"n": 12345678901234567890123, "text":null}',
        b'  {"text": "\\ud800 lone \\ud83d\\ude42", "text2": "\\u0041"}  ',
        b'{"other": 1}',
    ]
    (tmp_path / "in.jsonl").write_bytes(b"\r\n".join(lines))
    code, _, _ = nerd_tag(tmp_path / "in.jsonl", tmp_path / "out.jsonl", "--quiet")
    assert code == 0
    found = (tmp_path / "out.jsonl").read_bytes().splitlines()
    assert len(found) == 4
    for before, after in zip(lines, found, strict=True):
        assert after.strip().startswith(before.strip()[:-1])
        assert "entities" in json.loads(after)
    assert [json.loads(line)["entities"] is None for line in found] == [False, True, False, True]


@pytest.mark.parametrize("unit", ["codepoint", "utf8", "utf16"])
def test_offset_units_slice_back(nerd_tag: Run, tmp_path: Path, unit: str) -> None:
    texts = [f"🙂 é 東京 {text}" for text in sample_texts()[:8]]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in texts), "utf-8")
    assert nerd_tag(tmp_path / "in.jsonl", tmp_path / "out.parquet", "--offset-unit", unit)[0] == 0
    encoding, width = {"codepoint": ("utf-32-le", 4), "utf8": ("utf-8", 1), "utf16": ("utf-16-le", 2)}[unit]
    rows = pq.read_table(tmp_path / "out.parquet")["entities"].to_pylist()
    assert sum(map(len, rows)) > 5
    for text, entities in zip(texts, rows, strict=True):
        coded = text.encode(encoding)
        assert all(coded[e["start"] * width : e["end"] * width].decode(encoding) == e["text"] for e in entities)


def test_formats_convert_both_ways(nerd_tag: Run, tmp_path: Path) -> None:
    assert nerd_tag(SAMPLE, tmp_path / "a.parquet")[0] == 0
    assert nerd_tag(tmp_path / "a.parquet", tmp_path / "b.jsonl.gz", "--column", "again")[0] == 0
    with gzip.open(tmp_path / "b.jsonl.gz", "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    originals = [json.loads(line) for line in SAMPLE.read_text("utf-8").splitlines()]
    assert [{k: r[k] for k in ("id", "source", "text")} for r in rows] == originals
    assert all(row["entities"] == row["again"] for row in rows)


def test_standard_streams(nerd_tag: Run, tiny_bundle: Path, tmp_path: Path) -> None:
    code, _, err = nerd_tag(SAMPLE, tmp_path / "out.jsonl")
    assert code == 0, err
    piped = process(tiny_bundle, "-", "-", "--threads", 1, "--batch-tokens", 99, input=SAMPLE.read_bytes())
    assert piped.returncode == 0
    assert piped.stdout == (tmp_path / "out.jsonl").read_bytes()


def test_a_reader_that_goes_away_ends_it_quietly(tiny_bundle: Path) -> None:
    command = f"'{sys.executable}' -m nerd_onnx.cli '{SAMPLE}' - --quiet --model '{tiny_bundle}' | head -1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, check=False)  # noqa: S607
    assert done.stdout.count(b"\n") == 1
    assert done.stderr == b""


def test_the_summary_as_json(nerd_tag: Run, tmp_path: Path) -> None:
    code, _, err = nerd_tag(SAMPLE, tmp_path / "o.parquet", "--json", "--limit", 7)
    summary = json.loads(err)
    assert code == 0
    assert summary["status"] == "done"
    assert summary["rows"] == 7 == pq.read_metadata(tmp_path / "o.parquet").num_rows
    rows = pq.read_table(tmp_path / "o.parquet")["entities"].to_pylist()
    assert summary["entities"] == sum(map(len, rows))
    assert summary["tokens"] > 100
    assert summary["peak_rss_bytes"] > 1e7
    code, _, err = nerd_tag(SAMPLE, tmp_path / "o.parquet", "--json")
    assert code == 1
    assert json.loads(err)["error"] == "output"


def test_dry_run_tells_the_plan_and_writes_nothing(nerd_tag: Run, tmp_path: Path) -> None:
    source = parquet(tmp_path / "in.parquet", body=["Paris"], id=[1])
    code, _, err = nerd_tag(source, tmp_path / "o.parquet", "--dry-run", "--json", "--text-column", "body")
    facts = json.loads(err)
    assert (code, facts["rows"], facts["columns"]) == (0, 1, ["body", "id"])
    assert facts["thread_plan"].startswith(f"{facts['threads']}, the")
    assert facts["kernels"] == integer_kernels()
    assert facts["quantization"] == "per-token int8"
    assert not (tmp_path / "o.parquet").exists()
    said = nerd_tag(source, tmp_path / "o.parquet", "--dry-run", "--text-column", "body")[2]
    assert "threads:" in said
    assert "\nprecision: none\n" in said
    assert "\nlimit: none\n" in said
    assert "unknown" not in said
    assert "person-actor" in facts["labels_of_the_model"]
    assert "rows: unknown\n" in nerd_tag(SAMPLE, tmp_path / "o.jsonl", "--dry-run")[2]


def test_an_existing_column_is_kept_unless_told(nerd_tag: Run, tmp_path: Path) -> None:
    source = parquet(tmp_path / "in.parquet", entities=[1, 2], text=["Paris", "x"])
    code, _, err = nerd_tag(source, tmp_path / "o.parquet", "--json")
    failure = failure_of(err)
    assert (code, failure["reason"], failure["column"]) == (1, "column-exists", "entities")
    assert not (tmp_path / "o.parquet").exists()
    assert nerd_tag(source, tmp_path / "o.parquet", "--overwrite-column")[0] == 0
    assert pq.read_schema(tmp_path / "o.parquet").names == ["entities", "text"]


def test_a_column_without_any_value_is_all_null(nerd_tag: Run, tmp_path: Path) -> None:
    source = parquet(tmp_path / "in.parquet", text=pa.nulls(3))
    assert nerd_tag(source, tmp_path / "o.parquet")[0] == 0
    tagged = pq.read_table(tmp_path / "o.parquet")
    assert tagged["entities"].to_pylist() == [None] * 3
    assert tagged.drop(["entities"]).equals(pq.read_table(source))


def test_zero_rows_and_zero_row_groups(nerd_tag: Run, tmp_path: Path) -> None:
    empty = pa.table({"text": pa.array([], pa.string())})
    pq.write_table(empty, tmp_path / "a.parquet")
    pq.ParquetWriter(tmp_path / "b.parquet", empty.schema).close()
    for name in ("a", "b"):
        assert nerd_tag(tmp_path / f"{name}.parquet", tmp_path / f"{name}.out.parquet")[0] == 0
        assert pq.read_table(tmp_path / f"{name}.out.parquet").num_rows == 0


@pytest.mark.parametrize("name", ["in.jsonl", "in.jsonl.gz"])
def test_a_file_of_0_bytes_has_no_rows(nerd_tag: Run, tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    code, _, err = nerd_tag(tmp_path / name, tmp_path / "o.parquet")
    assert (code, err.startswith("0 rows, 0 entities")) == (0, True)
    tagged = pq.read_table(tmp_path / "o.parquet")
    assert (tagged.num_rows, tagged.column_names) == (0, ["text", "entities"])
    assert nerd_tag(tmp_path / name, tmp_path / "o.jsonl")[0] == 0
    assert (tmp_path / "o.jsonl").read_bytes() == b""


def bad_inputs(folder: Path) -> dict[str, tuple[Path, list[str], str]]:
    """Make every bad input: file, further options, and what the message must say."""
    good = parquet(folder / "good.parquet", text=["Paris"] * 9, n=[1] * 9)
    (folder / "none").mkdir()
    cut = folder / "cut.parquet"
    cut.write_bytes(good.read_bytes()[:-20])
    files = {
        "empty": b"",
        "malformed.jsonl": b'{"text": "a"}\n{"text": \n',
        "utf8.jsonl": b'{"text": "a"}\n\n{"text": "\xff"}\n',
        "array.jsonl": b"[1]\n",
        "number.jsonl": b'{"text": "a"}\n{"text": 7}\n',
        "nofield.jsonl": b'{"body": "a"}\n',
        "cut.jsonl.gz": gzip.compress(b'{"text": "a"}\n' * 1000)[:-9],
        "noise.bin": b"\x00\x01\x02",
    }
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return {
        "missing": (folder / "gone.parquet", [], "missing-file"),
        "empty directory": (folder / "none", [], "no-files"),
        "empty": (folder / "empty", ["--format", "parquet"], "empty-file"),
        "truncated parquet": (cut, [], "not-parquet"),
        "no such column": (good, ["--text-column", "body"], "column-missing"),
        "column of another type": (good, ["--text-column", "n"], "not-text"),
        "malformed line": (folder / "malformed.jsonl", [], "not-json"),
        "invalid UTF-8": (folder / "utf8.jsonl", [], "not-utf8"),
        "no object": (folder / "array.jsonl", [], "not-object"),
        "text of another type": (folder / "number.jsonl", [], "not-text"),
        "no such field": (folder / "nofield.jsonl", [], "column-missing"),
        "truncated gzip": (folder / "cut.jsonl.gz", [], "damaged-compression"),
        "unknown format": (folder / "noise.bin", [], "unknown-format"),
        "unknown label": (good, ["--labels", "planet"], "unknown-label"),
        "no label": (good, ["--labels", " , "], "no-label"),
        "new column is the text": (good, ["--column", "text", "--overwrite-column"], "column-is-text-column"),
        "missing model": (good, ["--model", str(folder / "nomodel")], "missing-model"),
    }


CASES = (
    "missing",
    "empty directory",
    "empty",
    "truncated parquet",
    "no such column",
    "column of another type",
    "malformed line",
    "invalid UTF-8",
    "no object",
    "text of another type",
    "no such field",
    "truncated gzip",
    "unknown format",
    "unknown label",
    "missing model",
    "no label",
    "new column is the text",
)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("suffix", [".parquet", ".jsonl"])
def test_each_mistake_is_one_line_and_leaves_nothing(nerd_tag: Run, tmp_path: Path, case: str, suffix: str) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    source, options, reason = bad_inputs(tmp_path / "in")[case]
    arguments = [source, tmp_path / "out" / f"o{suffix}", *options]
    code, out, err = nerd_tag(*arguments)
    assert code in (1, 2)
    assert out == ""
    assert err.startswith("nerd-tag: error: ")
    assert err.count("\n") == 1
    failure = failure_of(nerd_tag(*arguments, "--json")[2])
    assert (failure["reason"], err) == (reason, f"nerd-tag: error: {failure['message']}\n")
    assert list((tmp_path / "out").iterdir()) == []


def test_output_mistakes(nerd_tag: Run, tmp_path: Path) -> None:
    source = parquet(tmp_path / "in.parquet", text=["Paris"])
    before = source.read_bytes()
    for target, reason in (
        (source, "output-is-input"),
        (tmp_path, "output-contains-input"),
        (tmp_path / "none" / "o.parquet", "missing-folder"),
    ):
        code, _, err = nerd_tag(source, target, "--overwrite", "--json")
        failure = failure_of(err)
        assert (code, failure["reason"], failure["file"]) == (1, reason, str(target))
    (tmp_path / "old.parquet").write_bytes(b"precious")
    code, _, err = nerd_tag(source, tmp_path / "old.parquet")
    assert (code, "--overwrite" in err) == (1, True)
    assert (tmp_path / "old.parquet").read_bytes() == b"precious"
    assert nerd_tag(source, tmp_path / "old.parquet", "--overwrite")[0] == 0
    assert source.read_bytes() == before


@pytest.mark.slow
@pytest.mark.parametrize("name", ["o.parquet", "o.jsonl", "o.csv"])
def test_a_full_disk_leaves_nothing(tiny_bundle: Path, tmp_path: Path, name: str) -> None:
    def small_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    done = process(tiny_bundle, SAMPLE, tmp_path / name, preexec_fn=small_files)
    assert done.returncode == 1
    assert done.stderr.count(b"\n") == 1
    assert name.encode() in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_an_altered_model_is_refused(nerd_tag: Run, tiny_bundle: Path, tmp_path: Path) -> None:
    import shutil

    copy = Path(shutil.copytree(tiny_bundle, tmp_path / "model"))
    with (copy / "model.onnx").open("ab") as file:
        file.write(b"\x00")
    code, _, err = nerd_tag(SAMPLE, tmp_path / "o.jsonl", "--model", copy, "--json")
    assert (code, failure_of(err)["reason"]) == (1, "altered")
    assert not (tmp_path / "o.jsonl").exists()


def test_file_names_cannot_steer_the_terminal(nerd_tag: Run, tmp_path: Path) -> None:
    code, _, err = nerd_tag(tmp_path / "evil\x1b[2J.parquet", tmp_path / "o.parquet")
    assert code == 1
    assert "\x1b" not in err
    assert "evil\\x1b[2J" in err
    assert printable("a\x9bb\x7f") == "a\\x9bb\\x7f"


def test_help_and_version(nerd_tag: Run) -> None:
    code, out, _ = nerd_tag("--help")
    assert code == 0
    assert "\n    nerd-tag articles.parquet tagged.parquet\n" in out
    assert nerd_tag("--version")[1].startswith("nerd-tag 0.")
    assert "onnxruntime" in nerd_tag("--version")[1]
    assert nerd_tag()[0] == 2


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("wikipedia_sentences.parquet", 300),
        ("novels_paragraphs.parquet", 150),
        pytest.param("novels_documents.parquet", 1, marks=pytest.mark.slow),
        ("speeches_and_masc.jsonl.gz", 150),
    ],
)
def test_slices_of_real_corpora(nerd_tag: Run, tmp_path: Path, name: str, rows: int) -> None:
    source = SHARED / "corpora" / name
    if not source.exists():  # a stand-in of the same shape, made of the texts that ship with the program
        source, rows = tmp_path / name, 20
        texts = ["\n\n".join(sample_texts())] if "documents" in name else sample_texts()[:20]
        if name.endswith(".gz"):
            source.write_bytes(
                gzip.compress("".join(json.dumps({"id": i, "text": t}) + "\n" for i, t in enumerate(texts)).encode())
            )
        else:
            parquet(source, id=list(range(len(texts))), text=texts)
        rows = len(texts)
    assert nerd_tag(source, tmp_path / "o.parquet", "--limit", rows)[0] == 0
    tagged = pq.read_table(tmp_path / "o.parquet")
    assert tagged.num_rows == rows
    if name.endswith(".gz"):
        with gzip.open(source, "rt", encoding="utf-8") as lines:
            original = [json.loads(line) for line, _ in zip(lines, range(rows), strict=False)]
        assert tagged.drop(["entities"]).to_pylist() == original
    else:
        assert tagged.drop(["entities"]).equals(pq.read_table(source).slice(0, rows))
    checked = 0
    for text, entities in zip(tagged["text"].to_pylist(), tagged["entities"].to_pylist(), strict=True):
        for entity in entities:
            assert text[entity["start"] : entity["end"]] == entity["text"]
            checked += 1
    assert checked > 20


def test_mistakes_as_json(nerd_tag: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    for arguments, expected in (
        (["--nonsense"], {"error": "usage", "reason": "no-such-option", "option": "--nonsense"}),
        ([gone, "o", "--threads", "0"], {"error": "usage", "reason": "bad-parameter", "option": "--threads"}),
        ([], {"error": "usage", "reason": "usage-error"}),
        ([gone, tmp_path / "o.parquet"], {"error": "input", "reason": "missing-file", "file": str(gone)}),
    ):
        code, _, err = nerd_tag(*arguments, "--json")
        failure = failure_of(err)
        assert code > 0
        assert failure == {**failure, **expected}
        assert failure.keys() == {"status", "message", *expected}
    monkeypatch.setenv("NERD_JSON", "0")
    monkeypatch.setenv("NERD_VERSION", "1")
    assert nerd_tag(tmp_path / "gone", tmp_path / "o.parquet")[2].startswith("nerd-tag: error: ")


def test_a_dry_run_finds_the_taken_column(nerd_tag: Run, tmp_path: Path) -> None:
    source = parquet(tmp_path / "in.parquet", entities=[1], text=["Paris"])
    code, _, err = nerd_tag(source, tmp_path / "o.parquet", "--dry-run", "--json")
    assert (code, failure_of(err)["reason"]) == (1, "column-exists")
    assert nerd_tag(source, tmp_path / "o.csv")[0] == 1


@pytest.mark.slow
def test_peak_memory_is_this_process_own(tiny_bundle: Path, tmp_path: Path) -> None:
    ballast = bytearray(400_000_000)
    for page in range(0, len(ballast), 4096):
        ballast[page] = 1
    done = process(tiny_bundle, SAMPLE, tmp_path / "o.jsonl", "--limit", 1, "--json")
    assert json.loads(done.stderr)["peak_rss_bytes"] < 350_000_000


def test_environment_variables(nerd_tag: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NERD_COLUMN", "names")
    monkeypatch.setenv("NERD_JSON", "1")
    code, _, err = nerd_tag(SAMPLE, tmp_path / "o.parquet", "--limit", 1)
    assert (code, json.loads(err)["rows"]) == (0, 1)
    assert "names" in pq.read_schema(tmp_path / "o.parquet").names
    assert os.environ["NERD_JSON"] == "1"


def test_a_column_name_with_a_line_break_stays_in_the_line(nerd_tag: Run, tmp_path: Path) -> None:
    pq.write_table(pa.table({"t\next": ["Paris"]}), tmp_path / "in.parquet")
    code, _, err = nerd_tag(tmp_path / "in.parquet", tmp_path / "o.parquet")
    assert (code, err.count("\n")) == (1, 1)
    assert r"t\next" in err
