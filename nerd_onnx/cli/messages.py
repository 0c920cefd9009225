"""Texts that ``nerd-tag`` prints: the plan, the summary line and the command that resumes a run."""

from __future__ import annotations

import os
import shlex
import string
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nerd_onnx.cli.progress import duration
from nerd_onnx.errors import InputError, OutputError
from nerd_onnx.terminal import counted, printable

if TYPE_CHECKING:  # --help and --version must not wait for these imports
    from nerd_onnx.formats.base import Reader
    from nerd_onnx.inference.bundle import Bundle
    from nerd_onnx.tagger import Tagger
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
_FIRST = (
    *("files", "rows", "estimated_seconds", "input", "output", "output_format", "text_column", "new_columns"),
    *("model", "labels", "min_score"),
)


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


def plan(tagger: Tagger, job: TagJob) -> dict[str, Any]:
    """
    Return what a run would do, after opening all inputs.

    :raises InputError: when an input cannot be opened and such files are not skipped
    :raises OutputError: when the new column exists already and may not be replaced
    """
    from nerd_onnx.formats.columns import column_exists
    from nerd_onnx.machine.cpu import thread_plan
    from nerd_onnx.storage.input_stream import input_name
    from nerd_onnx.tagging.estimate import estimated_seconds
    from nerd_onnx.tagging.job_fingerprint import plain_names
    from nerd_onnx.tagging.pipeline import open_pair_reader, rewritten_because
    from nerd_onnx.tagging.plan import Plan

    inputs = [path.without_secrets for path in job.input_places]
    rows: int | None = 0
    run = Plan.of(tagger, job)
    layout = run.layout
    new_columns = [field.name for field in layout.fields]
    refused = copied = 0
    rewritten: set[str] = set()
    columns: list[str] = []
    types: list[str] = []

    for pair in job.pairs:
        try:
            with open_pair_reader(run, pair) as opened:
                columns = columns or list(opened.column_names)
                types = types or _types_of(opened)
                known = opened.num_rows
                copied += opened.copied is not None
                rewritten |= {rewritten_because(run, pair, opened)}

                taken = next((name for name in new_columns if name in opened.column_names), None)
                if taken is not None and not job.overwrite_column:
                    what = "field" if opened.schema is None else "column"
                    raise OutputError(
                        column_exists(input_name(pair.input), taken, what=what),
                        reason="column-exists",
                        file=input_name(pair.input),
                        column=taken,
                    )
        except InputError:
            if not job.may_refuse:
                raise
            refused, known = refused + 1, 0

        # One input of unknown length makes the sum unknown.
        rows = None if rows is None or known is None else rows + known

    return {
        "status": "planned",
        "input": inputs[0] if len(inputs) == 1 else inputs,
        "output": job.output_place.without_secrets,
        "output_format": run.output_format(job.pairs[0]),
        "files": len(job.pairs),
        "refused_files": refused,
        "passed_over": job.passed_over,
        "copied_files": copied,
        "rewritten_because": sorted(filter(None, rewritten)),
        "rows": rows,
        "estimated_seconds": estimated_seconds(run),
        "columns": columns,
        "types": types,
        "text_column": plain_names(tagger.options),
        "layout": job.layout,
        "new_columns": new_columns or [layout.key_name, *(field.name for field in layout.row_fields)],
        "model": tagger.bundle.name,
        "graph": tagger.bundle.model_file.name,
        "other_graphs": list(tagger.bundle.other_graphs),
        "quantization": tagger.bundle.quantization,
        "labels": list(tagger.options.labels or tagger.labels.types),
        "labels_of_the_model": list(tagger.labels.known),
        "min_score": tagger.min_score,
        "precision": tagger.options.precision,
        "join": tagger.join,
        "offset_unit": tagger.options.offset_unit,
        "limit": job.limit,
        "segment_tokens": tagger.bundle.segment_tokens,
        "batch_tokens": tagger.options.batch_tokens,
        "kernel": tagger.kernel,
        "kernels": tagger.kernels,
        "threads": tagger.threads,
        "thread_plan": thread_plan(tagger.options.threads),
    }


def _types_of(source: Reader) -> list[str]:
    """Return the types of the columns; none for raw lines."""
    return [] if source.schema is None else [str(kind) for kind in source.schema.types]


def guess_note(job: TagJob) -> str | None:
    """Return the line about the format that standard input seems to have; None if it is sure, or nothing is read."""
    from nerd_onnx.formats.readers import guessed_format
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


def plan_lines(facts: Mapping[str, Any]) -> Iterator[str]:
    """Yield a plan as lines for people: first numbers of files and rows and the time, then the other facts."""
    for key in [*(key for key in _FIRST if key in facts), *(key for key in facts if key not in _FIRST)]:
        value = facts[key]
        if key == "estimated_seconds":
            yield f"time: {_time(value)}"
            continue
        if key == "passed_over":
            yield f"other files: {passed_over(value) if value else 'none'}"
            continue
        # The rows of a text file are not known before it is read; None elsewhere means that an option is not set.
        none = "unknown" if key == "rows" else "none"
        shown = ", ".join(value) or "none" if isinstance(value, list) else none if value is None else value
        yield f"{key.replace('_', ' ')}: {f'{shown:,}' if type(shown) is int else shown}"


def _time(seconds: float | None) -> str:
    """Return the estimate of a run's time."""
    if seconds is None:
        return "unknown"
    return f"{'less than a second' if seconds < 1 else f'about {duration(seconds)}'}, estimated from the first texts"


def passed_over(numbers: Mapping[str, int]) -> str:
    """Return how many files of folders are not tagged, and their suffixes: ``3 files not tagged: .pdf, .txt``."""
    return f"{counted(sum(numbers.values()), 'file')} not tagged: {', '.join(printable(name) for name in numbers)}"


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
