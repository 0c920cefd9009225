"""``nerd-tag``: options to :func:`tag_file` to report. The only place of the runtime that prints and exits."""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any, NoReturn

import click

from nerd_onnx import __version__
from nerd_onnx.errors import NerdError

_CONTROL = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0)) if code != ord("\n")}
_JOB_OPTIONS = ("input_format", "output_format", "limit", "overwrite", "overwrite_column")
_TAG_OPTIONS = ("batch_tokens", "threads", "min_score", "offset_unit", "text_column", "column")
_YES = ("1", "true", "t", "yes", "y", "on")  # what click takes for a set flag


def _version(context: click.Context, _parameter: click.Parameter, asked: bool) -> None:  # noqa: FBT001 - click's call
    """Tell the versions and the processor's features that decide speed and kernels."""
    if not asked:
        return
    import onnxruntime

    from nerd_onnx.inference.session import cpu_features

    features = ", ".join(cpu_features()) or "unknown"
    click.echo(f"nerd-tag {__version__} (onnxruntime {onnxruntime.__version__}; processor features: {features})")
    context.exit()


@click.command("nerd-tag", context_settings={"auto_envvar_prefix": "NERD", "show_default": True})
@click.argument("source", metavar="INPUT", type=click.Path())
@click.argument("target", metavar="OUTPUT", type=click.Path())
@click.option("--model", help="Model bundle, Hugging Face or Optimum folder, or hub id.  [default: the one inside]")
@click.option("--text-column", default="text", help="Column or field to tag.")
@click.option("--column", default="entities", help="Name of the new column.")
@click.option(
    "--format",
    "input_format",
    envvar="NERD_FORMAT",
    type=click.Choice(["parquet", "jsonl"]),
    help="Input format, where its name does not tell.",
)
@click.option(
    "--output-format",
    type=click.Choice(["parquet", "jsonl"]),
    help="Output format.  [default: what its name tells, else the input's]",
)
@click.option("--labels", help="Keep only these labels, coarse or fine, comma-separated.")
@click.option(
    "--min-score", type=click.FloatRange(0, 1), default=0.0, help="Keep only entities with this score or more."
)
@click.option(
    "--offset-unit",
    type=click.Choice(["codepoint", "utf8", "utf16"]),
    default="codepoint",
    help="Unit of start and end.",
)
@click.option("--limit", type=click.IntRange(min=0), help="Stop after so many rows.")
@click.option("--batch-tokens", type=click.IntRange(min=1), default=512, help="Most tokens in one call of the network.")
@click.option(
    "--threads", type=click.IntRange(min=1), help="Calls at the same time.  [default: the processors it may use]"
)
@click.option("--overwrite", is_flag=True, help="Replace an existing OUTPUT.")
@click.option("--overwrite-column", is_flag=True, help="Replace an existing column of the new name.")
@click.option("--dry-run", is_flag=True, help="Check everything and tell the plan; write nothing.")
@click.option(
    "--json",
    "as_json",
    envvar="NERD_JSON",
    is_flag=True,
    help="Print the summary, or the error, as one JSON object on stderr.",
)
@click.option("--quiet", is_flag=True, help="Print nothing but errors.")
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    allow_from_autoenv=False,
    expose_value=False,
    callback=_version,
    help="Tell versions and processor features.",
)
def command(source: str, target: str, *, as_json: bool, quiet: bool, dry_run: bool, **options: Any) -> None:
    """
    Add named entities to INPUT and write it to OUTPUT.

    INPUT and OUTPUT are Parquet or JSON Lines (.jsonl, also .gz and .zst); - is standard input and output; a file
    appears whole or not at all, a stream as far as it got. Rows, their order and all
    other columns stay as they are. The summary goes to stderr; exit code 1 is a fault of input, output or model, 2 of
    the options.

    \b
    Examples:
      nerd-tag articles.parquet tagged.parquet
      nerd-tag posts.jsonl.gz tagged.parquet --text-column body --labels person,location
      zcat posts.jsonl.gz | nerd-tag - - --min-score 0.8 > tagged.jsonl
    """  # noqa: D301 - the backspace tells click to keep the lines
    from nerd_onnx.pipeline import FileJob
    from nerd_onnx.tagger import Tagger

    job = FileJob(source, target, **{name: options[name] for name in _JOB_OPTIONS})
    _check_files(job)
    if options["threads"]:
        os.environ.setdefault("RAYON_NUM_THREADS", str(options["threads"]))  # the tokenizer's threads
    begin = time.perf_counter()
    labels = _label_list(options["labels"])
    tagger = Tagger.load(options["model"], labels=labels, **{name: options[name] for name in _TAG_OPTIONS})
    load_seconds = time.perf_counter() - begin
    if dry_run:
        _tell_plan(plan(tagger, job), as_json=as_json)
        return
    summary = _tag(tagger, job, show_progress=not (quiet or as_json) and sys.stderr.isatty())
    summary["load_seconds"] = round(load_seconds, 4)
    if as_json:
        click.echo(json.dumps(summary, ensure_ascii=False), err=True)
    elif not quiet:
        click.echo(summary_line(summary), err=True)


