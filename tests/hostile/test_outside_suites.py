"""The runner of outside suites finds what is right and what is wrong, on small suites of the same kind."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tests.hostile.outside_suites import run


def test_small_suites(tmp_path: Path) -> None:
    suite = tmp_path / "json" / "test_parsing"
    suite.mkdir(parents=True)
    for name, value in {
        "y_array.json": b'[1, {"a": null}] ',
        "y_nested.json": b"[[[[]]]]",
        "y_lines.json": b"[\n1]",
        "n_trailing.json": b"[1,]",
        "n_deep.json": b"[" * 100_000,
        "n_bytes.json": b'["\xff"]',
        "i_huge.json": b"[1e9999]",
    }.items():
        (suite / name).write_bytes(value)
    (tmp_path / "blns.json").write_text(
        json.dumps(["", "undefined", "田中さん", "\u202e", "<script>", "👩‍👩‍👧", "\x00"])
    )
    pq.write_table(pa.table({"n": [1.5, float("nan")], "s": ["Paris", None]}), tmp_path / "good.parquet")
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 and no more")

    counts, wrong = run(tmp_path)
    assert wrong == []
    assert counts["tagged"] >= 4
    assert counts["refused"] >= 4
    assert counts["left out"] == 1
    assert sum(counts.values()) == 10

    # A valid value that is called invalid is a finding, and so is the opposite.
    (suite / "n_array.json").write_bytes(b"[]")
    (suite / "y_trailing.json").write_bytes(b"[1,]")
    assert [line.partition(": ")[2] for line in run(tmp_path)[1]] == [
        *("tagged, expected refused", "refused, expected tagged")
    ]
