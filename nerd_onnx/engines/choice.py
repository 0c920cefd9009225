"""``--engine`` and what goes with it: the options, and what an engine cannot honour."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import click

from nerd_onnx.errors import OptionError

if TYPE_CHECKING:  # loading it takes time that --help has not
    from nerd_onnx.tagging.job import TagJob

EngineName = Literal["local", "ray", "spark"]


@dataclass(frozen=True)
class EngineChoice:
    """
    Who does the work.

    :param engine: this process, or the workers of Ray or Spark
    :param workers: most workers at the same time; None for what processors and files allow
    :param engine_address: Ray's address or Spark's master; None for what the engine's own settings say
    :param ship_model: send the model along; without, the workers read it themselves
    """

    engine: EngineName = "local"
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
        Refuse what the engine cannot honour: its workers know one file each, and nothing of the others.

        :raises OptionError: for the first such option
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
        Choose workers, and processors of each: one, and more where there are fewer files than processors.

        :param cpus: processors of the cluster
        :param node_cpus: most processors of one machine
        :param threads: processors of a worker, where the user chose
        """
        at_once = min(files, self.workers or files)
        threads = threads or max(1, min(node_cpus, cpus // at_once))
        return min(at_once, max(1, cpus // threads)), threads


def engine_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options of :class:`EngineChoice`."""
    options = (
        click.option(
            "--engine",
            type=click.Choice(["local", "ray", "spark"]),
            default="local",
            help="Who tags: this process, or the workers of Ray or Spark, a file each.",
        ),
        click.option(
            "--workers",
            type=click.IntRange(min=1),
            help="Most workers of the engine, of --threads processors each.  [default: as files and processors allow]",
        ),
        click.option(
            "--engine-address",
            help="Ray's address or Spark's master.  [default: RAY_ADDRESS or a running Ray, spark-submit's, else here]",
        ),
        click.option(
            "--ship-model/--no-ship-model",
            default=True,
            help="Send --model to the engine's workers; without, they read it under the same path or from the hub.",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command
