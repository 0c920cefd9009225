"""The plan of a run: everything that follows from the tagger and the job, resolved once."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import pyarrow as pa

from nerd_onnx.formats.interfaces import Format
from nerd_onnx.formats.layouts import Layout
from nerd_onnx.formats.open_input import detect_format
from nerd_onnx.formats.open_output import output_format, terminal_format
from nerd_onnx.formats.registry import format_named
from nerd_onnx.options import TagOptions
from nerd_onnx.storage.location import Location
from nerd_onnx.tagger import Tagger
from nerd_onnx.tagging.file_pairs import FilePair
from nerd_onnx.tagging.job import TagJob
from nerd_onnx.tagging.job_fingerprint import facts_of, options_of
from nerd_onnx.tagging.memory_limits import Limits
from nerd_onnx.tagging.outputs_without_journal import OPTIONS_FACT
from nerd_onnx.tagging.rejects_file import rejected_rows

BATCH_ROWS = 2048
REASONS_SUFFIX = "_error"


@dataclass(frozen=True)
class Plan:
    """
    What a run does, derived from its tagger and its job.

    Each value is derived when it is first needed, and kept: so the first mistake of a user is reported where it
    matters, and a file is opened only if its name does not show its format.

    :param tagger: finds the entities
    :param job: the user's options
    :param retried: the rows that ``--retry-rejects`` names, by file, None for all rows of a file; None without it
    """

    tagger: Tagger
    job: TagJob
    retried: Mapping[str, frozenset[int] | None] | None = None
    _output_formats: dict[Location, Format] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def of(cls, tagger: Tagger, job: TagJob) -> Plan:
        """
        Return the plan of a run.

        :raises InputError: if the file given as ``--retry-rejects`` is not a rejects file
        """
        return cls(tagger, job, None if job.retried_place is None else rejected_rows(job.retried_place))

    @cached_property
    def pairs(self) -> list[FilePair]:
        """The files to tag: all of the job's, or those that the retried rows are from."""
        return [pair for pair in self.job.pairs if self.retried is None or pair.name in self.retried]

    def retried_rows(self, pair: FilePair) -> frozenset[int] | None:
        """Return the numbers of the rows to tag; None for all rows."""
        return None if self.retried is None else self.retried[pair.name]

    def output_format(self, pair: FilePair) -> Format:
        """
        Return an output's format, see :func:`output_format_of`.

        :raises InputError: if the input has to be read for it and cannot be
        :raises OutputError: if the output's name shows another format
        """
        if pair.output not in self._output_formats:
            self._output_formats[pair.output] = output_format_of(self.job, pair)
        return self._output_formats[pair.output]

    @property
    def is_lenient(self) -> bool:
        """Whether a row that cannot be read or tagged is rejected, instead of ending the run."""
        return self.job.on_error != "fail"

    @cached_property
    def limits(self) -> Limits:
        """The sizes that keep the run within ``--max-memory``."""
        return Limits.of(self.job.max_memory, self.tagger.bundle.model_file.stat().st_size)

    @property
    def batch_rows(self) -> int:
        """Number of rows read at a time: at most those that a crash may cost."""
        # The results of a chunk are whole batches.
        return min(BATCH_ROWS, self.job.chunk_rows or BATCH_ROWS)

    @cached_property
    def layout(self) -> Layout:
        """
        Where the entities are written. Wide columns have the labels' names, after a prefix if ``--column`` is given.

        :raises OptionError: if the new columns would have invalid or equal names
        """
        column = self.tagger.options.column
        # The default column's name would only make the names of the labels longer.
        prefix = "" if column == TagOptions.column else f"{column}_"

        tagger, job = self.tagger, self.job
        layout = Layout(
            tagger.entity_field(), job.layout, tagger.kept_types, prefix, job.key, tagger.options.text_columns
        )
        layout.check_names()
        return layout

    @property
    def reasons_field(self) -> pa.Field | None:
        """Name and type of the column with the reasons of rejected rows; None if rejected rows are not written."""
        column = self.tagger.options.column + REASONS_SUFFIX
        return pa.field(column, pa.string()) if self.job.on_error == "null" else None

    @property
    def added_columns(self) -> tuple[str, ...]:
        """Names of the columns that the outputs have and the inputs do not."""
        reasons = [] if self.reasons_field is None else [self.reasons_field]
        return tuple(field.name for field in (*self.layout.fields, *reasons))

    def rewritten_because(self, pair: FilePair) -> str:
        """Return why an output cannot copy the columns of its input, as far as the options say; else empty."""
        job, written = self.job, format_named(self.output_format(pair))
        if not written.copies_columns:
            return f"the output is {written.title}"
        if self.layout.is_long:
            return "--layout long has other rows"

        # A copy has all rows of its input.
        if self.retried is not None:
            return "--retry-rejects may leave rows out"
        if job.limit is not None:
            return "--limit may leave rows out"
        return "--on-error skip may leave rows out" if job.on_error == "skip" else ""

    @cached_property
    def options(self) -> dict[str, Any]:
        """The options that decide the content of the outputs."""
        return options_of(self.tagger, self.job)

    @cached_property
    def metadata(self) -> dict[str, str]:
        """The metadata of the outputs' schema: see :meth:`Tagger.schema_metadata`, and the options."""
        # Not a part of the run's fingerprint, because a run may be resumed with another --on-error.
        options = {**self.options, "--on-error": self.job.on_error}
        return self.tagger.schema_metadata(**self.layout.facts, **{OPTIONS_FACT: json.dumps(options)})

    @cached_property
    def facts(self) -> dict[str, Any]:
        """The fingerprint of the run: an interrupted run is resumed only by a run with equal facts."""
        return facts_of(self.tagger, self.job, self.options)


def output_format_of(job: TagJob, pair: FilePair) -> Format:
    """Return an output's format: as asked, else ``text`` for a terminal, else by its name, else its input's."""
    asked = job.output_format or terminal_format(pair.output, job.layout)
    return output_format(pair.output, asked, lambda: detect_format(pair.input, job.input_format))
