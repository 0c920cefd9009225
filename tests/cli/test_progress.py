"""What a run shows of its progress, on a pseudo-terminal and in a log."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from nerd_onnx.cli.progress import Display, duration, percentage, state_of
from nerd_onnx.tagging.run_meter import RunMeter
from tests.support.models import sample_texts
from tests.support.terminal import Terminal

PLAIN = Path(__file__).parents[1] / "data" / "models" / "plain"


def one_long_text(path: Path, copies: int) -> Path:
    some = sample_texts()
    text = "\n\n".join(f"{i} {some[i % len(some)]}" for i in range(copies))
    path.write_text(json.dumps({"text": text}) + "\n", "utf-8")
    return path


def percentages(shown: str) -> list[int]:
    return [int(found) for found in re.findall(r"\r\s*(\d+)%\|", shown)]


@pytest.mark.slow
def test_the_bar_moves_within_one_long_text_and_never_shows_100(tmp_path: Path) -> None:
    source = one_long_text(tmp_path / "in.jsonl", 1_500)
    run = Terminal(source, tmp_path / "out.jsonl", "--model", PLAIN, "--batch-tokens", 1, "--threads", 1)
    shown = run.finish()
    found = percentages(shown)
    assert run.code == 0
    assert found == sorted(found)
    assert len(set(found)) > 1
    assert max(found) < 100
    assert re.search(r"\| 0 rows, [\d,]+ tokens/s, \d+s left", shown)
    assert shown.splitlines()[-1].lstrip("\r ").startswith("1 row, ")  # the summary
    assert "\x1b" not in shown.splitlines()[-1]


def test_a_short_run_shows_only_its_summary(tmp_path: Path) -> None:
    run = Terminal(one_long_text(tmp_path / "in.jsonl", 1), tmp_path / "out.jsonl", "--model", PLAIN, "--quiet")
    assert run.finish() == ""
    assert run.code == 0


def test_a_log_gets_lines(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nerd_onnx.cli.progress.LINES_EVERY_S", 0.01)
    display, lines = Display(RunMeter()), ""
    while lines.count("\n") < 2:
        lines += capsys.readouterr().err
    display.close()
    assert set(lines.splitlines()) == {"nerd-tag: 0 rows, 0 tokens/s"}


def test_what_is_shown() -> None:
    assert percentage(0.372) == "37%"
    assert percentage(0.999) == percentage(1) == "99%"
    assert [duration(seconds) for seconds in (0, 59.4, 59.6, 185, 3599.7, 7620)] == [
        *("0s", "59s", "1m00s", "3m05s", "1h00m", "2h07m")
    ]
    meter = RunMeter()
    meter.rows = 1
    assert state_of(meter) == "1 row, 0 tokens/s"
