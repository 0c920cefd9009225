"""
Ray Data: ``tag(dataset)`` maps batches on a pool of actors, each with one model.

Comes with ``pip install 'nerd-onnx[ray]'``; every node needs nerd-onnx in its Python.
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
from nerd_onnx.engines.model import WorkerModel, for_workers
from nerd_onnx.engines.worker import BATCH_ROWS, FileTasks, Outcome, check_columns, process_tagger, tag_table
from nerd_onnx.errors import EngineError, MissingExtraError, OptionError, first_line
from nerd_onnx.tagger import Tagger, TagOptions

_ATTEMPTS = 4  # of a file
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
    Add the entities column to a Ray data set: the rows, bit for bit, that the local run gives, in their order.

    :param dataset: a ``ray.data.Dataset`` with the text column; all its columns are kept
    :param model: as :meth:`Tagger.load` takes it; None for the model inside
    :param ship_model: send the model along; without, every node reads it under its path here, from shared storage
    :param workers: most actors at the same time; None for what the cluster has room for beside reading and writing
    :param cpus_per_worker: processors that each actor reserves, and threads that it runs
    :param batch_rows: most rows in a call
    :param replace_column: an existing column of the new name is replaced
    :param options: ``text_column``, ``column``, ``labels``, ``min_score`` and the like, as :class:`TagOptions` has them
    :return: the lazy data set; an actor that dies is replaced by Ray, and its blocks are tagged again
    :raises MissingExtraError: when Ray is not installed
    :raises NerdError: when model, options or, where they are known by now, the names of columns are wrong
    """
    ray = _ray(data_sets=True)
    tagger = Tagger.load(model, **{**options, "threads": cpus_per_worker})  # finds mistakes before any actor starts
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
    tagged.context.execution_options.preserve_order = True
    return tagged


def run_files(tasks: FileTasks, archive: bytes, choice: EngineChoice) -> Iterator[Outcome]:
    """
    Tag files, a task each, and yield what came of them.

    Ray's worker processes do task after task, so that each loads the model once.

    :param archive: the model to send along
    :raises EngineError: when Ray cannot be started or reached, or gives up
    :raises OptionError: when no machine has as many processors as a worker is to have
    """
    os.environ.setdefault("RAY_DEDUP_LOGS", "0")  # else it tells of workers that died behind the summary
    ray = _ray()
    with _cluster(ray, choice.engine_address):
        nodes = [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]
        _, threads = choice.sizes(len(tasks.jobs), sum(nodes), max(nodes), tasks.options.threads)
        if threads > max(nodes) > 0:  # Ray would wait for such a machine without end
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
        for number in range(len(tasks.jobs)):
            if len(running) == choice.workers:
                done, running = ray.wait(running)
                yield ray.get(done[0])
            running.append(task.remote(sent, number))
        yield from ray.get(running)


def _tag_file(sent: tuple[FileTasks, Any], number: int) -> Outcome:
    """Tag a file in one of Ray's worker processes."""
    tasks, archive = sent
    return tasks.run(number, _fetch(archive))


class _TagRows:
    """A worker for rows: loads the model once, tags batch after batch."""

    def __init__(self, model: WorkerModel, options: TagOptions, archive: Any, replace_column: bool) -> None:  # noqa: FBT001
        self._tagger = process_tagger(model, options, _fetch(archive))
        self._replace_column = replace_column

    def __call__(self, table: pa.Table) -> pa.Table:
        return tag_table(self._tagger, table, replace_column=self._replace_column)


@contextmanager
def _cluster(ray: Any, address: str | None) -> Iterator[None]:
    """
    Join a cluster, or start one here, quietly, and leave it again: then it has said all that it has to say.

    :raises EngineError: when it cannot be started or reached, or gives up
    """
    try:
        if address is not None:
            _check_reachable(address)  # Ray itself tries for minutes
        ray.init(address, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    except Exception as err:  # Ray's own, the system's, and where its processes do not come up plain ones
        raise EngineError(f"Ray cannot be started or reached: {first_line(err)}", reason="ray-unreachable") from err
    try:
        yield
    except ray.exceptions.RayError as err:
        raise EngineError(f"Ray: {first_line(getattr(err, 'cause', None) or err)}", reason="ray-failed") from err
    finally:
        ray.shutdown()


def _check_reachable(address: str) -> None:
    """
    Check that something listens at a ``host:port``.

    :raises OSError: when nothing does
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host, int(port)), timeout=_REACH_S).close()


def _sent(ray: Any, archive: bytes) -> Any:
    """Put the model where every worker can fetch it; None where nothing is sent."""
    return ray.put(archive) if archive else None


def _fetch(archive: Any) -> Callable[[], bytes]:
    """Give the function that fetches the model that was sent along."""

    def fetch() -> bytes:
        import ray

        content: bytes = ray.get(archive)
        return content

    return fetch


def _ray(*, data_sets: bool = False) -> Any:
    """
    Import Ray.

    :param data_sets: and Ray Data, which takes longer
    :raises MissingExtraError: when it is not installed
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
