"""Measure the networks alone on the batches of a workload, and their share of the machine's int8 peak."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.inputs.workloads import Workload
from benchmarks.measurements.measure import Tell, figures, has_run_enough
from benchmarks.measurements.peak import PRODUCT, Int8Peak
from benchmarks.measurements.ratios import by_round, paired, ratios
from benchmarks.peers.peer import PeerError
from benchmarks.processes.ready_peers import Member
from benchmarks.processes.worker import Worker
from nerd_onnx.inference.bundle import Bundle

_PEAK_S = 1.0  # seconds per round


def measure_networks(
    team: Sequence[Member],
    workload: Workload,
    rounds: int,
    *,
    subject: str,
    max_seconds: float,
    work: Path,
    tell: Tell,
) -> dict[str, Any]:
    """
    Run the networks in interleaved rounds, without reading, tokenizing, decoding and writing.

    The int8 peak is measured in each round too, so that a slow phase of the machine affects both.

    :param subject: peer that the others are compared with
    :param work: folder for logs
    :return: ``peers``: by peer tokens and operations per second, its runs, and ``peak_share``: share of the int8 peak
        over paired rounds; ``ratios``: see :func:`~benchmarks.measurements.ratios.ratios`; ``peak``: operations per
        second, and the matrix product; ``failed``: by peer that failed, the error
    """
    members = [member for member in team if member.peer.is_network]
    runs: dict[str, list[dict[str, Any]]] = {member.name: [] for member in members}
    failed: dict[str, str] = {}
    if not members:
        return {"peers": {}, "ratios": {}, "failed": failed}

    peak, peaks = Int8Peak(members[0].sources.threads), dict[int, float]()

    with contextlib.ExitStack() as stack:
        workers = _started(members, workload, work, stack, failed)
        for number in range(rounds):
            # In every round, so that the share of the peak compares the same phase of the machine.
            peaks[number] = peak.operations_per_s(_PEAK_S)
            for name, worker in workers.items():
                if name in failed or has_run_enough([one["seconds"] for one in runs[name]], max_seconds):
                    continue
                try:
                    runs[name].append({"round": number, **worker.do("replay", source=workload.path)})
                except PeerError as err:
                    failed[name] = str(err)

    peers = {
        member.name: _figures(runs[member.name], operations_of(member.bundle), peaks)
        for member in members
        if runs[member.name] and member.name not in failed
    }

    for name, facts in peers.items():
        tell(f"{workload.name}: {name} alone: {facts['tokens_per_s']['median']:,.0f} tokens/s")

    return {
        "peers": peers,
        "ratios": ratios(peers, subject, "seconds"),
        "peak": {"operations_per_s": figures(list(peaks.values())), "product": PRODUCT, "threads": peak.threads},
        "failed": failed,
    }


def _started(
    members: Sequence[Member], workload: Workload, work: Path, stack: contextlib.ExitStack, failed: dict[str, str]
) -> Mapping[str, Worker]:
    """Return the warm processes of the members; errors are added to ``failed``."""
    workers: dict[str, Worker] = {}

    for member in members:
        try:
            worker = stack.enter_context(member.running(work / f"{member.name}.model.log"))
            # The first run loads kernels and fills caches, and is not counted.
            worker.do("replay", source=workload.path)
        except PeerError as err:
            failed[member.name] = str(err)
        else:
            workers[member.name] = worker

    return workers


def _figures(
    runs: Sequence[dict[str, Any]], size: Mapping[str, int] | None, peaks: Mapping[int, float]
) -> dict[str, Any]:
    """
    Return the figures of the runs of one network.

    :param size: number of operations, see :func:`operations_of`
    :param peaks: by round, operations per second of the int8 peak
    """
    result: dict[str, Any] = {
        "tokens_per_s": figures([run["tokens"] / run["seconds"] for run in runs]),
        "runs": [{"round": run["round"], "seconds": run["seconds"]} for run in runs],
    }
    if size is not None:
        operations = [run["positions"] * size["per_token"] + run["squares"] * size["per_pair"] for run in runs]
        for run, count in zip(result["runs"], operations, strict=True):
            run["operations_per_s"] = count / run["seconds"]
        rates = by_round(result["runs"], "operations_per_s")
        result["operations_per_s"] = figures(list(rates.values()))
        result["peak_share"] = paired(rates, peaks)

    return result


def operations_of(folder: Path) -> dict[str, int] | None:
    """
    Count the multiplications and additions of a BERT-like encoder and its classifier.

    :return: ``per_token``: of the linear layers; ``per_pair``: of the attention products, for each pair of tokens in a
        segment; None if config.json does not have the sizes
    """
    bundle = Bundle.load(folder)
    try:
        config = json.loads((folder / "config.json").read_text("utf-8"))
        layers, hidden, inner = (int(config[key]) for key in ("num_hidden_layers", "hidden_size", "intermediate_size"))
    except (OSError, KeyError, ValueError):
        return None
    # One multiplication and one addition per weight: four attention matrices and two of the feed-forward part.
    linear = layers * (4 * hidden * hidden + 2 * hidden * inner) + hidden * len(bundle.labels.names)
    # Two products: queries with keys, and weights with values. Each has hidden multiplications per pair.
    return {"per_token": 2 * linear, "per_pair": 2 * layers * 2 * hidden}
