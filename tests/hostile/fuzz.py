"""
Damaged inputs, model files, journals and work folders: ``python -m tests.hostile.fuzz --seconds 600``.

Valid files are damaged by their bytes or by their structure (:mod:`structures`); whatever comes of it, the program
reads the file or says in one line why not.
Journals and work folders are damaged by lines, fields and files too, see :mod:`work_folders`; a run that is resumed
from them has the bytes of an undisturbed one. Anything else is a fault: its message names the seed that shows it again.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from nerd_onnx.convert.conll import conll
from nerd_onnx.convert.displacy import displacy, displacy_html
from nerd_onnx.convert.label_studio import label_studio
from nerd_onnx.convert.output import json_pieces
from nerd_onnx.errors import NerdError
from nerd_onnx.formats.open_input import detect_format, format_of_name, open_reader
from nerd_onnx.formats.registry import format_named
from nerd_onnx.formats.tagged_file import TaggedRow, tagged_rows
from nerd_onnx.inference.bundle import Bundle
from nerd_onnx.inference.encoding import EncodedBatch, TextEncoder
from nerd_onnx.inference.session import Session
from nerd_onnx.machine.memory import peak_rss_bytes
from nerd_onnx.storage.atomic_file import write_whole
from nerd_onnx.storage.location import Location
from nerd_onnx.view.page import view_page
from tests.hostile.originals import SENTENCES, originals
from tests.hostile.structures import damaged
from tests.hostile.work_folders import WorkFolders

# Targets, each with its share of the cases. A resumed run takes as long as fifty files that are read.
SHARES = {
    **dict.fromkeys(("plain.jsonl", "plain.txt", "packed.jsonl.gz", "packed.jsonl.zst"), 50),
    **dict.fromkeys(("packed.jsonl.xz", "packed.jsonl.bz2"), 50),
    **dict.fromkeys(("none.parquet", "snappy.parquet", "zstd.parquet"), 50),
    **dict.fromkeys(("file.arrow", "lz4.arrow", "stream.arrow"), 50),
    **dict.fromkeys(("tagged.jsonl", "tagged.parquet"), 50),
    **dict.fromkeys(("plain.csv", "tagged.csv"), 25),  # pyarrow reads CSV in threads, for which each case waits
    **dict.fromkeys(("nerd.json", "config.json", "tokenizer.json", "model.onnx"), 50),
    "journal": 50,
    "work-folder": 5,
}
LONGEST_S = 20.0
_MOST_BYTES = 8 << 30
_CASES_PER_LOG = 1000
_MEMORY = Path("/dev/shm")  # noqa: S108 - a new folder in it; the file of a case need not reach a disk


def read_graph(path: Path, _: random.Random) -> None:
    """Load a network, and run it where that goes well."""
    Session(path, optimized=False).logits(EncodedBatch(np.array([[1, 2, 3]], dtype=np.int64)))


def read_table(path: Path, rng: random.Random) -> None:
    """Read an input as any run might."""
    options: dict[str, Any] = {
        "text_column": rng.choice(["text", ["text", "title"]]) if path.suffix != ".txt" else "text",
        "typed": rng.random() < 0.5,
        "lenient": rng.random() < 0.5,
        "mixed_as_json": rng.random() < 0.5,
        "added_columns": rng.choice([None, ("entities",)]),
        "limit": rng.choice([None, 2]),
        "format": format_of_name(str(path)),
    }
    if path.suffix not in (".csv", ".txt") and rng.random() < 0.2:
        options["format"] = None  # the first bytes say what the file is
        path = path.rename(path.with_name("unnamed"))

    with open_reader(str(path), batch_rows=3, batch_bytes=1 << 16, **options) as source:
        for rows in source.batches():
            for texts in rows.all_texts:
                texts.to_pylist()
            if rows.table is not None:
                rows.table.validate()


def read_tagged(path: Path, rng: random.Random) -> None:
    """Read a tagged file as ``nerd-view`` and ``nerd-convert`` do, and as a run that is asked to verify it."""
    # So that both sides of a refusal are seen: only one of them needs the rows in order, or scores.
    uses: list[Callable[[list[TaggedRow]], object]] = [
        lambda rows: json.loads(view_page(rows, path.name, "").split('id="data">')[1].split("<")[0]),
        lambda rows: [piece.decode() for piece in conll(rows)],
        lambda rows: json.loads(b"".join(json_pieces(label_studio(rows), Location("o.json")))),
        lambda rows: json.loads(b"".join(json_pieces(displacy(rows), Location("o.json")))),
        lambda rows: [piece.decode() for piece in displacy_html(rows)],
    ]
    if rng.random() < 0.3:
        place = Location.of(str(path))
        check = format_named(detect_format(place, None)).check_complete
        assert check is not None
        check(place, True)  # noqa: FBT003 - as FileFormat calls it

    rng.choice(uses)(list(tagged_rows(str(path))))


def read_model(path: Path, _: random.Random) -> None:
    """Read a model folder in which one file is damaged."""
    if path.name == "tokenizer.json":
        TextEncoder(path).encode(SENTENCES)
        return

    folder = path.parent / "model"
    folder.mkdir(exist_ok=True)
    # Bundle.load() looks whether these are there, and reads neither of them.
    for name in ("model.onnx", "tokenizer.json"):
        if not (folder / name).exists():
            (folder / name).write_bytes(b"not looked at")

    # Only one of both is there, so that the damaged one is read: without nerd.json, config.json describes the model.
    for name in ("nerd.json", "config.json"):
        (folder / name).unlink(missing_ok=True)

    shutil.copy(path, folder / path.name)
    Bundle.load(folder)


class Fuzzer:
    """
    All targets.

    :param folder: for the files of a case
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files = originals()
        self._work_folders = WorkFolders(folder)

    def case(self, seed: int, only: str | None = None) -> str:
        """
        Do one case.

        :param only: a target; None for any
        :return: target, and what came of it
        :raises RuntimeError: when it ended in anything but success or one line
        """
        rng = random.Random(seed)

        name = only or rng.choices(*zip(*SHARES.items(), strict=True))[0]
        if name in self._files:
            content = damaged(name, self._files[name], rng)
            return f"{name} {read_file(self._folder / name, content, rng, f'seed {seed}')}"

        damage = self._work_folders.journal if name == "journal" else self._work_folders.work_folder
        try:
            return f"{name} {damage(self._work_folders.run_of(seed), rng)}"
        except BaseException as err:
            raise RuntimeError(f"seed {seed}, {name}: {type(err).__name__}: {err}") from err


