"""
``nerd-tag`` on the test files of others, in a folder that somebody has fetched; nothing is fetched here.

``python -m tests.hostile.outside_suites FOLDER`` looks for these files at any depth:

- ``*.parquet``, as in the repository ``parquet-testing``: tagged, or refused with one line. All columns stay as pyarrow
  reads them.
- ``y_*.json``, ``n_*.json`` and ``i_*.json``, as in ``JSONTestSuite``: each is the value of a field. A row with
  valid JSON keeps its bytes, one with invalid JSON is refused, and ``i_`` may be either.
- ``blns.json``, the list of naughty strings: each is a text. Its entities are slices of it.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from nerd_onnx.errors import NerdError
from nerd_onnx.tagger import Tagger
from nerd_onnx.tagging.job import TagJob
from nerd_onnx.tagging.run import tag_files
from tests.support.quick_tagger import quick_tagger

Case = Callable[[Tagger, Path, Path], str]
OUTCOMES = ("tagged", "refused", "left out")


def outcome(tagger: Tagger, source: Path, output: Path) -> str:
    """Tag a file. :return: ``tagged``, ``refused``, or what is wrong"""
    try:
        tag_files(tagger, TagJob([str(source)], str(output), overwrite=True))
    except NerdError as err:
        said = str(err)
        return "refused" if said and "\n" not in said else f"the message is not one line: {said!r}"
    return "tagged"


def parquet_file(tagger: Tagger, path: Path, scratch: Path) -> str:
    """Tag the first column of strings of a Parquet file, and compare all columns of the output with the input."""
    source, output = scratch / "in.parquet", scratch / "out.parquet"
    shutil.copyfile(path, source)

    column = _text_column(source)
    tagger.options = replace(tagger.options, text_column=column or "text", column="nerd_entities")

    found = outcome(tagger, source, output)
    if found != "tagged":
        return found
    if column is None:
        return "tagged without a column of strings"

    before, after = pq.read_table(source), pq.read_table(output).drop_columns(["nerd_entities"])
    same = before.schema.names == after.schema.names and before.num_rows == after.num_rows
    # Columns are compared as text too: a NaN does not equal itself.
    same = same and all(
        one.equals(other) or one.to_pylist().__repr__() == other.to_pylist().__repr__()
        for one, other in zip(before.columns, after.columns, strict=True)
    )
    return "tagged" if same else "other columns than before"


def _text_column(path: Path) -> str | None:
    """Return the first column of strings; None if there is none, or pyarrow cannot read the file."""
    try:
        schema = pq.read_schema(path)
    except (pa.ArrowException, OSError):
        return None
    return next((field.name for field in schema if pa.types.is_string(field.type)), None)


def json_value(tagger: Tagger, path: Path, scratch: Path) -> str:
    """Tag a row that has the content of a file as the value of a field."""
    value = path.read_bytes()
    if b"\n" in value.strip() or b"\r" in value.strip():
        return "left out"  # JSON Lines has one row per line

    line = b'{"text": "Anna Bell lives in Paris.", "x": ' + value.strip(b"\n\r") + b"}"
    source, output = scratch / "in.jsonl", scratch / "out.jsonl"
    source.write_bytes(line + b"\n")
    tagger.options = replace(tagger.options, text_column="text", column="entities")

    found = outcome(tagger, source, output)
    if found == "tagged" and not output.read_bytes().startswith(line[:-1].rstrip()):
        return "other bytes than before"

    expected = {"y": "tagged", "n": "refused"}.get(path.name[0], found)
    is_right = found == expected or found not in OUTCOMES
    return found if is_right else f"{found}, expected {expected}"


def naughty_strings(tagger: Tagger, path: Path, scratch: Path) -> str:
    """Tag each string of a list as a text, and check that the entities are slices."""
    texts = json.loads(path.read_text("utf-8"))
    source, output = scratch / "in.jsonl", scratch / "out.jsonl"
    source.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), "utf-8")
    tagger.options = replace(tagger.options, text_column="text", column="entities")
    if (found := outcome(tagger, source, output)) != "tagged":
        return f"{found}, expected tagged"

    rows = [json.loads(line) for line in output.read_text("utf-8").splitlines()]
    if [row["text"] for row in rows] != texts:
        return "other texts than before"

    good = all(row["text"][one["start"] : one["end"]] == one["text"] for row in rows for one in row["entities"])
    return "tagged" if good else "an entity that is no slice of its text"


def cases(folder: Path) -> Iterator[tuple[Path, Case]]:
    """Yield the files of known suites in a folder, each with the function that runs it."""
    for path in sorted(folder.rglob("*")):
        if path.name == "blns.json":
            yield path, naughty_strings
        elif path.suffix == ".parquet":
            yield path, parquet_file
        elif path.suffix == ".json" and path.name[:2] in ("y_", "n_", "i_"):
            yield path, json_value


def run(folder: Path) -> tuple[Counter[str], list[str]]:
    """Run all suites in a folder. :return: number of files by outcome, and what is wrong, a line per file"""
    counts: Counter[str] = Counter()
    wrong: list[str] = []
    tagger = quick_tagger()

    for path, case in cases(folder):
        with tempfile.TemporaryDirectory(prefix="nerd-suite-") as scratch:
            try:
                found = case(tagger, path, Path(scratch))
            except Exception as err:  # noqa: BLE001 - anything but a NerdError is a finding
                found = f"{type(err).__name__}: {err}"

        counts[found if found in OUTCOMES else "wrong"] += 1
        if found not in OUTCOMES:
            wrong.append(f"{path.relative_to(folder)}: {found}")

    tagger.close()
    return counts, wrong


def main() -> None:
    """Run the suites in the folder that is the argument; exit code 1 if something is wrong or nothing was found."""
    folder = Path(sys.argv[1])
    counts, wrong = run(folder)

    total = ", ".join(f"{number} {name}" for name, number in counts.items()) or "no file of a known suite"
    print("\n".join([*wrong, f"{folder}: {total}"]))
    # sys.exit(True) is exit code 1.
    sys.exit(bool(wrong) or not counts)


if __name__ == "__main__":
    main()
