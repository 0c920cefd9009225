"""``nerd-tag``: options to :func:`tag_files` to report. The only place of the runtime that prints and exits."""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any, NoReturn

import click

from nerd_onnx import __version__
from nerd_onnx.cli.common import Failure, complete_folders, run_command, settings
from nerd_onnx.cli.messages import plan, resuming_command, summary_line
from nerd_onnx.engines.choice import EngineChoice, engine_options
from nerd_onnx.errors import InterruptedRunError
from nerd_onnx.formats.registry import readable_formats, writable_formats
from nerd_onnx.terminal import printable

_JOB_OPTIONS = (
    *("input_format", "output_format", "limit", "overwrite", "overwrite_column"),
    *("resume", "chunk_rows", "on_error", "rejects", "max_errors", "retry_rejects", "max_memory", "layout", "key"),
    "work_dir",
)
_ENGINE_OPTIONS = ("engine", "workers", "engine_address", "ship_model")
_REJECTS_CODE = 3
_TAG_OPTIONS = ("batch_tokens", "threads", "min_score", "precision", "offset_unit", "text_column", "column")
_YES = ("1", "true", "t", "yes", "y", "on")  # what click takes for a set flag


def _version(context: click.Context, _parameter: click.Parameter, asked: bool) -> None:  # noqa: FBT001 - click's call
    """Tell the versions and the processor's features that decide speed and kernels."""
    if not asked:
        return
    import onnxruntime

    from nerd_onnx.inference.cpu import cpu_features, integer_kernels

    features = ", ".join(cpu_features()) or "unknown"
    click.echo(
        f"nerd-tag {__version__} (onnxruntime {onnxruntime.__version__}; processor features: {features}; "
        f"kernels: {integer_kernels()})"
    )
    context.exit()


def _size(_context: click.Context, _parameter: click.Parameter, text: str | None) -> int | None:
    """Read a size in bytes."""
    from nerd_onnx.tagging.memory_limits import size_of

    try:
        return None if text is None else size_of(text)
    except ValueError as err:
        raise click.BadParameter(str(err)) from err


