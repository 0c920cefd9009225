"""``--engine`` and its options, and the check that the chosen engine supports the options of the job."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from nerd_onnx.engines.base import ENGINES
from nerd_onnx.errors import OptionError

if TYPE_CHECKING:  # --help must not wait for this import
    from nerd_onnx.tagging.job import TagJob


@dataclass(frozen=True)
class EngineChoice:
    """
    The engine that runs a job, and its settings.

    :param engine: ``local`` for this process, or the name of an engine
    :param workers: maximum number of workers at the same time; None for as many as processors and files allow
    :param engine_address: address of Ray or master of Spark; None to use the engine's own settings
    :param ship_model: whether the model is sent to the workers; otherwise they read it themselves
    :raises OptionError: when an option of engines is given for the local engine
    """

    engine: str = "local"
    workers: int | None = None
    engine_address: str | None = None
    ship_model: bool = True

    def __post_init__(self) -> None:
        if self.engine == "local" and (self.workers or self.engine_address or not self.ship_model):
            raise OptionError(
                "--workers, --engine-address and --no-ship-model need --engine ray or --engine spark",
                reason="needs-engine",
                option="--engine",
            )

    @property
    def is_local(self) -> bool:
        """Whether this process does the work."""
        return self.engine == "local"

    def check(self, job: TagJob) -> None:
        """
        Check that the engine supports the options of the job.

        Each worker handles one file and does not know the others, so nothing can be counted or collected across files.

        :raises OptionError: for the first option that the engine does not support
        """
        if self.is_local:
            return

        if "-" in (*job.inputs, job.output):
            raise OptionError(
                f"--engine {self.engine} needs files: its workers have no standard input and output",
                reason="engine-needs-files",
                option="--engine",
            )

        asked = {"--rejects": job.rejects, "--max-errors": job.max_errors, "--retry-rejects": job.retry_rejects}
        for name, value in asked.items():
            if value is not None:
                raise OptionError(
                    f"{name} works with --engine local only; with {self.engine}, use --on-error null",
                    reason="needs-local-engine",
                    option=name,
                )

    def sizes(self, files: int, cpus: int, node_cpus: int, threads: int | None) -> tuple[int, int]:
        """
        Return the number of workers and the processors per worker.

        A worker gets one processor, and more if there are fewer files than processors.

        :param files: number of files
        :param cpus: processors of the cluster
        :param node_cpus: processors of the largest machine
        :param threads: processors per worker; None to choose
        """
        at_once = min(files, self.workers or files)
        threads = threads or max(1, min(node_cpus, cpus // at_once))
        return min(at_once, max(1, cpus // threads)), threads


def engine_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of :class:`EngineChoice` to a command."""
    options = (
        click.option(
            "--engine",
            type=click.Choice(["local", *ENGINES]),
            default="local",
            help="What tags the files. local: this process. ray and spark: workers of a cluster, each one file at a "
            "time.",
        ),
        click.option(
            "--workers",
            type=click.IntRange(min=1),
            help="Maximum number of worker processes on the cluster. Each takes --threads processors.  [default: the "
            "number of files or of processors, whichever is smaller]",
        ),
        click.option(
            "--engine-address",
            help="The cluster: host:port or ray://host:port of Ray, or the master URL of Spark, such as "
            "spark://host:7077.  [default: Ray's RAY_ADDRESS or a Ray that runs on this machine; the master of "
            "spark-submit; else a cluster is started on this machine for the run]",
        ),
        click.option(
            "--ship-model/--no-ship-model",
            default=True,
            help="Whether the files of --model are sent to the workers. With --no-ship-model, each worker reads the "
            "model from the same path or from the Hugging Face Hub.",
        ),
    )
    # click lists the option first that was added last.
    for option in reversed(options):
        command = option(command)
    return command