def _tag(tagger: Any, job: Any, *, show_progress: bool) -> dict[str, Any]:
    """Tag the file and give the summary."""
    from nerd_onnx.pipeline import tag_file

    bar = _Bar() if show_progress else None
    try:
        summary = tag_file(tagger, job, bar).summary()
    finally:
        if bar is not None:
            bar.close()
        tagger.close()
    model = {"model": tagger.bundle.name, "model_sha256": tagger.bundle.model_sha256}
    return {**summary, "output": job.output, **model}


def plan(tagger: Any, job: Any) -> dict[str, Any]:
    """
    Say what a run would do, after opening input and model.

    :raises OutputError: when the new column exists already and may not be replaced
    """
    from nerd_onnx.errors import OutputError
    from nerd_onnx.pipeline import open_job_source, output_format_of
    from nerd_onnx.tables.columns import column_exists

    output_format = output_format_of(job)

    with open_job_source(tagger, job, output_format) as opened:
        rows = opened.num_rows
        columns = list(opened.column_names)
    if tagger.options.column in columns and not job.overwrite_column:
        raise OutputError(column_exists(job.input, tagger.options.column))
    if rows is not None and job.limit is not None:
        rows = min(rows, job.limit)
    return {
        "status": "planned",
        "input": job.input,
        "output": job.output,
        "output_format": output_format,
        "rows": rows,
        "columns": columns,
        "text_column": tagger.options.text_column,
        "new_column": tagger.options.column,
        "model": tagger.bundle.name,
        "quantization": tagger.bundle.quantization,
        "labels": list(tagger.options.labels or tagger.labels.types),
        "min_score": tagger.options.min_score,
        "offset_unit": tagger.options.offset_unit,
        "limit": job.limit,
        "segment_tokens": tagger.bundle.segment_tokens,
        "batch_tokens": tagger.options.batch_tokens,
        "threads": tagger.threads,
    }


def summary_line(summary: dict[str, Any]) -> str:
    """Put the summary into one line for people."""
    nulls = f" ({summary['null_rows']:,} null)" if summary["null_rows"] else ""
    return (
        f"{summary['rows']:,} rows{nulls}, {summary['entities']:,} entities, {summary['tokens']:,} tokens in "
        f"{summary['seconds']:.1f} s: {_rate(summary['rows_per_s'])} rows/s, {summary['tokens_per_s']:,.0f} tokens/s, "
        f"peak memory {summary['peak_rss_bytes'] / 1e6:,.0f} MB"
    )


def _rate(value: float) -> str:
    """Show a rate: whole where it is large, two digits where it is small."""
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"  # noqa: PLR2004


class _Bar:
    """The progress bar: rows, rows/s and time left, on a terminal."""

    def __init__(self) -> None:
        from tqdm import tqdm

        self._bar: Any = tqdm(unit="row", unit_scale=True, file=sys.stderr, leave=False, dynamic_ncols=True)

    def __call__(self, report: Any, source: Any) -> None:
        """Show how far the run is; the end is known by rows, or guessed from the share of bytes read."""
        share = source.progress()
        self._bar.total = source.num_rows or (round(report.rows / share) if share else None)
        self._bar.update(report.rows - self._bar.n)

    def close(self) -> None:
        """Take the bar off the terminal."""
        self._bar.close()


def _check_files(job: Any) -> None:
    """Find mistakes in the file names before the model is loaded."""
    from nerd_onnx.pipeline import output_format_of
    from nerd_onnx.tables.sinks import check_output
    from nerd_onnx.tables.streams import check_readable

    check_readable(job.input)
    output_format_of(job)
    check_output(job.input, job.output, overwrite=job.overwrite)


def _label_list(text: str | None) -> tuple[str, ...] | None:
    return None if text is None else tuple(name.strip() for name in text.split(",") if name.strip())


def _tell_plan(facts: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(facts, ensure_ascii=False), err=True)
        return
    for key, value in facts.items():
        shown = ", ".join(value) if isinstance(value, list) else "unknown" if value is None else value
        click.echo(printable(f"{key.replace('_', ' ')}: {shown}"), err=True)


def printable(text: str) -> str:
    """Write control characters as escapes, so that no file name or label can steer the terminal."""
    return text.translate(_CONTROL)


def _tell_failure(code: str, message: str) -> None:
    """Report a mistake in one line, or as JSON where that was asked for, even if the options could not all be read."""
    if "--json" in sys.argv[1:] or os.environ.get("NERD_JSON", "").lower() in _YES:
        click.echo(json.dumps({"status": "failed", "error": code, "message": message}, ensure_ascii=False), err=True)
    else:
        click.echo(f"nerd-tag: error: {printable(message)}", err=True)


def main() -> NoReturn:
    """Entry point of ``nerd-tag``."""
    try:
        command.main(standalone_mode=False)
    except click.exceptions.Abort:
        click.echo("nerd-tag: interrupted; no output was written", err=True)
        sys.exit(130)
    except click.ClickException as err:
        _tell_failure("usage", f"{err.format_message()} (nerd-tag --help lists the options)")
        sys.exit(err.exit_code)
    except NerdError as err:
        _tell_failure(err.code, str(err))
        sys.exit(err.exit_code)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader went away: no complaint at exit
        sys.exit(1)
    sys.exit(0)


if __name__ == "__main__":
    main()