@click.command("nerd-tag", context_settings=settings("NERD"))
@click.argument("paths", metavar="INPUT... OUTPUT", nargs=-1, type=click.Path())
@click.option(
    "--model",
    shell_complete=complete_folders,
    help="Model bundle, Hugging Face or Optimum folder, or hub id.  [default: the one inside]",
)
@click.option("--text-column", default="text", help="Column or field to tag.")
@click.option("--column", default="entities", help="Name of the new column.")
@click.option(
    "--format",
    "input_format",
    type=click.Choice([known.name for known in readable_formats()]),
    help="Input format, where its name does not tell.",
)
@click.option(
    "--output-format",
    type=click.Choice([known.name for known in writable_formats()]),
    help="Output format.  [default: text on a terminal; else what its name tells, else the input's]",
)
@click.option(
    "--layout",
    type=click.Choice(["nested", "wide", "long"]),
    default="nested",
    help="One column of entities; or a column a label, named by it, behind --column where that is given; or a row an "
    "entity, with the key of its row.",
)
@click.option("--key", help="Column that is the key in the long layout.  [default: row, its number in its file from 0]")
@click.option("--labels", help="Keep only these labels, coarse or fine, comma-separated.")
@click.option(
    "--min-score",
    type=click.FloatRange(0, 1),
    help="Keep only entities with this score or more; 0 keeps all that may be one, however unlikely.  [default: the "
    "model's own, of best F1]",
)
@click.option(
    "--precision",
    type=click.FloatRange(0, 1, min_open=True),
    help="Keep only entities of which so large a share was right where the model was calibrated, by type.",
)
@click.option(
    "--offset-unit",
    type=click.Choice(["codepoint", "utf8", "utf16"]),
    default="codepoint",
    help="Unit of start and end.",
)
@click.option("--limit", type=click.IntRange(min=0), help="Stop after so many rows of each file.")
@click.option("--batch-tokens", type=click.IntRange(min=1), default=512, help="Most tokens in one call of the network.")
@click.option(
    "--threads", type=click.IntRange(min=1), help="Calls at the same time.  [default: the processors it may use]"
)
@click.option(
    "--max-memory", callback=_size, help="Keep to so much memory, 2GB or 500MB, by smaller batches.  [default: any]"
)
@click.option("--overwrite", is_flag=True, help="Replace an existing OUTPUT, and start an unfinished run anew.")
@click.option("--resume", is_flag=True, help="Go on with an unfinished run, to the same bytes; keep finished files.")
@click.option(
    "--chunk-rows", type=click.IntRange(min=1), help="Rows of work that a crash may cost.  [default: half a minute's]"
)
@click.option(
    "--on-error",
    type=click.Choice(["fail", "null", "skip"]),
    default="fail",
    help="A row that cannot be read or tagged: stop, give it null entities and a reason, or leave it out. With null "
    "and skip, one of several files that cannot be read is left out.",
)
@click.option(
    "--rejects", type=click.Path(), help="File for the places and reasons of such rows and files, as JSON Lines."
)
@click.option("--max-errors", type=click.IntRange(min=0), help="Stop at more such rows.  [default: any number]")
@click.option("--retry-rejects", type=click.Path(), help="Tag only the rows that this file of rejects names.")
@click.option(
    "--work-dir",
    type=click.Path(file_okay=False),
    help="Local folder for the work that --resume needs when OUTPUT is in a store.  [default: ~/.cache/nerd-onnx/work]",
)
@click.option("--overwrite-column", is_flag=True, help="Replace an existing column of the new name.")
@engine_options
@click.option("--dry-run", is_flag=True, help="Check everything and tell the plan; write nothing.")
@click.option(
    "--json",
    "as_json",
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
def command(paths: tuple[str, ...], *, as_json: bool, quiet: bool, dry_run: bool, **options: Any) -> None:
    """
    Add named entities to INPUT and write it to OUTPUT.

    INPUT and OUTPUT are Parquet or JSON Lines (.jsonl, also .gz and .zst), here or in stores (s3://, gs://, hf:// and
    other URIs); - is standard input and output. Several INPUTs, a folder or a quoted glob go to a folder OUTPUT that
    mirrors them. A file appears whole or not at all, a stream as far as it got. Rows, their order and all other columns
    stay as they are. The summary goes to stderr.

    Exit codes: 0 done, 1 a fault of input, output or model, 2 of the options, 3 done with rejected rows, 130 and 143
    stopped by a signal. What was done before a stop or a crash is kept: go on with --resume.

    \b
    Examples:
      nerd-tag articles.parquet tagged.parquet
      nerd-tag posts.jsonl.gz tagged.parquet --text-column body --labels person,location
      nerd-tag crawl/ tagged/ --on-error skip --rejects rejects.jsonl
      nerd-tag s3://bucket/crawl/ s3://bucket/tagged/ --resume
      zcat posts.jsonl.gz | nerd-tag - - --min-score 0.8 > tagged.jsonl
      nerd-tag --engine ray crawl/ tagged/
    """  # noqa: D301 - the backspace tells click to keep the lines
    from nerd_onnx.engines.run import jobs_of
    from nerd_onnx.tagger import Tagger
    from nerd_onnx.tagging.checks import check_job
    from nerd_onnx.tagging.job import TagJob
    from nerd_onnx.tagging.previous_runs import done_before

    *sources, target = _whole(paths)
    job = TagJob(sources, target, **{name: options[name] for name in _JOB_OPTIONS})
    choice = EngineChoice(**{name: options[name] for name in _ENGINE_OPTIONS})
    choice.check(job)
    check_job(job)
    if options["threads"]:
        os.environ.setdefault("RAYON_NUM_THREADS", str(options["threads"]))  # the tokenizer's threads
    begin = time.perf_counter()
    labels = _label_list(options["labels"])
    tagger = Tagger.load(options["model"], labels=labels, **{name: options[name] for name in _TAG_OPTIONS})
    load_seconds = time.perf_counter() - begin
    if dry_run:
        jobs = [job] if choice.is_local else jobs_of(job)
        _tell_plan({**plan(tagger, job), **done_before(tagger, jobs), "engine": choice.engine}, as_json=as_json)
        return
    summary = _tag(tagger, job, choice, show_progress=not (quiet or as_json))
    summary["load_seconds"] = round(load_seconds, 4)
    if as_json:
        click.echo(json.dumps(summary), err=True)
    elif not quiet:
        click.echo(summary_line(summary), err=True)
    if summary["rejected"] or summary["refused_files"]:
        sys.exit(_REJECTS_CODE)


def _whole(paths: tuple[str, ...]) -> tuple[str, ...]:
    """Refuse fewer paths than one INPUT and the OUTPUT, and name the one that is missing."""
    if len(paths) > 1:
        return paths
    raise click.UsageError(f"Missing argument '{'OUTPUT' if paths else 'INPUT...'}'.")


def _tag(tagger: Any, job: Any, choice: EngineChoice, *, show_progress: bool) -> dict[str, Any]:
    """Tag the files and give the summary, with what made it."""
    from nerd_onnx.storage.location import without_secrets

    if choice.is_local:
        summary = _tag_here(tagger, job, show_progress=show_progress)
    else:
        from nerd_onnx.engines.run import tag_on_engine

        sys.stdout = sys.stderr  # where Ray tells of workers that died, also at its own end
        summary = tag_on_engine(choice, tagger, job)
    bundle = tagger.bundle
    model = {"model": bundle.name, "model_sha256": bundle.model_sha256, "kernels": bundle.kernels}
    return {**summary, "output": without_secrets(job.output), **model}


def _tag_here(tagger: Any, job: Any, *, show_progress: bool) -> dict[str, Any]:
    """Tag the files in this process; a signal ends the run with its work safe."""
    from nerd_onnx.cli.progress import progress_on_stderr
    from nerd_onnx.cli.signals import StopSignals
    from nerd_onnx.tagging.run import tag_files

    progress = progress_on_stderr() if show_progress else None
    try:
        with StopSignals() as signals:
            return tag_files(tagger, job, progress, lambda: signals.number).summary()
    except InterruptedRunError as err:
        if err.safe_rows:
            err.args = (f"{err}; continue with: {resuming_command(sys.argv[1:])}",)
        raise
    finally:
        if progress is not None:
            progress.close()
        tagger.close()


def _label_list(text: str | None) -> tuple[str, ...] | None:
    return None if text is None else tuple(name.strip() for name in text.split(",") if name.strip())


def _tell_plan(facts: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(facts), err=True)
        return
    for key, value in facts.items():
        none = "unknown" if key == "rows" else "none"  # what nobody can know yet, and an option that was not given
        shown = ", ".join(value) if isinstance(value, list) else none if value is None else value
        click.echo(printable(f"{key.replace('_', ' ')}: {shown}"), err=True)


def _tell_failure(failure: Failure) -> None:
    """Report an error in one line, or as JSON where --json is given, even if the options could not all be read."""
    if "--json" in sys.argv[1:] or os.environ.get("NERD_JSON", "").lower() in _YES:
        click.echo(json.dumps({"status": "failed", **failure.facts}), err=True)
    else:
        click.echo(f"nerd-tag: error: {printable(failure.message)}", err=True)


def main() -> NoReturn:
    """Entry point of ``nerd-tag``."""
    run_command(command, _tell_failure)


if __name__ == "__main__":
    main()
