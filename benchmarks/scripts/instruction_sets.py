"""
Measure the native encoder by instruction set: ``python -m benchmarks.scripts.instruction_sets``.

The network runs alone, in one thread, on segments of one length, with each instruction set that this processor has.
onnxruntime runs the same bundle in the same rounds.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.machine import machine_facts
from nerd_onnx.inference.bundle import Bundle
from nerd_onnx.inference.encoding import EncodedBatch
from nerd_onnx.inference.kernels import open_network
from nerd_onnx.inference.native_network import NativeNetwork
from nerd_onnx.inference.session import Network
from nerd_onnx.native.library import PORTABLE, installed

BASELINE = "onnxruntime"
_BATCH_TOKENS = 1024
_CALLS = 3  # per round; the fastest counts


def networks(bundle: Bundle) -> dict[str, Network]:
    """
    Return the network of a bundle in onnxruntime, and in the native encoder with each instruction set but plain C++.

    :raises click.ClickException: where the bundle has no native section, or the native encoder is not installed
    """
    library, layout = installed(), None if bundle.description is None else bundle.description.native
    if library is None or layout is None:
        raise click.ClickException("the native encoder is not installed, or the bundle has no section for it")

    found: dict[str, Network] = {BASELINE: open_network(bundle, "onnxruntime")}
    for path in library.paths:
        # Plain C++ is about 20 times as slow and would only delay the others.
        if path != PORTABLE:
            found[path] = NativeNetwork(bundle.model_file, layout, library, path)

    return found


def measured(members: Mapping[str, Network], tokens: int, rounds: int) -> dict[str, list[float]]:
    """
    Return the seconds of each network by round, for one batch of segments.

    :param tokens: length of a segment
    :param rounds: number of rounds; each runs all networks, so that a slow phase of the machine affects all of them
    """
    # Any ids do: the time depends on shapes alone. The smallest ids are of special tokens and single letters.
    ids = np.random.default_rng(tokens).integers(1000, 15000, (max(1, _BATCH_TOKENS // tokens), tokens))
    batch = EncodedBatch(ids)
    seconds: dict[str, list[float]] = {name: [] for name in members}

    for network in members.values():
        network.logits(batch)  # fills caches

    for _ in range(rounds):
        for name, network in members.items():
            seconds[name].append(min(_timed(network, batch) for _ in range(_CALLS)))

    return seconds


def _timed(network: Network, batch: EncodedBatch) -> float:
    begin = time.perf_counter()
    network.logits(batch)
    return time.perf_counter() - begin


def figures(seconds: Mapping[str, list[float]], tokens: int) -> dict[str, Any]:
    """Return tokens per second, and the paired ratios against onnxruntime: median, lowest and highest."""
    count = tokens * max(1, _BATCH_TOKENS // tokens)
    result: dict[str, Any] = {}

    for name, runs in seconds.items():
        ratios = [base / run for base, run in zip(seconds[BASELINE], runs, strict=True)]
        result[name] = {
            "tokens_per_s": count / statistics.median(runs),
            "faster": {"median": statistics.median(ratios), "min": min(ratios), "max": max(ratios)},
        }

    return result


@click.command()
@click.option("--model", type=click.Path(path_type=Path), help="Bundle.  [default: the default model]")
@click.option("--tokens", type=click.IntRange(min=1), multiple=True, default=(16, 32, 64), show_default=True)
@click.option("--rounds", type=click.IntRange(min=1), default=9, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="JSON file to write.")
def main(model: Path | None, tokens: tuple[int, ...], rounds: int, out: Path | None) -> None:
    """Print tokens per second of the network alone, and how many times as fast as onnxruntime it is."""
    members = networks(Bundle.load(model))
    found = {length: figures(measured(members, length, rounds), length) for length in tokens}

    click.echo(f"| tokens/s, one thread | {' | '.join(f'{length} tokens' for length in tokens)} |")
    click.echo(f"|---{'|---' * len(tokens)}|")
    for name in members:
        cells = []
        for length in tokens:
            faster = found[length][name]["faster"]
            spread = f"{faster['min']:.2f} to {faster['max']:.2f}"
            cells.append(f"{found[length][name]['tokens_per_s']:,.0f}, {faster['median']:.2f} times ({spread})")
        click.echo(f"| {name} | {' | '.join(cells)} |")

    if out is not None:
        report = {"machine": machine_facts(), "rounds": rounds, "baseline": BASELINE, "by_tokens": found}
        out.write_text(json.dumps(report, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
