"""The script that prepares other data sets for the mixture: which tags become unknown."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

SCRIPT = Path(__file__).parents[2] / "export" / "mixture.py"
PLACES = ("location", "organization", "person")


@pytest.fixture(scope="module")
def mixture() -> ModuleType:
    spec = importlib.util.spec_from_file_location("mixture", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["mixture"] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("text", "known", "rule", "unknown"),
    [
        ("the French/O writer", PLACES, "demonym", "French"),
        ("the French/O writer", ("person",), "", ""),
        ("a French/B-location writer", PLACES, "", ""),
        ("at the Grand/B-location Hotel/I-location", PLACES, "facility", "Grand Hotel"),
        ("at the Grand/B-location Hotel/I-location", (*PLACES, "building"), "", ""),
        ("on Twitter/B-organization now", PLACES, "site", "Twitter"),
        ("on Twitter/O now", PLACES, "site", "Twitter"),
        ("to twitter/O about", PLACES, "", ""),
        ("Twitter/B-organization Inc/I-organization", PLACES, "", ""),
        ("@/B-person bob/I-person hi", PLACES, "handle", "@ bob"),
        ("saw President/B-person Obama/I-person", PLACES, "title", "President"),
        ("Queen/B-person sang", PLACES, "", ""),
        ("thank God/B-person", PLACES, "deity", "God"),
        ("Programme/B-organization of/I-organization child/I-organization friendly/I-organization", PLACES,
         "description", "Programme of child friendly"),
        ("University/B-organization of/I-organization the/I-organization Arts/I-organization", PLACES, "", ""),
        ("Bob/B-person met/O Al/B-person", PLACES, "", ""),
    ],
)  # fmt: skip
def test_tags_that_follow_another_guideline_become_unknown(
    mixture: ModuleType, text: str, known: tuple[str, ...], rule: str, unknown: str
) -> None:
    pairs = [word.partition("/") for word in text.split()]
    row = {
        "tokens": [word for word, _, _ in pairs],
        "ner_tags": [tag or "O" for _, _, tag in pairs],
        "known_types": list(known),
        "split": "train",
    }
    lists = mixture.Guidelines.read(SCRIPT.with_name("guidelines.json"))  # any file: the demonyms are given below
    guidelines = mixture.Guidelines(**{**vars(lists), "demonyms": frozenset({"French"})})
    counts: Counter[str] = Counter()

    found = mixture.follow(row, guidelines, counts)
    changed = [word for word, tag in zip(row["tokens"], found["ner_tags"], strict=True) if tag is None]
    assert (" ".join(changed), set(counts)) == (unknown, {rule} - {""})
    kept = [tag for tag in found["ner_tags"] if tag is not None]
    assert kept == [tag for word, tag in zip(row["tokens"], row["ner_tags"], strict=True) if word not in changed]
    # Validation rows stay as they are.
    held_out = {**row, "split": "validation"}
    assert mixture.follow(held_out, guidelines, counts) == held_out


def test_the_command_writes_every_file_with_its_columns(tmp_path: Path) -> None:
    table = pa.table(
        {
            "tokens": [["the", "French", "writer"], ["Bob"]],
            "ner_tags": [["O", "O", "O"], ["B-person"]],
            "known_types": [["location"], ["person"]],
            "split": ["train", "validation"],
            "domain": ["news", "mail"],
        }
    )
    (tmp_path / "in").mkdir()
    pq.write_table(table, tmp_path / "in" / "set.parquet")
    (tmp_path / "demonyms.txt").write_text("French\n", "utf-8")
    command: list[str | Path] = [
        sys.executable,
        SCRIPT,
        tmp_path / "in",
        tmp_path / "out",
        "--demonyms",
        tmp_path / "demonyms.txt",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True)

    assert done.stdout == "set.parquet: demonym 1\n"
    written = pq.read_table(tmp_path / "out" / "set.parquet")
    assert written.schema == table.schema
    assert written.to_pylist() == [
        {**row, "ner_tags": ["O", None, "O"] if row["domain"] == "news" else row["ner_tags"]}
        for row in table.to_pylist()
    ]
