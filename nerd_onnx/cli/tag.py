"""``nerd-tag``: read the options, run :func:`tag_files`, print the summary and exit with a code."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NoReturn

import click

from nerd_onnx import __version__
from nerd_onnx.cli.common import COLUMN_NAME, Failure, complete_folders, is_set, run_command, settings
from nerd_onnx.cli.grouped_help import GroupedCommand
from nerd_onnx.cli.messages import graph_note, guess_note, resuming_command, summary_line
from nerd_onnx.cli.streams import json_message, message
from nerd_onnx.engines.choice import EngineChoice, engine_options
from nerd_onnx.errors import InterruptedRunError
from nerd_onnx.formats.registry import readable_formats, writable_formats
from nerd_onnx.terminal import counted

_JOB_OPTIONS = (
    *("input_format", "output_format", "limit", "overwrite", "overwrite_column", "resume", "verify", "chunk_rows"),
    *("on_error", "rejects", "max_errors", "retry_rejects", "mixed", "csv_types", "max_memory", "layout", "key"),
    "work_dir",
)
_ENGINE_OPTIONS = ("engine", "workers", "engine_address", "ship_model")
_REJECTS_CODE = 3
_TAG_OPTIONS = (
    *("batch_tokens", "threads", "min_score", "precision", "offset_unit", "text_column", "column", "kernel", "join"),
)
_HEADINGS = {
    "--text": "Input and output",
    "--model": "Model and entities",
    "--on-error": "Rejected rows",
    "--resume": "Resume",
    "--threads": "Speed and memory",
    "--engine": "Engines: a cluster of Ray or Spark",
    "--dry-run": "Messages",
}


def _version(context: click.Context, _parameter: click.Parameter, asked: bool) -> None:  # noqa: FBT001 - click's call
    """Print the versions and the processor features that decide speed and kernels."""
    if not asked:
        return
    import onnxruntime

    from nerd_onnx.inference.kernels import native_support
    from nerd_onnx.machine.cpu import cpu_features, integer_kernels

    features = ", ".join(cpu_features()) or "unknown"
    click.echo(
        f"nerd-tag {__version__} (onnxruntime {onnxruntime.__version__}; processor features: {features}; "
        f"kernels: {integer_kernels()}; native encoder: {native_support()})"
    )
    context.exit()


def _size(_context: click.Context, _parameter: click.Parameter, text: str | None) -> int | None:
    """Return a size such as ``2GB`` in bytes."""
    from nerd_onnx.tagging.memory_limits import size_of

    try:
        return None if text is None else size_of(text)
    except ValueError as err:
        raise click.BadParameter(str(err)) from err
    except OverflowError as err:
        raise click.BadParameter(f"{text} is too large") from err


def _csv_types(_context: click.Context, _parameter: click.Parameter, text: str) -> Any:
    """Return the types of columns that ``--csv-types`` names."""
    from nerd_onnx.formats.column_types import ColumnTypes

    return ColumnTypes.parse(text)


@click.command("nerd-tag", cls=GroupedCommand, headings=_HEADINGS, context_settings=settings("NERD"))
@click.argument("paths", metavar="INPUT... OUTPUT", nargs=-1, type=click.Path())
@click.option(
    "--text",
    help="Tag this text instead of INPUT and print it: with its entities marked on a terminal or with --output-format "
    "text, else as JSON.",
)
@click.option(
    "--text-column",
    type=COLUMN_NAME,
    default=("text",),
    multiple=True,
    help="Column (JSON Lines: field) with the texts to tag. May be repeated: each text column then has its own new "
    "column, such as title_entities for title. NAME[] tags each element of a column with lists of texts.",
)
@click.option(
    "--column",
    type=COLUMN_NAME,
    default="entities",
    help="Name of the new column. With several text columns, it follows the name of the text column, as in "
    "title_entities.",
)
@click.option(
    "--overwrite-column", is_flag=True, help="Replace an existing column that has the name of the new column."
)
@click.option(
    "--format",
    "input_format",
    type=click.Choice([known.name for known in readable_formats()]),
    help="Format of INPUT.  [default: by its name or its first bytes; for standard input, also by its first line]",
)
@click.option(
    "--output-format",
    type=click.Choice([known.name for known in writable_formats()]),
    help="Format of OUTPUT. text shows the texts with their entities marked.  [default: text if OUTPUT is - on a "
    "terminal; else by its name; else the format of INPUT]",
)
@click.option(
    "--mixed",
    type=click.Choice(["refuse", "json"]),
    default="refuse",
    help="What happens to a JSON Lines field with values of several types, if OUTPUT is not JSON Lines. refuse: a row "
    "with another type than the rows before is rejected. json: all values of the field become JSON text.",
)
@click.option(
    "--csv-types",
    callback=_csv_types,
    default="text",
    help="Types of the columns of CSV and TSV, if OUTPUT is another format. text: all columns are text. auto: each "
    "column gets the type that fits all its values. NAME=TYPE,...: these columns have these types, and the others are "
    "text. auto,NAME=TYPE,...: the others get their types as with auto. FILE.json: names and types from a file. A row "
    "with a value that does not fit is rejected.",
)
@click.option(
    "--layout",
    type=click.Choice(["nested", "wide", "long"]),
    default="nested",
    help="nested: one list column. wide: one list column per label, with --column as prefix if it is given. long: one "
    "row per entity, with the key of its source row.",
)
@click.option(
    "--key",
    type=COLUMN_NAME,
    help="For --layout long: a column of INPUT, such as an id. Each entity gets the value of its row.  "
    "[default: the number of the row in its file, from 0, in a column named row]",
)
@click.option("--limit", type=click.IntRange(min=0), help="Tag only the first rows of each file, up to this number.")
@click.option(
    "--overwrite", is_flag=True, help="Replace an existing OUTPUT. An interrupted run is discarded and starts again."
)
@click.option(
    "--model",
    shell_complete=complete_folders,
    help="The model: a folder that nerd-export wrote, or another folder with an ONNX model, its tokenizer.json and "
    "config.json; the URI of such a folder; or the name of a model on the Hugging Face Hub, owner/name.  [default: the "
    "model in this package]",
)
@click.option(
    "--labels",
    help="Keep only entities with these labels, coarse or fine, separated by commas, such as person,location.",
)
@click.option(
    "--min-score",
    type=click.FloatRange(0, 1),
    help="Keep only entities with at least this score, the same for all labels. 0 keeps all candidates, also those "
    "that are probably wrong. To choose the share of right entities instead, use --precision.  [default: the model's "
    "own threshold, which gives the best F1]",
)
@click.option(
    "--precision",
    type=click.FloatRange(0, 1, min_open=True),
    help="Share of the kept entities that should be right, such as 0.9. Each label then has its own minimum score, "
    "which nerd-export measured on labelled text. It replaces the model's own threshold.",
)
@click.option(
    "--join",
    type=click.Choice(["touching", "scheme"]),
    help="touching: entities with the same label inside one written word, such as an e-mail address, are joined. "
    "scheme: only the tags of the model decide where an entity ends.  [default: as recorded in the model; else scheme "
    "if the model tags whole written words, as models of nerd-train do, and touching if it tags pieces of words]",
)
@click.option(
    "--offset-unit",
    type=click.Choice(["codepoint", "utf8", "utf16"]),
    default="codepoint",
    help="Unit of the offsets start and end.",
)
@click.option(
    "--on-error",
    type=click.Choice(["fail", "null", "skip"]),
    default="fail",
    help="What happens to a rejected row: one that cannot be read or tagged. fail: the run stops. null: the row has "
    "null entities, and the reason in a column whose name ends in _error. skip: the row is left out, which needs "
    "--rejects. With null and skip, and several INPUTs, a file that cannot be read is left out too.",
)
@click.option(
    "--rejects",
    type=click.Path(),
    help="Write the place and reason of rejected rows and files to this JSON Lines file. Needs --on-error null or "
    "skip.",
)
@click.option(
    "--max-errors",
    type=click.IntRange(min=0),
    help="Stop after more than this number of rejected rows. Needs --on-error null or skip.  [default: no limit]",
)
@click.option("--retry-rejects", type=click.Path(), help="Tag only the rows that are listed in this rejects file.")
@click.option(
    "--resume",
    is_flag=True,
    help="Resume an interrupted run of the same command; the output is byte-identical to an uninterrupted run. "
    "Finished files are kept.",
)
@click.option(
    "--verify",
    is_flag=True,
    help="Compare the whole content of finished outputs, and of the inputs of files that an earlier run finished, with "
    "what was recorded. Without this option, only size, file identity (inode) and times are compared.",
)
@click.option(
    "--chunk-rows",
    type=click.IntRange(min=1),
    help="Rows between two saves. A crash loses at most this work.  [default: rows with 500,000 tokens]",
)
@click.option(
    "--work-dir",
    type=click.Path(file_okay=False),
    help="Local folder for the state that --resume needs when OUTPUT is in remote storage.  [default: "
    "~/.cache/nerd-onnx/work]",
)
@click.option(
    "--threads",
    type=click.IntRange(min=1),
    help="Number of threads, each of which runs one batch at a time. With --engine: threads of each worker.  [default: "
    "one per available processor; with --engine: 1, or more if there are fewer files than processors]",
)
@click.option(
    "--batch-tokens",
    type=click.IntRange(min=1),
    default=512,
    help="Maximum number of tokens in one batch. It changes speed and memory, not the entities.",
)
@click.option(
    "--kernel",
    type=click.Choice(["auto", "native", "portable", "onnxruntime"]),
    default="auto",
    help="What computes the network. native: the encoder in C++, with the same results to the last bit on every "
    "processor. portable: the same without special instructions, slow. auto: native, if it is installed, fast on this "
    "processor and able to compute the model; else onnxruntime.",
)
@click.option(
    "--max-memory",
    callback=_size,
    help="Memory limit, such as 2GB or 500MB. The run uses smaller batches, and stops if that is not enough.  "
    "[default: no limit]",
)
@engine_options
@click.option("--dry-run", is_flag=True, help="Check files, model and options, print the plan, and write nothing.")
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print the summary, or the error, as one JSON object on standard error.",
)
@click.option("--quiet", is_flag=True, help="Print only errors.")
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    allow_from_autoenv=False,
    expose_value=False,
    callback=_version,
    help="Print versions and processor features.",
)
def command(
    paths: tuple[str, ...], *, text: str | None, as_json: bool, quiet: bool, dry_run: bool, **options: Any
) -> None:
    """
    Add named entities to the texts of INPUT and write the result to OUTPUT.

    INPUT and OUTPUT are Parquet, Arrow, JSON Lines, CSV or TSV files. INPUT may also be plain text (.txt). Files are
    local or in remote storage (s3://, gs://, hf:// and other URIs). All formats except Parquet and Arrow may be
    compressed (.gz, .zst, .xz, .bz2). If INPUT is several files, a folder or a quoted glob, OUTPUT is a folder with the
    same structure. - is standard input or output. A terminal shows the texts with their entities marked.

    Rows, their order and all other columns stay unchanged, unless --on-error skip, --limit, --retry-rejects or --layout
    long is given. The summary goes to standard error.

    OUTPUT gets its name only when it is complete, so a run that fails leaves no incomplete file. Standard output is
    complete only if the exit code is 0 or 3.

    Exit codes: 0 done; 1 error in input, output or model; 2 error in the options; 3 done, with rejected rows or files;
    130 and 143 stopped by a signal. The work before a stop or a crash is saved: repeat the command with --resume.

    Every option can also be set by an environment variable: NERD_ and the option's name, such as NERD_MIN_SCORE.

    \b
    Examples:
      nerd-tag --text "Angela Merkel met Emmanuel Macron in Paris."
      nerd-tag articles.parquet tagged.parquet
      nerd-tag posts.jsonl.gz tagged.parquet --text-column body --labels person,location
      nerd-tag crawl/ tagged/ --on-error skip --rejects rejects.jsonl
      nerd-tag s3://bucket/crawl/ s3://bucket/tagged/ --resume
      zcat posts.jsonl.gz | nerd-tag - - --min-score 0.8 > tagged.jsonl
      echo "Angela Merkel met Emmanuel Macron in Paris." | nerd-tag -
      nerd-tag --engine ray crawl/ tagged/
    """  # noqa: D301 - the backspace tells click to keep the lines
    from nerd_onnx.engines.run import jobs_of
    from nerd_onnx.tagging.checks import check_job
    from nerd_onnx.tagging.job import TagJob
    from nerd_onnx.tagging.previous_runs import done_before

    # Checks that need no model come first: they are fast.
    if text is not None:
        _tag_text(text, paths, options)
        return

    *sources, target = _require_paths(paths)
    job = TagJob(sources, target, **{name: options[name] for name in _JOB_OPTIONS})

    choice = EngineChoice(**{name: options[name] for name in _ENGINE_OPTIONS})
    choice.check(job)
    check_job(job)

    if not (quiet or as_json) and (note := guess_note(job)) is not None:
        message(note)

    # The tokenizer has threads of its own, and takes their number from here when it is first used.
    if options["threads"]:
        os.environ.setdefault("RAYON_NUM_THREADS", str(options["threads"]))

    begin = time.perf_counter()
    tagger = _load(options)
    load_seconds = time.perf_counter() - begin

    if tagger.bundle.other_graphs and not (quiet or as_json):
        message(graph_note(tagger.bundle))

    if dry_run:
        from nerd_onnx.cli.dry_run import plan_facts

        jobs = [job] if choice.is_local else jobs_of(job)
        _print_plan({**plan_facts(tagger, job), **done_before(tagger, jobs), "engine": choice.engine}, as_json=as_json)
        return

    summary = _tag(tagger, job, choice, show_progress=not (quiet or as_json))
    summary["load_seconds"] = round(load_seconds, 4)
    if as_json:
        json_message(summary)
    elif not quiet:
        message(summary_line(summary))

    if summary["rejected"] or summary["refused_files"]:
        sys.exit(_REJECTS_CODE)


def _require_paths(paths: tuple[str, ...]) -> tuple[str, ...]:
    """Return the paths; raise a usage error that names INPUT or OUTPUT if one is missing. - alone is both."""
    if len(paths) > 1:
        return paths
    if paths == ("-",):
        return ("-", "-")
    raise click.UsageError(f"Missing argument '{'OUTPUT' if paths else 'INPUT...'}'.")


def _load(options: dict[str, Any]) -> Any:
    from nerd_onnx.tagger import Tagger

    labels = _label_list(options["labels"])
    return Tagger.load(options["model"], labels=labels, **{name: options[name] for name in _TAG_OPTIONS})


def _tag_text(text: str, paths: tuple[str, ...], options: dict[str, Any]) -> None:
    """Tag one text and print it: as a file of one row, so that all options mean what they mean for files."""
    if paths:
        raise click.UsageError("--text takes the place of INPUT and OUTPUT; leave these out.")
    if len(options["text_column"]) > 1:
        raise click.UsageError("--text is one text; give --text-column once at most.")

    from nerd_onnx.formats.text_arrays import column_of, has_elements
    from nerd_onnx.storage.location import STANDARD_STREAM
    from nerd_onnx.tagging.job import TagJob

    with tempfile.TemporaryDirectory(prefix="nerd-") as folder:
        source = Path(folder, "text.jsonl")
        name = options["text_column"][0]
        row = {column_of(name): [text] if has_elements(name) else text}
        source.write_text(json.dumps(row) + "\n", "utf-8")

        chosen = {name: options[name] for name in _JOB_OPTIONS if name != "input_format"}
        job = TagJob([str(source)], STANDARD_STREAM, **chosen)

        _tag_here(_load(options), job, show_progress=False)


def _tag(tagger: Any, job: Any, choice: EngineChoice, *, show_progress: bool) -> dict[str, Any]:
    """Tag the files and return the summary, with the output and the model that was used."""
    if choice.is_local:
        summary = _tag_here(tagger, job, show_progress=show_progress)
    else:
        from nerd_onnx.engines.run import tag_on_engine

        # Ray prints on standard output which workers died, also when it ends itself, so this is not undone. Rows are
        # never written there: EngineChoice.check() refuses it.
        sys.stdout = sys.stderr
        summary = tag_on_engine(choice, tagger, job)

    bundle = tagger.bundle
    model = {"model": bundle.name, "model_sha256": bundle.model_sha256}
    kernels = {"kernel": tagger.kernel, "kernels": tagger.kernels}

    paths = {"output": job.output_place.without_secrets, "passed_over": job.passed_over}
    return {**summary, **paths, **model, **kernels}


def _tag_here(tagger: Any, job: Any, *, show_progress: bool) -> dict[str, Any]:
    """Tag the files in this process and return the summary; a signal stops the run, and its work is saved."""
    from nerd_onnx.cli.progress import Display
    from nerd_onnx.interruption import deferring, requested
    from nerd_onnx.tagging.run import tag_files
    from nerd_onnx.tagging.run_meter import RunMeter

    meter = RunMeter()
    display = Display(meter) if show_progress else None
    try:
        with deferring():
            return tag_files(tagger, job, stop=requested, meter=meter).summary()
    except InterruptedRunError as err:
        if err.safe_rows:
            saved = f"{counted(err.safe_rows, 'row is', 'rows are')} saved"
            err.args = (f"Interrupted. {saved}. Resume with: {resuming_command(sys.argv[1:])}",)
        raise
    finally:
        if display is not None:
            display.close()

        # Python waits for the worker threads when the process ends, and a batch may take long.
        tagger.close()


def _label_list(text: str | None) -> tuple[str, ...] | None:
    return None if text is None else tuple(name.strip() for name in text.split(",") if name.strip())


def _print_plan(facts: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        json_message(facts)
        return

    from nerd_onnx.cli.dry_run import plan_lines

    for line in plan_lines(facts):
        message(line)


def _print_failure(failure: Failure) -> None:
    """Print an error in one line, or as JSON with --json, even if the options could not be parsed."""
    if "--json" in sys.argv[1:] or is_set("NERD_JSON"):
        json_message({"status": "failed", **failure.facts})
    else:
        message(f"nerd-tag: error: {failure.message}")


def _report_stuck(number: int) -> None:
    """Print that the process ends in the middle of a step, and how the run is resumed."""
    err = InterruptedRunError(number)
    text = "Interrupted in the middle of a step that did not end"
    if "-" not in sys.argv[1:]:
        text += f". What was saved before is safe; resume with: {resuming_command(sys.argv[1:])}"

    _print_failure(Failure(err.code, text, err.reason, err.fields))


def main() -> NoReturn:
    """Entry point of ``nerd-tag``."""
    from nerd_onnx.cli.progress import acknowledge_stop
    from nerd_onnx.cli.signals import StopSignals

    # The options are not parsed yet: a signal may arrive before.
    is_quiet = {"--json", "--quiet"} & {*sys.argv[1:]} or is_set("NERD_JSON") or is_set("NERD_QUIET")

    # Each thread of OpenBLAS takes memory, and no text needs a matrix product of numpy.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    with StopSignals(_report_stuck, None if is_quiet else acknowledge_stop):
        run_command(command, _print_failure)


if __name__ == "__main__":
    main()
