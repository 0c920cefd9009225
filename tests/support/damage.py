"""
Damage to the files around a run, as disks, people and other programs cause it: in bytes, lines, fields and files.

Each function takes the random numbers from its caller, so that hypothesis can shrink what a fuzzer repeats by its seed.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from random import Random
from typing import Any

from tests.support.processes import JOURNAL

Change = Callable[[Path, Random], None]

SPLICES = (b"\x00", b"\xff" * 8, b"{", b"}", b'"', b"[" * 2000, b"\\u", b"\n", b"1e999", b"null", b"\x7f\xff\xff\xff")
OTHER_LINES = (b"[" * 9999 + b"\n", b"{}\n", b"[]\n", b"1\n", b"\n", b"\x00\x00", b'{"a":')
# Values of every JSON type, each at an edge of what a reader may expect.
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2**31, 2**63, 10**30, 0.5, float("nan"), float("inf")),
    *(
        "",
        "x",
        "../escaped",
        "../../x",
        "/dev/null",
        "\x00",
        "\ud800",
        [],
        {},
        [[]],
        [[[]]],
        [0] * 50,
        {"rows": 1},
        [{}],
        "chunk-000000.arrow",
    ),
)


def mutated(content: bytes, rng: Random) -> bytes:
    """Damage bytes in one to four places: flip, cut, repeat, splice, or cut the end off."""
    data = bytearray(content)
    for _ in range(rng.randint(1, 4)):
        at, size = rng.randrange(len(data) + 1), rng.choice((1, 1, 2, 4, 16, 200))

        kind = rng.randrange(6)
        if kind == 0:
            data[at : at + 1] = bytes([rng.randrange(256)])
        elif kind == 1:
            del data[at : at + size]
        elif kind == 2:
            data[at:at] = data[at : at + size]
        elif kind == 3:
            data[at:at] = rng.choice(SPLICES)
        elif kind == 4:
            data[at : at + size] = rng.randbytes(size)
        else:
            del data[at:]

    return bytes(data)


# -- any file ----------------------------------------------------------------------------------------------------------


def flip(path: Path, rng: Random) -> None:
    """Change one bit, in place."""
    content = path.read_bytes()
    if content:
        at = rng.randrange(len(content))
        with path.open("r+b") as file:
            file.seek(at)
            file.write(bytes([content[at] ^ 1 << rng.randrange(8)]))


def cut(path: Path, rng: Random) -> None:
    """Cut the end off; sometimes all of it."""
    size = path.stat().st_size
    os.truncate(path, rng.choice((0, rng.randrange(size + 1), max(size - 1, 0))))


def double(path: Path, _: Random) -> None:
    """Append the content to itself."""
    path.write_bytes(path.read_bytes() * 2)


def delete(path: Path, _: Random) -> None:
    """Delete the file."""
    path.unlink()


def replace(path: Path, rng: Random) -> None:
    """Put another file, of the same size, under the name."""
    other = path.with_name(f"{path.name}.other")
    other.write_bytes(rng.randbytes(path.stat().st_size))
    other.replace(path)


def touch(path: Path, rng: Random) -> None:
    """Change the time alone."""
    os.utime(path, ns=(0, rng.randrange(1, 2 * 10**18)))


def splice(path: Path, rng: Random) -> None:
    """Damage bytes in several places."""
    path.write_bytes(mutated(path.read_bytes(), rng))


def keep_time(change: Change) -> Change:
    """Return a damage after which the modification time is as before."""

    def kept(path: Path, rng: Random) -> None:
        found = path.stat()
        change(path, rng)

        if path.exists():
            os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))

    kept.__name__ = f"{change.__name__}, with its time kept"
    return kept


FILE_DAMAGES = (flip, cut, double, delete, replace, touch, splice)


# -- lines and fields --------------------------------------------------------------------------------------------------


def swap_lines(lines: list[bytes], rng: Random) -> None:
    """Exchange two lines."""
    i, j = rng.randrange(len(lines)), rng.randrange(len(lines))
    lines[i], lines[j] = lines[j], lines[i]


def double_line(lines: list[bytes], rng: Random) -> None:
    """Write a line again, somewhere behind its place."""
    i = rng.randrange(len(lines))
    lines.insert(rng.randint(i + 1, len(lines)), lines[i])


def drop_line(lines: list[bytes], rng: Random) -> None:
    """Leave a line out."""
    del lines[rng.randrange(len(lines))]


def drop_last_lines(lines: list[bytes], rng: Random) -> None:
    """Leave the last lines out, as after a power cut of a disk that lies."""
    del lines[rng.randrange(len(lines)) :]


def change_field(lines: list[bytes], rng: Random) -> None:
    """Replace a field of a line, at any depth, by a value of any type, or take it out."""
    i = rng.randrange(len(lines))
    try:
        event = json.loads(lines[i])
    except (ValueError, RecursionError):  # damaged before
        return

    if isinstance(event, dict) and event:
        change_value(event, rng)
        lines[i] = json.dumps(event).encode() + b"\n"


def copy_field(lines: list[bytes], rng: Random) -> None:
    """Replace a field of a line by the value that it has in another line."""
    i, j = rng.randrange(len(lines)), rng.randrange(len(lines))
    try:
        event, other = json.loads(lines[i]), json.loads(lines[j])
    except (ValueError, RecursionError):
        return

    shared = sorted(set(event) & set(other)) if isinstance(event, dict) and isinstance(other, dict) else []
    if shared:
        name = rng.choice(shared)
        event[name] = other[name]
        lines[i] = json.dumps(event).encode() + b"\n"


def flip_byte(lines: list[bytes], rng: Random) -> None:
    """Change one byte of a line."""
    i = rng.randrange(len(lines))
    at = rng.randrange(len(lines[i]))
    lines[i] = lines[i][:at] + bytes([lines[i][at] ^ rng.randint(1, 255)]) + lines[i][at + 1 :]


def nest_line(lines: list[bytes], rng: Random) -> None:
    """Put a line that is nested deeply, is no object, or does not end, among the others."""
    lines.insert(rng.randint(0, len(lines)), rng.choice(OTHER_LINES))


def change_value(value: dict[str, Any] | list[Any], rng: Random) -> None:
    """Replace one value of an object or list that is not empty, at any depth, or take it out."""
    place: Any = rng.choice(sorted(value)) if isinstance(value, dict) else rng.randrange(len(value))
    found: Any = value[place]
    if isinstance(found, dict | list) and found and rng.random() < 0.7:
        change_value(found, rng)
    elif rng.random() < 0.15:
        del value[place]
    elif isinstance(found, int) and not isinstance(found, bool) and rng.random() < 0.5:
        value[place] = found + rng.choice((-1, 1, 7))
    else:
        value[place] = deepcopy(rng.choice(VALUES))  # a later change must not reach the list of values


LINE_DAMAGES = (*(swap_lines, double_line, drop_line, drop_last_lines, change_field, copy_field, flip_byte, nest_line),)


def damage_lines(path: Path, rng: Random) -> str:
    """
    Damage a file of lines in one to three places.

    :return: what was done
    """
    lines = path.read_bytes().splitlines(keepends=True)
    changes = rng.choices(LINE_DAMAGES, k=rng.randint(1, 3))
    for change in changes:
        if lines:
            change(lines, rng)

    path.write_bytes(b"".join(lines))
    return ", ".join(change.__name__ for change in changes)


# -- the work folder ---------------------------------------------------------------------------------------------------


def exchange_files(folder: Path, rng: Random) -> None:
    """Exchange two files of a folder, as far as it has two."""
    files = _files_but_lock(folder)
    if len(files) > 1:
        one, other = rng.sample(files, 2)

        between = folder / "between"
        one.rename(between)
        other.rename(one)
        between.rename(other)


def copy_file(folder: Path, rng: Random) -> None:
    """Copy a file of a folder over another one."""
    files = _files_but_lock(folder)
    if len(files) > 1:
        one, other = rng.sample(files, 2)
        shutil.copyfile(one, other)


def _files_but_lock(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_file() and path.name != "lock")


def damage_work_folder(folder: Path, rng: Random) -> str:
    """
    Damage a work folder in one place: its journal by lines, its files by bytes or as wholes.

    :return: what was done
    """
    files = sorted(path for path in folder.iterdir() if path.is_file())
    journal = folder / JOURNAL

    kind = rng.randrange(8)
    if kind < 4 and journal.is_file():
        return f"journal: {damage_lines(journal, rng)}"
    if kind == 4:
        exchange_files(folder, rng)
        return "files exchanged"
    if kind == 5:
        copy_file(folder, rng)
        return "a file copied over another"
    if kind == 6 and rng.random() < 0.2:
        shutil.rmtree(folder)
        return "folder removed"

    if not files:
        return "nothing"
    path, change = rng.choice(files), rng.choice(FILE_DAMAGES)
    change(path, rng)
    return f"{path.name}: {change.__name__}"
