"""
Processor time of ``nerd-tag`` by stage: read, tokenize, model, decode, write.

``python -m benchmarks.measurements.stages SOURCE TARGET`` tags a file, and prints the processor time of each stage. The
clock is an observer of :mod:`nerd_onnx.stages`. A stage runs on the thread that calls it, so the clock of that thread
counts its work and not its waiting. The threads of the tokenizer are off for this reason; its total work is the same.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

STAGES = ("read", "tokenize", "model", "decode", "write", "other")


class StageClock:
    """
    Counts processor time by stage.

    If a stage calls another stage, the time of the inner stage counts only for the inner one.

    :ivar seconds: processor time by stage
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._lock = threading.Lock()
        self._local = threading.local()

    def run(self, stage: str, action: Callable[[], Any]) -> Any:
        """Run an action as part of a stage, and return its result."""
        outer = getattr(self._local, "inner_s", 0.0)

        # Time of the stages inside this one, which does not count for it.
        self._local.inner_s = 0.0
        begin = time.thread_time()

        try:
            return action()
        finally:
            spent = time.thread_time() - begin
            with self._lock:
                self.seconds[stage] += spent - self._local.inner_s
            self._local.inner_s = outer + spent


@click.command("benchmarks.measurements.stages")
@click.argument("source", type=click.Path(path_type=Path, exists=True))
@click.argument("target", type=click.Path(path_type=Path))
@click.option("--model", type=click.Path(path_type=Path), help="Bundle.  [default: the default model]")
def main(source: Path, target: Path, model: Path | None) -> None:
    """Tag SOURCE twice to TARGET, and print the processor seconds of each stage of the second run as JSON."""
    # The clock of a stage does not see threads that the tokenizer starts.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    from nerd_onnx.stages import observe
    from nerd_onnx.tagger import Tagger
    from nerd_onnx.tagging.job import TagJob
    from nerd_onnx.tagging.run import tag_files

    tagger = Tagger.load(model)
    job = TagJob([str(source)], str(target), overwrite=True)
    tag_files(tagger, job)  # a warm-up, which is not counted

    clock = StageClock()
    observe(clock.run)

    cpu, begin = time.process_time(), time.perf_counter()
    tag_files(tagger, job)
    wall_s, cpu_s = time.perf_counter() - begin, time.process_time() - cpu
    tagger.close()

    seconds = dict(clock.seconds)
    # The two clocks differ by a little, so the rest of a short run could be negative.
    seconds["other"] = max(0.0, cpu_s - sum(seconds.values()))
    stages = {stage: seconds.get(stage, 0.0) for stage in STAGES}
    click.echo(json.dumps({"stages_s": stages, "cpu_s": cpu_s, "wall_s": wall_s, "threads": tagger.threads}))


if __name__ == "__main__":
    main()
