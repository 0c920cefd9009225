"""What ``--dry-run`` prints: what a run would do, after opening all inputs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from nerd_onnx.cli.messages import passed_over
from nerd_onnx.cli.progress import duration
from nerd_onnx.errors import InputError, OutputError
from nerd_onnx.formats.columns import column_exists
from nerd_onnx.formats.interfaces import Reader
from nerd_onnx.machine.cpu import thread_plan
from nerd_onnx.storage.input_stream import input_name
from nerd_onnx.tagger import Tagger
from nerd_onnx.tagging.estimate import estimated_seconds
from nerd_onnx.tagging.file_pairs import FilePair
from nerd_onnx.tagging.job import TagJob
from nerd_onnx.tagging.job_fingerprint import plain_names
from nerd_onnx.tagging.pipeline import open_pair_reader, rewritten_because
from nerd_onnx.tagging.plan import Plan

# What people ask first; all other facts follow.
_FIRST = (
    *("files", "rows", "estimated_seconds", "input", "output", "output_format", "text_column", "new_columns"),
    *("model", "labels", "min_score"),
)


@dataclass
class _Inputs:
    """
    What the inputs of a run have, all together.

    :param rows: number of rows; None if a file does not say it
    :param refused: files that cannot be opened
    :param copied: files whose columns are copied byte for byte
    :param rewritten: reasons why columns of other files are not copied
    :param columns: names of the columns of the first file
    :param types: their types; empty for raw lines
    """

    rows: int | None = 0
    refused: int = 0
    copied: int = 0
    rewritten: set[str] = field(default_factory=set)
    columns: list[str] = field(default_factory=list)
    types: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, plan: Plan) -> _Inputs:
        """
        Open all inputs of a run.

        :raises InputError: if one cannot be opened and such files are not skipped
        :raises OutputError: if one has a new column already, which may not be replaced
        """
        found = cls()
        for pair in plan.job.pairs:
            try:
                with open_pair_reader(plan, pair) as opened:
                    found._add(plan, pair, opened)
            except InputError:
                if not plan.job.may_refuse:
                    raise
                found.refused += 1
        return found

    def _add(self, plan: Plan, pair: FilePair, opened: Reader) -> None:
        _check_columns(plan, pair, opened)

        if not self.columns:
            self.columns = list(opened.column_names)
            self.types = [] if opened.schema is None else [str(kind) for kind in opened.schema.types]

        self.copied += opened.copied is not None
        self.rewritten |= {rewritten_because(plan, pair, opened)} - {""}

        # One input of unknown length makes the sum unknown.
        known = opened.num_rows
        self.rows = None if self.rows is None or known is None else self.rows + known


def _check_columns(plan: Plan, pair: FilePair, opened: Reader) -> None:
    """Check that an input has none of the new columns, unless they may be replaced."""
    new = (column.name for column in plan.layout.fields)
    taken = next((name for name in new if name in opened.column_names), None)
    if taken is None or plan.job.overwrite_column:
        return

    file = input_name(pair.input)
    what = "field" if opened.schema is None else "column"
    raise OutputError(column_exists(file, taken, what=what), reason="column-exists", file=file, column=taken)


def plan_facts(tagger: Tagger, job: TagJob) -> dict[str, Any]:
    """
    Return what a run would do, after opening all inputs.

    :raises InputError: when an input cannot be opened and such files are not skipped
    :raises OutputError: when the new column exists already and may not be replaced
    """
    plan = Plan.of(tagger, job)
    inputs = _Inputs.of(plan)
    return {"status": "planned", **_file_facts(plan, inputs), **_model_facts(tagger, job)}


def _file_facts(plan: Plan, inputs: _Inputs) -> dict[str, Any]:
    job, layout = plan.job, plan.layout
    names = [path.without_secrets for path in job.input_places]
    new_columns = [column.name for column in layout.fields]

    return {
        "input": names[0] if len(names) == 1 else names,
        "output": job.output_place.without_secrets,
        "output_format": plan.output_format(job.pairs[0]),
        "files": len(job.pairs),
        "refused_files": inputs.refused,
        "passed_over": job.passed_over,
        "copied_files": inputs.copied,
        "rewritten_because": sorted(inputs.rewritten),
        "rows": inputs.rows,
        "estimated_seconds": estimated_seconds(plan),
        "columns": inputs.columns,
        "types": inputs.types,
        "text_column": plain_names(plan.tagger.options),
        "layout": job.layout,
        "new_columns": new_columns or [layout.key_name, *(column.name for column in layout.row_fields)],
    }


def _model_facts(tagger: Tagger, job: TagJob) -> dict[str, Any]:
    bundle, options = tagger.bundle, tagger.options

    return {
        "model": bundle.name,
        "graph": bundle.model_file.name,
        "other_graphs": list(bundle.other_graphs),
        "quantization": bundle.quantization,
        "labels": list(options.labels or tagger.labels.types),
        "labels_of_the_model": list(tagger.labels.known),
        "min_score": tagger.min_score,
        "precision": options.precision,
        "join": tagger.join,
        "offset_unit": options.offset_unit,
        "limit": job.limit,
        "segment_tokens": bundle.segment_tokens,
        "batch_tokens": options.batch_tokens,
        "kernel": tagger.kernel,
        "kernels": tagger.kernels,
        "threads": tagger.threads,
        "thread_plan": thread_plan(options.threads),
    }


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
        yield f"{key.replace('_', ' ')}: {none if value is None else _shown(value)}"


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(value) or "none"
    return f"{value:,}" if type(value) is int else str(value)


def _time(seconds: float | None) -> str:
    """Return the estimate of a run's time."""
    if seconds is None:
        return "unknown"
    return f"{'less than a second' if seconds < 1 else f'about {duration(seconds)}'}, estimated from the first texts"
