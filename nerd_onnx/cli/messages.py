"""Texts that ``nerd-tag`` prints: the summary line, notes, and the command that resumes a run."""

from __future__ import annotations

import os
import shlex
import string
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nerd_onnx.terminal import counted, printable

if TYPE_CHECKING:  # --help and --version must not wait for these imports
    from nerd_onnx.inference.bundle import Bundle
    from nerd_onnx.tagging.job import TagJob

# What the summary line counts beside the rows, if it is not 0: key of the summary, then the words for one and several.
_COUNTS = (
    ("rejected", "rejected row", "rejected rows"),
    ("refused_files", "unreadable file skipped", "unreadable files skipped"),
    ("resumed_rows", "row tagged before the interruption", "rows tagged before the interruption"),
    ("finished_before", "file already finished", "files already finished"),
    ("remade_files", "lost output written again", "lost outputs written again"),
    ("damaged_lines", "damaged journal line (work done again)", "damaged journal lines (work done again)"),
    ("damaged_chunks", "damaged chunk (tagged again)", "damaged chunks (tagged again)"),
)
# Bytes that stand for themselves in the quotes $'...' of a shell.
_UNESCAPED = frozenset((string.ascii_letters + string.digits + string.punctuation + " ").encode()) - frozenset(b"\\'")


def resuming_command(arguments: Sequence[str]) -> str:
    """
    Return the command that resumes a run, without passwords.

    :param arguments: arguments of the run, without the program's name
    """
    from nerd_onnx.storage.uri import without_password

    end = arguments.index("--") if "--" in arguments else len(arguments)
    options = [argument for argument in arguments[:end] if argument not in ("--overwrite", "--resume")]
    words = [without_password(argument) for argument in [*options, *arguments[end:]]]
    return " ".join(["nerd-tag", "--resume", *map(_shell_word, words)])


def _shell_word(argument: str) -> str:
    """Quote an argument for a shell. One with control characters is written in ``$'...'``, which bash and zsh read."""
    if argument.isprintable():
        return shlex.quote(argument)

    # By bytes, because a name in Linux may be any bytes. An escape of two digits ends there, whatever follows.
    escaped = (chr(byte) if byte in _UNESCAPED else f"\\x{byte:02x}" for byte in os.fsencode(argument))
    return "$'" + "".join(escaped) + "'"


def guess_note(job: TagJob) -> str | None:
    """Return the line about the format that standard input seems to have; None if it is sure, or nothing is read."""
    from nerd_onnx.formats.open_input import guessed_format
    from nerd_onnx.formats.registry import format_named
    from nerd_onnx.storage.location import STANDARD_STREAM

    guess = guessed_format(job.input_format) if STANDARD_STREAM in job.inputs else None
    if guess is None:
        return None
    title = format_named(guess).title
    return f"standard input is read as {title}, because of its first line; --format chooses another format"


def graph_note(bundle: Bundle) -> str:
    """Return the line that says which of several ONNX files of a model folder is used."""
    graph = bundle.model_file.relative_to(bundle.folder) if bundle.folder else bundle.model_file
    return f"{bundle.name}: has several ONNX files; {graph} is used, and not {', '.join(bundle.other_graphs)}"


def passed_over(numbers: Mapping[str, int]) -> str:
    """
    Return how many files of folders are not tagged, and their suffixes: ``3 files not tagged: .pdf, .txt``.

    :param numbers: numbers of files by suffix; the number of linked folders is among them
    """
    from nerd_onnx.tagging.file_pairs import LINKED_FOLDERS

    files = {suffix: number for suffix, number in numbers.items() if suffix != LINKED_FOLDERS}
    parts = []
    if files:
        suffixes = ", ".join(map(printable, files))
        parts.append(f"{counted(sum(files.values()), 'file')} not tagged: {suffixes}")
    if LINKED_FOLDERS in numbers:
        parts.append(f"{counted(numbers[LINKED_FOLDERS], 'linked folder')} not tagged")
    return "; ".join(parts)


def summary_line(summary: dict[str, Any]) -> str:
    """Return the summary as one line for people."""
    counts = f" ({summary['null_rows']:,} null)" if summary["null_rows"] else ""
    for key, noun, plural in _COUNTS:
        if summary[key]:
            counts += f", {counted(summary[key], noun, plural)}"
    columns = "; other columns copied" if summary["copied_files"] else ""
    if summary["rewritten_because"]:
        columns = f"; columns rewritten because {' and because '.join(summary['rewritten_because'])}"
    if summary.get("passed_over"):
        columns += f"; {passed_over(summary['passed_over'])}"
    return (
        f"{counted(summary['rows'], 'row')}{counts}, {counted(summary['entities'], 'entity', 'entities')}, "
        f"{counted(summary['tokens'], 'token')} in {summary['seconds']:.1f} s: {_rate(summary['rows_per_s'])} rows/s, "
        f"{summary['tokens_per_s']:,.0f} tokens/s, peak memory {summary['peak_rss_bytes'] / 1e6:,.0f} MB{columns}"
    )


def _rate(value: float) -> str:
    """Format a rate: as an integer from 10 on, with two digits below."""
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"  # noqa: PLR2004
