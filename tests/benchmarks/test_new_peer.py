"""A new peer is one module and one line in the list of peers."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.paths import ROOT

MODULE = r'''
"""A peer that tags every word with a capital letter as a person."""

import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.peers.peer import Engine, Peer, Setup, Sources


class Capitals(Peer):
    """A peer without a model."""

    name = "capitals"
    title = "words with a capital letter"
    packages = ("pyarrow",)
    is_network = False

    def load(self, sources: Sources, folder: Path) -> Engine:
        """Load nothing."""
        return CapitalsEngine()


class CapitalsEngine:
    """Finds the words."""

    setups = [{"minimum": 2}, {"minimum": 4}]
    size_bytes = 0

    def configure(self, setup: Setup) -> None:
        """Select the minimum length of a word."""
        self.minimum = setup["minimum"]

    def tag(self, source: Path, target: Path) -> int:
        """Tag a file."""
        table = pq.read_table(source)
        pattern = re.compile(rf"[A-Z]\w{{{self.minimum - 1},}}")
        found = [
            [{"start": m.start(), "end": m.end(), "label": "person"} for m in pattern.finditer(text)]
            for text in table["text"].to_pylist()
        ]
        pq.write_table(table.append_column("entities", pa.array(found)), target)
        return sum(map(len, found))
'''
IMPORT = "from benchmarks.peers.capitals import Capitals\n"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Return a copy of the benchmarks with one more module and one more line (and its import)."""
    copy = tmp_path / "checkout"
    shutil.copytree(ROOT / "benchmarks", copy / "benchmarks", ignore=shutil.ignore_patterns("out", "results"))
    peers = copy / "benchmarks" / "peers"
    (peers / "capitals.py").write_text(MODULE, "utf-8")

    listing = (peers / "__init__.py").read_text("utf-8")
    assert listing.count("        Spacy(),\n") == 1
    listing = listing.replace("        Spacy(),\n", "        Spacy(),\n        Capitals(),\n")
    first_import = "from benchmarks.peers.ctranslate2_int8"
    (peers / "__init__.py").write_text(listing.replace(first_import, IMPORT + first_import), "utf-8")
    return copy


@pytest.mark.slow
def test_a_new_peer_is_measured_and_reported(checkout: Path, tiny_bundle: Path) -> None:
    done = subprocess.run(
        [
            sys.executable, "-m", "benchmarks", "--short", "--peer", "nerd_tag", "--peer", "capitals", "--part",
            "speed", "--workload", "short", "--tokens", "60", "--rounds", "3", "--model", str(tiny_bundle), "--shared",
            str(checkout / "none"),
        ],
        cwd=checkout,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (checkout, ROOT, ROOT / "export")))},
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr

    out = checkout / "benchmarks" / "out"
    small = json.loads((out / "report.json").read_text("utf-8"))["shapes"]["small"]
    speed = small["speed"]["short"]

    assert set(speed) == {"nerd_tag", "capitals"}
    assert small["ratios"]["short"]["capitals"]["rounds"] == 3
    assert speed["capitals"]["entities"] > 0
    assert len(speed["capitals"]["tried"]) == 2
    assert "| words with a capital letter |" in done.stdout
    assert "words with a capital letter" in (out / "report.html").read_text("utf-8")
