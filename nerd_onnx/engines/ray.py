"""
Ray Data: ``tag(dataset)`` maps batches in a pool of actors; each actor has one model.

Installed with ``pip install 'nerd-onnx[ray]'``; every node needs nerd-onnx in its Python.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa

from nerd_onnx.engines.choice import EngineChoice
from nerd_onnx.engines.model_archive import WorkerModel, for_workers
from nerd_onnx.engines.worker import BATCH_ROWS, FileTasks, Outcome, check_columns, process_tagger, tag_table
from nerd_onnx.errors import EngineError, MissingExtraError, OptionError, first_line
from nerd_onnx.tagger import Tagger, TagOptions

_ATTEMPTS = 4  # per file, the first one included
_REACH_S = 10.0


def tag(
    dataset: Any,
    *,
    model: str | None = None,
    ship_model: bool = True,
    workers: int | None = None,
    cpus_per_worker: int = 1,
    batch_rows: int = BATCH_ROWS,
    replace_column: bool = False,
    **options: Any,
) -> Any:
    """
    Return a Ray data set with the entities column added. Rows and their order are identical to a local run. Of several
    text columns, each has its own entities column.

    :param dataset: a ``ray.data.Dataset`` with the text column; all columns are kept
    :param model: folder, URI or hub id, see :meth:`Tagger.load`; None for the default model
    :param ship_model: whether the model is sent; otherwise every node reads it from the same path in shared storage
    :param workers: maximum number of actors at the same time; None for as many as the cluster has processors for
    :param cpus_per_worker: number of processors that each actor reserves, and of its threads
    :param batch_rows: maximum number of rows in one call
    :param replace_column: whether an existing column with the name of the new one is replaced
    :param options: ``text_column``, ``column``, ``labels``, ``min_score`` and others of :class:`TagOptions`
    :return: a lazy data set; Ray replaces an actor that dies and tags its blocks again
    :raises MissingExtraError: when Ray is not installed
    :raises NerdError: when the model, the options or the names of columns (if they are known already) are wrong
    """
    ray = _ray(data_sets=True)
    # Loaded here too, so that errors are found before any actor starts.
    tagger = Tagger.load(model, **{**options, "threads": cpus_per_worker})
    # The schema is not fetched: for that, Ray would run a part of the data set's plan.
    if (schema := dataset.schema(fetch_if_missing=False)) is not None:
        check_columns(schema.names, tagger.options, replace_column=replace_column)

    worker_model, archive = for_workers(tagger.bundle, ship=ship_model, uri=tagger.model_uri)
    cpus = int(ray.cluster_resources().get("CPU", 1))
    tagged = dataset.map_batches(
        _TagRows,
        batch_format="pyarrow",
        batch_size=batch_rows,
        fn_constructor_args=(worker_model, tagger.options, _sent(ray, archive), replace_column),
        num_cpus=cpus_per_worker,
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=workers or max(1, cpus // cpus_per_worker)),
    )

    # Off by default in Ray, which then returns blocks as they are finished.
    tagged.context.execution_options.preserve_order = True
    return tagged


def run_files(tasks: FileTasks, archive: bytes, choice: EngineChoice) -> Iterator[Outcome]:
    """
    Tag files with one task per file and yield their outcomes.

    Ray reuses its worker processes for many tasks, so each process loads the model once.

    :param archive: archive of the model to send; empty if nothing is sent
    :raises EngineError: when Ray cannot be started or reached, or aborts the job
    :raises OptionError: when no machine has enough processors for a worker
    """
    # Ray would hold back messages about dead workers, and print them after the summary.
    os.environ.setdefault("RAY_DEDUP_LOGS", "0")
    ray = _ray()
    with _cluster(ray, choice.engine_address):
        # By machine and not only in total: a task cannot use processors of two machines.
        nodes = [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]

        _, threads = choice.sizes(len(tasks.jobs), sum(nodes), max(nodes), tasks.options.threads)
        if threads > max(nodes) > 0:  # Ray would wait forever for such a machine
            raise OptionError(
                f"--threads {threads}: the largest machine of this Ray cluster has {max(nodes)} processors; use a "
                "smaller number",
                reason="too-many-threads",
                option="--threads",
                found=threads,
                maximum=max(nodes),
            )

        sent = ray.put((tasks.with_threads(threads), _sent(ray, archive)))
        task = ray.remote(num_cpus=threads, max_retries=_ATTEMPTS - 1)(_tag_file)
        running: list[Any] = []

        # Ray has no limit on the number of running tasks, so a new one is submitted only when one is done.
        for number in range(len(tasks.jobs)):
            if len(running) == choice.workers:
                done, running = ray.wait(running)
                yield ray.get(done[0])
            running.append(task.remote(sent, number))
        yield from ray.get(running)


def _tag_file(sent: tuple[FileTasks, Any], number: int) -> Outcome:
    """Tag a file in a worker process of Ray."""
    tasks, archive = sent
    return tasks.run(number, _fetch(archive))


class _TagRows:
    """An actor that tags batches; it loads the model once."""

    def __init__(self, model: WorkerModel, options: TagOptions, archive: Any, replace_column: bool) -> None:  # noqa: FBT001
        self._tagger = process_tagger(model, options, _fetch(archive))
        self._replace_column = replace_column

    def __call__(self, table: pa.Table) -> pa.Table:
        return tag_table(self._tagger, table, replace_column=self._replace_column)


@contextmanager
def _cluster(ray: Any, address: str | None) -> Iterator[None]:
    """
    Join a cluster, or start a local one without its log messages, and leave it at the end.

    :raises EngineError: when Ray cannot be started or reached, or aborts the job
    """
    try:
        # Ray itself would try for minutes.
        if address is not None:
            _check_reachable(address)
        ray.init(address, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    # Ray raises its own errors, OSError, and plain Exception if its processes do not start.
    except Exception as err:
        raise EngineError(f"Ray cannot be started or reached: {first_line(err)}", reason="ray-unreachable") from err

    try:
        yield
    except ray.exceptions.RayError as err:
        raise EngineError(f"Ray: {first_line(getattr(err, 'cause', None) or err)}", reason="ray-failed") from err
    finally:
        ray.shutdown()


def _check_reachable(address: str) -> None:
    """
    Check that a server listens at ``host:port``.

    :raises OSError: when none does
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host, int(port)), timeout=_REACH_S).close()


def _sent(ray: Any, archive: bytes) -> Any:
    """Put the archive into Ray's object store and return its reference, or None if nothing is sent."""
    return ray.put(archive) if archive else None


def _fetch(archive: Any) -> Callable[[], bytes]:
    """Return a function that fetches the archive of the model on a worker."""

    def fetch() -> bytes:
        import ray

        content: bytes = ray.get(archive)
        return content

    return fetch


def _ray(*, data_sets: bool = False) -> Any:
    """
    Import Ray.

    :param data_sets: whether Ray Data is imported too, which takes longer
    :raises MissingExtraError: if it is not installed
    """
    try:
        import ray

        if data_sets:
            import ray.data
    except ImportError as err:
        raise MissingExtraError(
            "Ray Data is not installed; install it with: pip install 'nerd-onnx[ray]'",
            reason="ray-missing",
            extra="ray",
        ) from err
    return ray
