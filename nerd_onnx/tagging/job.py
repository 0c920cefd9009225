"""The job of a run, and the report of what the run did."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from nerd_onnx.durability.totals import Totals
from nerd_onnx.errors import OptionError
from nerd_onnx.formats.column_types import ALL_TEXT, ColumnTypes
from nerd_onnx.formats.interfaces import Format
from nerd_onnx.formats.layouts import LayoutName
from nerd_onnx.machine.memory import peak_rss_bytes
from nerd_onnx.storage.location import STANDARD_STREAM, Location
from nerd_onnx.tagging.file_pairs import FilePair, file_pairs, is_folder_output, suffix_for

OnError = Literal["fail", "null", "skip"]
Mixed = Literal["refuse", "json"]


@dataclass(frozen=True)
class TagJob:
    """
    The files to tag, their outputs, and the options that the run follows.

    :param inputs: files, globs and folders, also URIs; or ``-`` alone for standard input
    :param output: a file, ``-`` for standard output, or the folder that mirrors several inputs; also a URI
    :param input_format: None to detect it by suffix, then by content
    :param output_format: None to detect it by suffix, else the input's
    :param limit: read at most this number of rows of each file
    :param overwrite: existing outputs may be replaced, and the work of an interrupted run discarded
    :param overwrite_column: an existing column of the new name may be replaced
    :param resume: resume an interrupted run, and keep finished outputs
    :param verify: read the content of finished outputs again, and of their inputs, instead of comparing sizes and times
    :param chunk_rows: number of rows that a crash may cost; None for about half a minute of work
    :param on_error: what happens at a row that cannot be read or tagged: ``fail`` stops the run, ``null`` writes it
        with null entities and a reason, ``skip`` leaves it out
    :param rejects: file that records the rejected rows
    :param max_errors: maximum number of rejected rows; the run stops at the next one
    :param retry_rejects: a rejects file: tag only the rows that it names
    :param mixed: what happens to a row of JSON Lines whose field has another type than before, if the output has typed
        columns: ``refuse`` makes it a rejected row, ``json`` stores all values of the field as JSON text
    :param csv_types: types of the columns of CSV and TSV in outputs that can hold types
    :param max_memory: maximum of resident memory in bytes, kept by smaller batches; None for the usual sizes
    :param layout: where the entities are written, see :class:`Layout`
    :param key: column that identifies the rows of the long layout; None for the number of the row in its file
    :param work_dir: folder for the state of runs to remote storage; None for the user's cache
    """

    inputs: Sequence[str]
    output: str
    input_format: Format | None = None
    output_format: Format | None = None
    limit: int | None = None
    overwrite: bool = False
    overwrite_column: bool = False
    resume: bool = False
    verify: bool = False
    chunk_rows: int | None = None
    on_error: OnError = "fail"
    rejects: str | None = None
    max_errors: int | None = None
    retry_rejects: str | None = None
    mixed: Mixed = "refuse"
    csv_types: ColumnTypes = ALL_TEXT
    max_memory: int | None = None
    layout: LayoutName = "nested"
    key: str | None = None
    work_dir: str | None = None

    def __post_init__(self) -> None:
        if self.on_error == "skip" and self.rejects is None:
            raise OptionError(
                "--on-error skip needs --rejects FILE, or the skipped rows would leave no record",
                reason="skip-needs-rejects",
                option="--on-error",
            )

        if self.on_error == "fail" and (self.rejects is not None or self.max_errors is not None):
            raise OptionError(
                "--rejects and --max-errors need --on-error null or --on-error skip",
                reason="rejects-need-on-error",
                option="--on-error",
            )

        if self.key is not None and self.layout != "long":
            raise OptionError("--key needs --layout long", reason="key-needs-long", option="--key")

        if self.layout == "long" and self.on_error == "null":
            raise OptionError(
                "--on-error null cannot be combined with --layout long: it writes a row for a rejected row, and the "
                "long layout has rows for entities only; use --on-error skip",
                reason="null-with-long",
                option="--on-error",
            )

        if self.resume and STANDARD_STREAM in (*self.inputs, self.output):
            raise OptionError(
                "--resume needs files: standard input and output cannot be read a second time",
                reason="resume-needs-files",
                option="--resume",
            )

    @cached_property
    def input_places(self) -> list[Location]:
        """The inputs, parsed."""
        return [Location.of(name) for name in self.inputs]

    @cached_property
    def output_place(self) -> Location:
        """The output, parsed."""
        return Location.of(self.output)

    @cached_property
    def rejects_place(self) -> Location | None:
        """The file that records the rejected rows, parsed; None without one."""
        return None if self.rejects is None else Location.of(self.rejects)

    @cached_property
    def retried_place(self) -> Location | None:
        """The rejects file whose rows are tagged, parsed; None without one."""
        return None if self.retry_rejects is None else Location.of(self.retry_rejects)

    @cached_property
    def many(self) -> bool:
        """Whether the output is a folder."""
        return is_folder_output(self.input_places, self.output_place)

    @property
    def may_refuse(self) -> bool:
        """Whether an unreadable one of several files is recorded in the rejects file instead of ending the run."""
        return self.many and self.rejects is not None

    @property
    def pairs(self) -> list[FilePair]:
        """The files to tag, each with its output."""
        return self._selection[0]

    @property
    def passed_over(self) -> dict[str, int]:
        """Number of files in the folders that have no known format, in order of their suffix; linked folders too."""
        return dict(sorted((name, count) for name, count in self._selection[1].items() if count))

    @cached_property
    def _selection(self) -> tuple[list[FilePair], Counter[str]]:
        passed_over: Counter[str] = Counter()
        pairs = file_pairs(
            self.input_places, self.output_place, lambda path: suffix_for(path, self.output_format), passed_over
        )
        return pairs, passed_over


@dataclass
class TagReport(Totals):
    """
    The result of a run: its counts and its duration.

    :param files: files that were written
    :param resumed_rows: rows whose results an earlier run had stored
    :param resumed_tokens: tokens of these rows
    :param finished_before: files that were finished before this run
    :param remade_files: finished files whose output was missing or cut, so that they were tagged again
    :param damaged_lines: lines of the journal that did not count, because they or a line before them were damaged
    :param damaged_chunks: chunks of stored results that did not count for this reason
    :param rewritten_because: why the columns of a Parquet output were not copied, once per file
    :param seconds: wall time of the run
    """

    files: int = 0
    resumed_rows: int = 0
    resumed_tokens: int = 0
    finished_before: int = 0
    remade_files: int = 0
    damaged_lines: int = 0
    damaged_chunks: int = 0
    rewritten_because: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def summary(self) -> dict[str, Any]:
        """
        Return the report as plain data, as ``--json`` prints it.

        Rates count only what this run tagged itself, per second of wall time; memory is in bytes.
        """
        seconds = max(self.seconds, 1e-9)

        return {
            "status": "done with rejects" if self.rejected or self.refused_files else "done",
            "files": self.files,
            "refused_files": self.refused_files,
            "finished_before": self.finished_before,
            "remade_files": self.remade_files,
            "damaged_lines": self.damaged_lines,
            "damaged_chunks": self.damaged_chunks,
            "copied_files": self.copied_files,
            "rewritten_because": sorted(set(self.rewritten_because)),
            "rows": self.rows,
            "resumed_rows": self.resumed_rows,
            "null_rows": self.null_rows,
            "written": self.written,
            "rejected": self.rejected,
            "entities": self.entities,
            "tokens": self.tokens,
            "seconds": round(self.seconds, 4),
            "rows_per_s": round((self.rows - self.resumed_rows) / seconds, 2),
            "tokens_per_s": round((self.tokens - self.resumed_tokens) / seconds, 2),
            "peak_rss_bytes": peak_rss_bytes(),
        }
