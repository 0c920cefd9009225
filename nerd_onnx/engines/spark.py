"""
Spark: ``tag(frame)`` maps Arrow batches in the Python workers of the executors; each worker has one model.

Installed with ``pip install 'nerd-onnx[spark]'`` and needs Java; every executor needs nerd-onnx in its Python.
"""

from __future__ import annotations

import os
import re
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from nerd_onnx.engines.choice import EngineChoice
from nerd_onnx.engines.model_archive import WorkerModel, for_workers
from nerd_onnx.engines.worker import FileTasks, Outcome, check_columns, process_tagger, tag_table
from nerd_onnx.errors import EngineError, MissingExtraError, OptionError, first_line
from nerd_onnx.machine.cpu import available_cpus
from nerd_onnx.tagger import Tagger

_QUIET = Path(__file__).with_name("quiet.log4j2.properties")
_ATTEMPTS = 4  # per task, the default of Spark on a cluster
# Folders with what was sent, by archive name. Executors read them until the driver ends.
_sent: dict[str, tempfile.TemporaryDirectory[str]] = {}


def tag(
    frame: Any,
    *,
    model: str | None = None,
    ship_model: bool = True,
    cpus_per_task: int | None = None,
    replace_column: bool = False,
    **options: Any,
) -> Any:
    """
    Return a Spark data frame with the entities column added. The rows are identical to those of a local run. Of several
    text columns, each has its own entities column.

    :param frame: a ``pyspark.sql.DataFrame`` with the text column; all columns are kept
    :param model: folder, URI or hub id, see :meth:`Tagger.load`; None for the default model
    :param ship_model: whether the model is sent; otherwise every executor reads it from the same path in shared storage
    :param cpus_per_task: number of threads per task; None for ``spark.task.cpus``
    :param replace_column: whether an existing column with the name of the new one is replaced
    :param options: ``text_column``, ``column``, ``labels``, ``min_score`` and others of :class:`TagOptions`
    :return: a lazy frame; Spark retries a task whose worker dies (in local mode only with ``local[N,4]``)
    :raises MissingExtraError: when PySpark is not installed
    :raises InputError: when a text column is missing
    :raises OutputError: when a new column exists and may not be replaced
    :raises NerdError: when the model or the options are wrong
    """
    _pyspark()
    threads = cpus_per_task or int(frame.sparkSession.conf.get("spark.task.cpus", "1"))
    # Loaded here too, so that errors are found before any task runs.
    tagger = Tagger.load(model, **{**options, "threads": threads})
    schema = _extended(frame, tagger, replace_column=replace_column)

    worker_model, archive = for_workers(tagger.bundle, ship=ship_model, uri=tagger.model_uri)
    if archive:
        _send(_context(frame.sparkSession), worker_model, archive)

    # A variable of its own, because Spark sends what the function refers to, and that must not be the tagger.
    tag_options = tagger.options

    def tag_rows(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        worker = process_tagger(worker_model, tag_options, _fetch(worker_model))
        for batch in batches:
            yield from tag_table(worker, pa.Table.from_batches([batch]), replace_column=replace_column).to_batches()

    return frame.mapInArrow(tag_rows, schema)


def run_files(tasks: FileTasks, archive: bytes, choice: EngineChoice) -> Iterator[Outcome]:
    """
    Tag files with one task per file and yield their outcomes.

    :param archive: archive of the model to send; empty if nothing is sent
    :raises EngineError: when Spark cannot be started, or aborts the job
    """
    _pyspark()
    files = len(tasks.jobs)

    try:
        spark, threads = _session(choice, files, tasks.options.threads)
        tasks = tasks.with_threads(threads)
        if archive:
            _send(spark.sparkContext, tasks.model, archive)

        def tag_files(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            for batch in batches:
                found = [tasks.run(number, _fetch(tasks.model)) for number in batch.column(0).to_pylist()]
                column = pa.array([outcome.to_json() for outcome in found], pa.string())
                yield pa.RecordBatch.from_arrays([column], names=["outcome"])

        # One partition per file, because Spark retries and schedules partitions.
        rows = spark.range(0, files, 1, files).mapInArrow(tag_files, "outcome string").collect()
    except _failures() as err:
        # The error of Python often has no details.
        reason = getattr(err, "java_exception", None) or err
        raise EngineError(f"Spark: {first_line(reason)}", reason="spark-failed") from err

    for row in rows:
        yield Outcome.from_json(row["outcome"])


def _session(choice: EngineChoice, files: int, threads: int | None) -> tuple[Any, int]:
    """
    Start Spark, or join the session that ``spark-submit`` started.

    :return: the session, and the number of processors per task
    :raises OptionError: when the cluster decides the number of workers
    """
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    os.environ.setdefault("SPARK_SUBMIT_OPTS", f"-Dlog4j2.configurationFile={_QUIET.as_uri()}")
    from pyspark import SparkConf
    from pyspark.sql import SparkSession

    settings = SparkConf()
    master = choice.engine_address or settings.get("spark.master", None) or "local[*]"

    builder = SparkSession.builder.appName("nerd-tag").config("spark.ui.showConsoleProgress", "false")
    builder = builder.config("spark.speculation", "false")  # two tasks would write one file

    # One process is the whole cluster: local, local[2], local[*] or local[2,4].
    if found := re.fullmatch(r"local(?:\[(\d+|\*)(?:,\s*\d+)?\])?", master):
        cpus = available_cpus() if found[1] in (None, "*") else int(found[1])
        workers, threads = choice.sizes(files, cpus, cpus, threads)
        master = f"local[{workers * threads},{_ATTEMPTS}]"

        builder = builder.config("spark.ui.enabled", "false").config("spark.driver.bindAddress", "127.0.0.1")
        builder = builder.config("spark.driver.host", "127.0.0.1")
    else:
        threads = threads or int(settings.get("spark.task.cpus", "1") or 1)
        if choice.workers and not master.startswith("spark://"):
            raise OptionError(
                f"--workers: {master} takes the number of workers from its own settings; use --conf "
                "spark.executor.instances=",
                reason="workers-set-by-cluster",
                option="--workers",
            )

        # A standalone cluster starts as many workers as the processors of the application allow.
        if choice.workers:
            builder = builder.config("spark.cores.max", str(choice.workers * threads))

    # PySpark sets a handler of its own, which would print a traceback.
    handler = signal.getsignal(signal.SIGINT)
    spark = builder.master(master).config("spark.task.cpus", str(threads)).getOrCreate()
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, handler)

    return spark, threads


def _extended(frame: Any, tagger: Tagger, *, replace_column: bool) -> Any:
    """Return the schema with the new columns, at the end or in place of the column with that name."""
    from pyspark.sql.pandas.types import from_arrow_type
    from pyspark.sql.types import StructField, StructType

    check_columns(frame.columns, tagger.options, replace_column=replace_column)
    added = {field.name: StructField(field.name, from_arrow_type(field.type)) for field in tagger.entity_fields()}

    fields = [added.pop(field.name, field) for field in frame.schema.fields]
    return StructType([*fields, *added.values()])


def _context(spark: Any) -> Any:
    """
    Return the Spark context of a session; files are sent through it.

    :raises OptionError: for Spark Connect, which has no context
    """
    try:
        return spark.sparkContext
    except Exception as err:  # the class of the error depends on the version of PySpark
        raise OptionError(
            "a model cannot be sent to the workers over Spark Connect; pass ship_model=False",
            reason="no-spark-context",
            option="ship_model",
        ) from err


def _send(context: Any, model: WorkerModel, archive: bytes) -> None:
    """Send the archive of a model to the executors, under a name that is unique to the model."""
    name = _archive_name(model)
    if name not in _sent:
        _sent[name] = tempfile.TemporaryDirectory(prefix="nerd-")
        Path(_sent[name].name, name).write_bytes(archive)

    context.addFile(str(Path(_sent[name].name, name)))


def _fetch(model: WorkerModel) -> Callable[[], bytes]:
    """Return a function that reads the archive of the model on a worker."""

    def fetch() -> bytes:
        from pyspark import SparkFiles

        return Path(SparkFiles.get(_archive_name(model))).read_bytes()

    return fetch


def _archive_name(model: WorkerModel) -> str:
    return f"nerd-onnx-model-{model.digest}.tar"


def _pyspark() -> Any:
    """
    Import PySpark.

    :raises MissingExtraError: if it is not installed
    """
    try:
        import pyspark
    except ImportError as err:
        raise MissingExtraError(
            "PySpark is not installed; install it with: pip install 'nerd-onnx[spark]'",
            reason="spark-missing",
            extra="spark",
        ) from err
    return pyspark


def _failures() -> tuple[type[Exception], ...]:
    """Return the errors that PySpark raises when Spark cannot be started, or aborts the job."""
    from py4j.protocol import Py4JError
    from pyspark.errors import PySparkException

    return PySparkException, Py4JError
