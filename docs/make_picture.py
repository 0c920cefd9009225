"""
Write picture.svg, the picture of the README: ``python docs/make_picture.py``.

Above, a text with the entities that the default model finds in it. Below, speed and F1 beside other programs, from the
committed reports of the benchmarks. Nothing in it is typed by hand, so a test can compare the file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from nerd_onnx import Tagger

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
SPEED = RESULTS / "2026-11-29-native-avx2-2-cores.json"
ACCURACY = RESULTS / "2026-11-28-accuracy-avx2-2-cores.json"
TEXT = "Angela Merkel met Barack Obama at the Adlon hotel in Berlin, and Reuters wrote about it."

NAMES = {
    "nerd_tag": "nerd-tag, int8",
    "ctranslate2_int8": "CTranslate2, int8",
    "openvino_int8": "OpenVINO, int8",
    "optimum_int8": "optimum pipeline, int8",
    "transformers_pipeline": "transformers pipeline",
}
COLOURS = {
    "person": "#ffd8a8",
    "location": "#b2f2bb",
    "organization": "#a5d8ff",
    "building": "#eebefa",
    "product": "#ffec99",
    "event": "#ffc9c9",
    "art": "#d0bfff",
    "other": "#dee2e6",
}
_WIDTH = 880
_HEIGHT = 300
_LETTER = 8.43  # width of a letter of the text, which is monospaced
_BAR = 19
_OURS, _THEIRS = "#1c7ed6", "#ced4da"


def picture() -> str:
    """Return the picture as SVG."""
    speed = json.loads(SPEED.read_text("utf-8"))["shapes"]["small"]["speed"]["short"]
    accuracy = json.loads(ACCURACY.read_text("utf-8"))["shapes"]["small"]["accuracy"]
    rates = {name: speed[name]["tokens_per_s"]["median"] for name in NAMES}
    f1 = {name: accuracy["peers"][name]["f1"]["raw"] for name in NAMES}

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img"',
        ' font-family="sans-serif">',
        "<title>A text with its entities; speed and F1 beside other programs</title>",
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" rx="8" fill="#ffffff"/>',
        *_marked(TEXT, Tagger.load().tag([TEXT])[0] or []),
        *_bars("Tokens per second, short rows (2 cores, AVX2)", rates, left=20, show="{:,.0f}"),
        *_bars("F1 on raw text, 8 labels, word by word", f1, left=460, show="{:.3f}"),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _marked(text: str, entities: Sequence[Any]) -> list[str]:
    """Draw the text in one line, with a box behind each entity and its label below."""
    left, base = 20.0, 44
    parts = []
    for entity in entities:
        x, width = left + entity.start * _LETTER, (entity.end - entity.start) * _LETTER

        colour = COLOURS.get(entity.label, COLOURS["other"])
        label = f'<text x="{x + width / 2:.1f}" y="{base + 23}" font-size="11" text-anchor="middle" fill="#495057">'

        parts += [
            f'<rect x="{x - 3:.1f}" y="{base - 18}" width="{width + 6:.1f}" height="25" rx="4" fill="{colour}"/>',
            f"{label}{escape(entity.label)}</text>",
        ]

    # Each word has a place of its own, so that a font of another width does not move it away from its box.
    for word in re.finditer(r"\S+", text):
        x, length = left + word.start() * _LETTER, len(word[0]) * _LETTER
        parts.append(
            f'<text x="{x:.1f}" y="{base}" font-family="monospace" font-size="14" fill="#212529" '
            f'textLength="{length:.1f}">{escape(word[0])}</text>'
        )

    return parts


def _bars(title: str, values: dict[str, float], *, left: int, show: str) -> list[str]:
    """Draw one bar per program, the first in colour."""
    top, names_width, bars_width = 112, 150, 190

    largest = max(values.values())
    parts = [f'<text x="{left}" y="{top}" font-size="13" font-weight="bold" fill="#212529">{escape(title)}</text>']
    for number, (name, value) in enumerate(values.items()):
        y = top + 16 + number * (_BAR + 12)

        length = bars_width * value / largest
        colour = _OURS if name == "nerd_tag" else _THEIRS
        x = left + names_width

        parts += [
            f'<text x="{left}" y="{y + 14}" font-size="12" fill="#343a40">{escape(NAMES[name])}</text>',
            f'<rect x="{x}" y="{y}" width="{length:.1f}" height="{_BAR}" rx="3" fill="{colour}"/>',
            f'<text x="{x + length + 6:.1f}" y="{y + 14}" font-size="12" fill="#343a40">{show.format(value)}</text>',
        ]

    return parts


if __name__ == "__main__":
    Path(__file__).with_name("picture.svg").write_text(picture(), "utf-8")
