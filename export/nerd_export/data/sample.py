"""The real texts that come with the program."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path

SAMPLE_FILE = Path(str(files("nerd_onnx").joinpath("sample.jsonl")))


def sample_texts() -> list[str]:
    """Return the real texts that come with the program: encyclopedia, novels, speeches."""
    lines = SAMPLE_FILE.read_text("utf-8").splitlines()
    return [json.loads(line)["text"] for line in lines]
