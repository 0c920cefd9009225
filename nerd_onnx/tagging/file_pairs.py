"""Pair each input file with its output: one file with one file, or several, a glob or a folder with a folder."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import NamedTuple

from nerd_onnx.errors import InputError, OptionError
from nerd_onnx.formats.interfaces import Format
from nerd_onnx.formats.open_input import format_of_name
from nerd_onnx.formats.registry import all_suffixes, format_named, titles_of_listed
from nerd_onnx.storage.input_stream import input_name
from nerd_onnx.storage.location import Location, Name
from nerd_onnx.storage.output_place import output_name
from nerd_onnx.storage.remote import files_below
from nerd_onnx.tagging.table_files import TableFiles
from nerd_onnx.tagging.table_folders import (
    TableFormat,
    check_not_inside,
    check_not_inside_remote,
    files_of_table,
    files_of_version,
    is_table_version,
    refused_table,
    remote_tables,
    table_format_of,
)

_HIDDEN = (".", "_")  # Spark, Hive and Arrow ignore these names in a data set too
LINKED_FOLDERS = "linked folders"  # among the suffixes of what is passed over


@dataclass(frozen=True)
class FilePair:
    """
    An input and its output.

    :param name: the input's name in messages, journal and rejects file: its path below the tagged folder
    :param input: a file, or ``-``
    :param output: a file, or ``-``
    :param table: name and version of the table that the input is a file of; empty for other files
    """

    name: str
    input: Location
    output: Location
    table: str = ""


class _Found(NamedTuple):
    """
    An input file, or a folder that cannot be listed.

    :param path: where it is
    :param name: its name
    :param table: name and version of its table; empty if it is in none
    :param output: name of its output; empty if that is its own
    """

    path: Location
    name: str
    table: str = ""
    output: str = ""


def is_folder_output(inputs: Sequence[Location], output: Location) -> bool:
    """
    Whether the output is a folder.

    It is for several inputs, for a folder, a glob or a version of a table, and if its name ends in a slash.
    """
    if len(inputs) > 1 or output.names_folder or is_table_version(inputs[0]):
        return True

    source = inputs[0]
    if not source.is_standard_stream and (source.is_folder() or _is_glob(source)):
        return True
    return not output.is_standard_stream and output.is_folder()


def file_pairs(
    inputs: Sequence[Location],
    output: Location,
    output_suffix: Callable[[Location], str | None],
    passed_over: Counter[str] | None = None,
) -> list[FilePair]:
    """
    Return the files to tag, in the order of their names, each with its output.

    :param inputs: files, globs and folders, or one ``-``
    :param output: a file, ``-``, or the folder that mirrors the inputs
    :param output_suffix: returns the output's suffix for an input, or None to keep the input's
    :param passed_over: gets the number of files in folders that have no known format, by suffix, and of linked folders
    :raises InputError: if there is nothing to tag
    :raises OptionError: if the inputs do not fit the output, or two inputs would get the same output
    """
    if not is_folder_output(inputs, output):
        return [FilePair(inputs[0].name, inputs[0], output)]

    if any(path.is_standard_stream for path in (*inputs, output)):
        raise OptionError(
            "- is standard input or output; it cannot be combined with several files or a folder",
            reason="stream-with-files",
        )

    passed_over = Counter() if passed_over is None else passed_over
    files = [found for path in _with_common_root(inputs, passed_over) for found in path]
    _check_folder(output)

    pairs: dict[Location, FilePair] = {}
    for path, name, table, mirror in sorted(files, key=lambda found: found.name):
        target = output.join(_with_suffix(mirror or name, output_suffix(path)))
        # With another output format, a.parquet and a.jsonl get the same output.
        if target in pairs:
            raise OptionError(
                f"{input_name(pairs[target].input)} and {input_name(path)} would both be written to "
                f"{output_name(target)}; rename one, or tag them in two runs",
                reason="same-output",
                file=output_name(target),
                input=input_name(path),
                other=input_name(pairs[target].input),
            )

        pairs[target] = FilePair(name, path, target, table)

    return list(pairs.values())


def _check_folder(output: Location) -> None:
    """Check that the output is a folder or can become one: it is no file, and is not named like one."""
    name, is_there = output_name(output), output.is_folder()

    # Without a slash at its end: behind one, the system finds no file.
    bare = output.text.rstrip(os.sep + (os.altsep or ""))
    if not is_there and not output.is_remote and os.path.lexists(bare):
        raise OptionError(
            f"{name}: is a file; for several files or a folder, OUTPUT must be a folder; give another name",
            reason="output-not-folder",
            file=name,
        )

    if not is_there and format_of_name(output) is not None and not output.names_folder:
        raise OptionError(
            f"{name}: has the name of a file; for several files or a folder, OUTPUT must be a folder; give the name of "
            "a folder, or add a slash at the end",
            reason="output-named-like-file",
            file=name,
        )


def _with_common_root(inputs: Sequence[Location], passed_over: Counter[str]) -> Iterator[list[_Found]]:
    """
    Yield the files of the inputs, each with its name.

    The names of single files are relative to the folder that they have in common; remote and local files are separate.
    """
    alone = [path for path in inputs if not (path.is_folder() or _is_glob(path) or is_table_version(path))]

    remote = [path for path in alone if path.is_remote]
    if remote:
        parts = [path.bare.split("/") for path in remote]
        shared = _shared_folders(parts)
        yield [_Found(path, "/".join(names[shared:])) for path, names in zip(remote, parts, strict=True)]

    files = [path for path in alone if not path.is_remote]
    if files:
        folders = [os.path.dirname(os.path.abspath(path)) for path in files]
        root = os.path.commonpath(folders)
        yield [_Found(path, os.path.relpath(os.path.abspath(path), root)) for path in files]

    for path in inputs:
        if path in alone:
            continue
        if is_table_version(path):
            yield _files_of_version(path)
        elif path.is_remote:
            yield _remote_files(path, passed_over)
        elif path.is_folder():
            yield _files_in(path.text, passed_over)
        else:
            yield _matches(path.text, passed_over)


def _shared_folders(paths: Sequence[Sequence[str]]) -> int:
    """Return how many folders all paths begin with; each path is given in its parts, the last of which is the file."""
    count = 0
    for names in zip(*(path[:-1] for path in paths), strict=False):
        if len(set(names)) > 1:
            break
        count += 1
    return count


def _files_in(folder: str, passed_over: Counter[str], root: str | None = None) -> list[_Found]:
    """
    List the files of a folder that are of a file format by their names, at any depth.

    Hidden files are ignored. Linked folders are passed over: they may lead round in a circle.

    Of a table, these are the files of its current version. A folder that cannot be listed is listed as if it were a
    file: opening it fails, and says why.

    :raises InputError: for a table that is not read
    """
    check_not_inside(folder)
    found: list[_Found] = []
    errors: list[OSError] = []

    for here, folders, files in os.walk(folder, onerror=errors.append):
        kind = table_format_of(here)
        if kind is not None:
            name = os.path.relpath(here, root or folder)
            found += _files_of_table(Location(here), kind, "" if name == os.curdir else name)
            # In place: os.walk() then enters none of them.
            folders.clear()
            continue

        # In place: os.walk() then does not enter the removed folders. It enters no links to folders.
        folders[:] = [name for name in folders if not name.startswith(_HIDDEN)]
        passed_over[LINKED_FOLDERS] += sum(os.path.islink(os.path.join(here, name)) for name in folders)
        described = _notes_of_datasets(files)

        for file in files:
            if file.startswith(_HIDDEN):
                continue
            if file in described or not _is_listed(file):
                passed_over[_suffix(file)] += 1
            else:
                path = os.path.join(here, file)
                found.append(_Found(Location(path), os.path.relpath(path, root or folder)))

    unlisted = [str(err.filename) for err in errors]
    found += [_Found(Location(path), os.path.relpath(path, root or folder)) for path in unlisted]
    if not found and root is None:
        raise _no_files(folder)
    return found


def _no_files(place: Name) -> InputError:
    return InputError(
        f"{input_name(place)}: contains no file that is {titles_of_listed()} by its name",
        reason="no-files",
        file=input_name(place),
    )


def _notes_of_datasets(files: Sequence[str]) -> set[str]:
    """Return the files of a folder in which datasets of Hugging Face describes a data set; they are no data."""
    saved = {"state.json", "dataset_info.json"}
    return {"dataset_dict.json", *(saved if saved <= {*files} else ())}


def _is_listed(name: str) -> bool:
    """Whether a file in a folder is one to tag, by its name."""
    found = format_of_name(name)
    return found is not None and format_named(found).is_listed


def _files_of_table(folder: Location, kind: TableFormat, name: str) -> list[_Found]:
    """
    List the current files of a table.

    :param kind: its table format
    :param name: name of the folder, relative to the folder that is tagged; empty if it is that folder
    :raises InputError: if the table cannot be read
    """
    return _found_in_table(folder, files_of_table(folder, kind), f"{name}/" if name else "")


def _found_in_table(folder: Location, files: TableFiles, before: str = "") -> list[_Found]:
    return [
        _Found(folder.join(name), f"{before}{name}", files.version, f"{before}{files.output_of(name)}")
        for name in files.names
    ]


def _files_of_version(path: Location) -> list[_Found]:
    """
    List the files of a version of a table.

    :param path: the file of metadata that describes it
    :raises InputError: if the table cannot be read
    """
    files = files_of_version(path)
    if not files.names:
        raise _no_files(path)
    return _found_in_table(path.parent.parent, files)


def _matches(pattern: str, passed_over: Counter[str]) -> list[_Found]:
    """List the files that match a glob; names are relative to the last folder before its first wildcard."""
    pattern = pattern.replace(os.altsep or os.sep, os.sep)  # Windows has two
    parts = pattern.split(os.sep)
    fixed = next(i for i, part in enumerate(parts) if glob.has_magic(part))

    root = os.sep.join(parts[:fixed]) or (os.sep if pattern.startswith(os.sep) else ".")

    found = []
    for path in glob.glob(pattern, recursive=True):
        if os.path.isdir(path):
            # ``**`` lists the files below this folder too.
            found += [] if "**" in parts else _files_in(path, passed_over, root)
        elif not os.path.basename(path).startswith(_HIDDEN):
            found.append(_Found(Location(path), os.path.relpath(path, root)))

    # A pattern matches files of a table that no longer belong to it.
    for folder in {os.path.dirname(match.path) for match in found if not match.table}:
        check_not_inside(os.path.join(folder, "*"))

    known = {match.path.text for match in found}
    found += [
        _Found(Location(path), os.path.relpath(path, root))
        for path in _unlisted(root, parts[fixed:-1])
        if path not in known
    ]

    if not found:
        raise InputError(
            f"{input_name(pattern)}: no such file, and no file matches this pattern",
            reason="no-match",
            file=input_name(pattern),
        )

    return found


def _unlisted(root: str, wild: Sequence[str]) -> list[str]:
    """
    Return the folders that cannot be listed and may have matches of a glob: glob.glob() leaves them out.

    :param wild: the wildcard parts of the glob, without the last one
    """
    errors: list[OSError] = []
    for here, folders, _ in os.walk(root, onerror=errors.append):
        depth = 0 if here == root else os.path.relpath(here, root).count(os.sep) + 1
        any_depth = "**" in wild[: depth + 1]
        # Below the last wildcard part nothing matches, and os.walk() need not go there.
        part = wild[depth] if depth < len(wild) else ""
        folders[:] = [
            name for name in folders if not name.startswith(_HIDDEN) and (any_depth or fnmatchcase(name, part))
        ]

    return [str(err.filename) for err in errors]


def _remote_files(path: Location, passed_over: Counter[str]) -> list[_Found]:
    """List the files of a folder or glob in remote storage, at any depth; hidden files are ignored."""
    parts = path.bare.rstrip("/").split("/")
    fixed = next((i for i, part in enumerate(parts) if glob.has_magic(part)), len(parts))
    root, wild = Location("/".join(parts[:fixed]) + path.query), parts[fixed:]

    check_not_inside_remote(root)
    names = files_below(root.text)

    found = [_Found(root.join(name), name) for name in names if _is_selected(name.split("/"), wild, passed_over)]
    for folder, kind in remote_tables(names).items():
        before = f"{folder}/" if folder else ""
        others = [file for file in found if not file.name.startswith(before)]
        if len(others) < len(found):
            found = others + _remote_table(root, folder, kind, wild)

    if not found:
        raise _no_files(path)
    return found


def _remote_table(root: Location, folder: str, kind: TableFormat, wild: Sequence[str]) -> list[_Found]:
    """
    List the current files of a table in remote storage.

    :param folder: its name below ``root``; may be empty
    :param wild: the wildcard parts of a glob below ``root``
    :raises InputError: if the table cannot be read, or the glob names single files of it
    """
    where = root.join(folder) if folder else root
    parts = folder.split("/") if folder else []
    # A glob names the table as a whole, or a folder that has it; or else single files of it.
    if "**" in wild or not _fits(parts, wild, itself=False):
        raise refused_table(where, kind)
    return _files_of_table(where, kind, folder)


def _is_selected(name: Sequence[str], wild: Sequence[str], passed_over: Counter[str]) -> bool:
    """
    Whether the wildcard parts of a glob select a file: they match its path, or a folder that contains it.

    A file of such a folder that has no known format is counted.
    """
    itself = "**" in wild or len(name) == len(wild)
    hidden = any(part.startswith(_HIDDEN) for part in name)
    if hidden or not _fits(name, wild, itself=itself):
        return False

    if itself or _is_listed(name[-1]):
        return True
    passed_over[_suffix(name[-1])] += 1
    return False


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower() or "no suffix"


def _fits(name: Sequence[str], wild: Sequence[str], *, itself: bool) -> bool:
    """
    Whether a path matches a pattern, part by part; ``**`` matches any number of folders.

    :param itself: the pattern must match the whole path, and not only a folder that contains it
    """
    if not wild:
        return not name or not itself

    if wild[0] == "**":
        return any(_fits(name[i:], wild[1:], itself=itself) for i in range(len(name) + 1))
    return bool(name) and fnmatchcase(name[0], wild[0]) and _fits(name[1:], wild[1:], itself=itself)


def _is_glob(path: Location) -> bool:
    # A file may have a name with brackets.
    return glob.has_magic(path.bare) and not path.exists()


def _with_suffix(name: str, suffix: str | None) -> str:
    if suffix is None:
        return name

    stem, known = name, all_suffixes()
    while (last := os.path.splitext(stem)[1]).lower() in known:
        stem = stem[: -len(last)]
    return stem + suffix


def suffix_for(path: Name, asked: Format | None) -> str | None:
    """Return the suffix of an output whose format was asked for; None if its input has that format already."""
    if asked is None or format_of_name(path) == asked:
        return None
    return format_named(asked).suffix