def read_file(path: Path, content: bytes, rng: random.Random, which: str) -> str:
    """
    Write a file and read it as its kind is read.

    :param which: names the case in errors
    :return: ``read`` or ``refused``
    :raises RuntimeError: when it ended in anything but success or one line
    """
    path.write_bytes(content)
    readers: dict[str, Callable[[Path, random.Random], None]] = {".json": read_model, ".onnx": read_graph}
    read = read_tagged if path.stem == "tagged" else readers.get(path.suffix, read_table)

    begin = time.process_time()  # other programs may stop this one
    try:
        read(path, rng)
        ended = "read"
    except NerdError as err:
        if "\n" in str(err):
            raise RuntimeError(f"{which}, {path.name}: an error of several lines: {err}") from err
        ended = "refused"
    except BaseException as err:
        raise RuntimeError(f"{which}, {path.name}: {type(err).__name__}: {err}") from err

    if time.process_time() - begin > LONGEST_S:
        raise RuntimeError(f"{which}, {path.name}: took over {LONGEST_S} s of processor time")
    return ended


@dataclass
class Tally:
    """
    What came of the cases so far.

    :param seed: of the next case
    :param counts: cases by target and end
    :param faults: messages of the cases that broke the promise
    """

    seed: int
    cases: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    def to_json(self) -> str:
        """Return it as JSON."""
        facts = {"cases": self.cases, "next_seed": self.seed, "peak_rss_bytes": peak_rss_bytes(), "faults": self.faults}
        return json.dumps({**facts, **dict(sorted(self.counts.items()))})


def fuzz(fuzzer: Fuzzer, asked: argparse.Namespace, folder: Path) -> Tally:
    """Do cases until there were enough, or the time is over, or one of them breaks the promise."""
    tally, begin = Tally(asked.seed), time.monotonic()
    while tally.cases < asked.cases and time.monotonic() - begin < asked.seconds:
        (folder / "seed").write_text(str(tally.seed))  # where it crashes, this is left

        is_fault = False
        try:
            ended = fuzzer.case(tally.seed, asked.only)
            tally.counts[ended] = tally.counts.get(ended, 0) + 1
        except RuntimeError as err:
            is_fault = True
            tally.faults.append(str(err))
        tally.seed += 1
        tally.cases += 1

        if asked.log and (is_fault or tally.cases % _CASES_PER_LOG == 0):
            write_whole(Location(str(asked.log)), f"{tally.to_json()}\n".encode(), overwrite=True)

        if len(tally.faults) > asked.faults:
            break
    return tally


def main() -> None:
    """Run from the command line; exit code 1 when a case broke the promise."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=3600)
    parser.add_argument("--seed", type=int, default=0, help="of the first case")
    parser.add_argument("--only", choices=SHARES)
    parser.add_argument("--faults", type=int, default=0, help="go on after so many")
    parser.add_argument("--log", type=Path, help="file that is written again and again")
    asked = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_AS, (_MOST_BYTES, _MOST_BYTES))  # a network may ask for any size

    place = _MEMORY if os.access(_MEMORY, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="nerd-fuzz-", dir=place) as folder:
        tally = fuzz(Fuzzer(Path(folder)), asked, Path(folder))

    sys.stdout.write(tally.to_json() + "\n")
    sys.exit(1 if tally.faults else 0)


if __name__ == "__main__":
    main()
