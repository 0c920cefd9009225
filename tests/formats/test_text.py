"""The format text: entities marked in their texts, for people; on a terminal with colours."""

from __future__ import annotations

import os
import pty
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from nerd_onnx.errors import OptionError
from nerd_onnx.formats.columns import OffsetUnit, entities_array, entities_type
from nerd_onnx.formats.layouts import Layout
from nerd_onnx.formats.open_output import open_writer, terminal_format
from tests.support.failures import fails
from tests.support.tables_io import opened

TEXTS = ["Angela Merkel visited Paris.", None, "", "😀 Zoë\x1b[2J\nin Köln"]
SHOWN = (
    "Angela Merkel [person] visited Paris [location].\n\n(null)\n\n\n\n😀 Zoë [person]\\x1b[2J\\nin Köln [location]\n\n"
)
KIND = entities_type(with_fine=False)


def write(folder: Path, output: str, unit: OffsetUnit = "codepoint", **options: Any) -> None:
    source = folder / "in.jsonl"
    source.write_text('{"text": ""}\n', "utf-8")
    spans = [(0, 0, 13, 0), (0, 22, 27, 1), (3, 2, 5, 0), (3, 13, 17, 1)]
    row, start, end, label = np.array(spans).T
    column = entities_array(
        TEXTS,
        row=row,
        start=start,
        end=end,
        label=label,
        labels=["person", "location"],
        score=np.full(4, 0.5),
        unit=unit,
    )
    layout = options.pop("layout", Layout(pa.field("entities", KIND)))
    with opened(source) as rows:
        batch = next(rows.batches())
        writer = open_writer(
            output,
            format="text",
            source=rows,
            layout=layout,
            entities_metadata={"nerd_onnx.entities.offset_unit": unit},
            replace=False,
            overwrite=True,
        )
        with writer:
            writer.write(type(batch)(pa.array(TEXTS), None, [b"{}"] * 4, first_row=0), column)
            assert writer.finish().rows == 4


@pytest.mark.parametrize("unit", ["codepoint", "utf8", "utf16"])
def test_entities_are_marked_in_every_unit(tmp_path: Path, unit: OffsetUnit) -> None:
    write(tmp_path, str(tmp_path / "o.txt"), unit)
    assert (tmp_path / "o.txt").read_text("utf-8") == SHOWN
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "o.txt"]


@pytest.mark.parametrize("layout", ["wide", "long"])
def test_other_layouts_are_refused(tmp_path: Path, layout: Any) -> None:
    with fails(OptionError, "text-needs-nested", option="--output-format"):
        write(tmp_path, str(tmp_path / "o"), layout=Layout(pa.field("entities", KIND), layout, labels=["person"]))
    assert not (tmp_path / "o").exists()
    assert terminal_format("-", layout) is None


def on_terminal(folder: Path, monkeypatch: pytest.MonkeyPatch, action: Any) -> str:
    """Return what is printed while standard output is a pseudo-terminal."""
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "w", encoding="utf-8") as stream, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", stream)
        action()
        stream.flush()
        shown = os.read(ours, 1 << 16)
    os.close(ours)
    assert not list(folder.glob("-"))
    return shown.decode().replace("\r\n", "\n")


def test_a_terminal_gets_colours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    shown = on_terminal(tmp_path, monkeypatch, lambda: write(tmp_path, "-"))
    assert shown.startswith("\x1b[36mAngela Merkel [person]\x1b[0m visited \x1b[33mParis [location]\x1b[0m.\n\n")
    assert "\x1b[36mZoë [person]\x1b[0m\\x1b[2J\\nin" in shown
    monkeypatch.setenv("NO_COLOR", "1")
    assert on_terminal(tmp_path, monkeypatch, lambda: write(tmp_path, "-")) == SHOWN


def test_a_terminal_is_the_only_output_with_this_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[str | None] = []

    def choose() -> None:
        chosen.append(terminal_format("-", "nested"))
        print("a pseudo-terminal has nothing to read before something was printed")  # noqa: T201

    on_terminal(tmp_path, monkeypatch, choose)
    assert chosen == ["text"]
    assert terminal_format("-", "nested") is None
    assert terminal_format("o.jsonl", "nested") is None
