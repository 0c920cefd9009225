"""What ``nerd-tag`` prints for people: one text, a plan, Ctrl-C, and files in folders that are not tagged."""

from __future__ import annotations

import json
import re
import signal
import time
from pathlib import Path

import pytest

from tests.cli.test_progress import one_long_text
from tests.hostile.test_waits import LIMIT_S
from tests.support.commands import Run
from tests.support.failures import failure_of
from tests.support.marks import slow_but
from tests.support.models import SAMPLE
from tests.support.terminal import Terminal

PLAIN = Path(__file__).parents[1] / "data" / "models" / "plain"
TEXT = "Angela Merkel met Barack Obama in Berlin."


def test_one_text(nerd_tag: Run) -> None:
    code, out, err = nerd_tag("--text", TEXT)
    row = json.loads(out)
    assert (code, err) == (0, "")
    assert list(row) == ["text", "entities"]
    assert [TEXT[found["start"] : found["end"]] for found in row["entities"]] == [
        *("Angela Merkel", "Barack Obama", "Berlin")
    ]
    assert nerd_tag("--text", TEXT, "--output-format", "text", "--labels", "loc") == (
        *(0, TEXT.replace("Berlin", "Berlin [location]") + "\n\n", ""),
    )
    assert json.loads(nerd_tag("--text", "", "--text-column", "body")[1]) == {"body": "", "entities": []}
    assert json.loads(nerd_tag("--text", "\udcff")[1])["entities"] == []  # a byte that is not UTF-8

    code, _, err = nerd_tag("--text", TEXT, "in.jsonl", "--json")
    assert (code, failure_of(err)["reason"]) == (2, "usage-error")


@pytest.mark.slow
def test_one_text_on_a_terminal_is_coloured() -> None:
    run = Terminal("--text", TEXT)
    assert re.search(r"\x1b\[\d\dmAngela Merkel \[person\]\x1b\[0m met ", run.finish())
    run = Terminal("--text", TEXT, "--output-format", "jsonl")
    assert json.loads(run.finish())["text"] == TEXT


@pytest.mark.slow
def test_a_dry_run_says_first_what_people_ask_first(nerd_tag: Run, tmp_path: Path) -> None:
    code, _, err = nerd_tag(SAMPLE, tmp_path / "o.jsonl", "--dry-run")
    first = [line.split(":")[0] for line in err.splitlines()[:6]]
    assert (code, first) == (0, ["files", "rows", "time", "input", "output", "output format"])
    assert re.search(r"^time: (about \d+s|less than a second), estimated from the first texts$", err, re.MULTILINE)

    times = [
        json.loads(nerd_tag(SAMPLE, tmp_path / "o.jsonl", "--dry-run", "--json", "--limit", rows)[2])[
            "estimated_seconds"
        ]
        for rows in (0, 10_000)
    ]
    assert times[0] == 0 < times[1]


def test_files_of_a_folder_that_are_passed_over_are_named(nerd_tag: Run, tmp_path: Path) -> None:
    folder = tmp_path / "in" / "deep"
    folder.mkdir(parents=True)
    (folder / "a.jsonl").write_text('{"text": "Paris"}\n')
    for name in ("b.pdf", "c.PDF", "d.docx", "README", ".hidden", "_SUCCESS"):
        (folder / name).write_text("x")
    (folder / "linked").symlink_to(tmp_path)
    code, _, err = nerd_tag(tmp_path / "in", tmp_path / "out")
    assert (code, err.count("\n")) == (0, 1)
    assert err.endswith("; 4 files not tagged: .docx, .pdf, no suffix; 1 linked folder not tagged\n")
    facts = json.loads(nerd_tag(tmp_path / "in", tmp_path / "new", "--dry-run", "--json")[2])
    assert facts["passed_over"] == {".docx": 1, ".pdf": 2, "linked folders": 1, "no suffix": 1}


def test_a_data_set_of_the_hub_gets_the_hint(nerd_tag: Run, tmp_path: Path) -> None:
    said = failure_of(nerd_tag("DFKI-SLT/few-nerd", tmp_path / "o.jsonl", "--json")[2])
    assert said["reason"] == "missing-file"
    assert "hf://datasets/DFKI-SLT/few-nerd" in str(said["message"])


@pytest.mark.parametrize("rows", slow_but([200], [1, 200]))
def test_ctrl_c_is_acknowledged_and_acts(tmp_path: Path, rows: int) -> None:
    source = one_long_text(tmp_path / "in.jsonl", 30_000 // rows)
    source.write_bytes(source.read_bytes() * rows)
    run = Terminal(source, tmp_path / "out.jsonl", "--model", PLAIN, "--batch-tokens", 1, "--threads", 1)
    run.wait_for(re.compile(r" [1-9][\d,]* tokens/s").search)
    begin = time.monotonic()
    run.process.send_signal(signal.SIGINT)
    shown = run.finish()
    assert time.monotonic() - begin < LIMIT_S
    assert run.code == 128 + signal.SIGINT
    # A run of many small batches may end, with its last message, before it could say that it is going to.
    acknowledged = "nerd-tag: stopping and saving the work that is done; Ctrl-C again stops at once" in shown
    assert acknowledged or (rows > 1 and ("--resume" in shown or "nterrupted" in shown))
    assert "Traceback" not in shown
    assert not (tmp_path / "out.jsonl").exists()
