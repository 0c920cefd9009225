"""The networks alone, over the batches that a workload makes; and what share of the int8 peak they reach."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.measure import Tell, figures
from benchmarks.peak import PRODUCT, Int8Peak
from benchmarks.peers.peer import PeerError
from benchmarks.team import Member
from benchmarks.worker import Worker
from benchmarks.workloads import Workload
from nerd_onnx.inference.bundle import Bundle

_PEAK_S = 1.0  # seconds a round


def measure_networks(
    team: Sequence[Member], workload: Workload, rounds: int, *, most_s: float, work: Path, tell: Tell
) -> dict[str, Any]:
    """
    Run the networks in turn, without reading, tokenizing, decoding or writing, and the int8 peak among them.

    :return: ``peers``: by peer tokens and operations a second; ``peak``: operations a second, and of what product;
        ``failed``: by peer why it gave none
    """
    members = [member for member in team if member.peer.is_network]
    said: dict[str, list[dict[str, Any]]] = {member.name: [] for member in members}
    failed: dict[str, str] = {}
    if not members:
        return {"peers": {}, "failed": failed}
    peak, peaks = Int8Peak(members[0].sources.threads), []
    with contextlib.ExitStack() as stack:
        workers = _started(members, workload, work, stack, failed)
        for _ in range(rounds):
            peaks.append(peak.operations_per_s(_PEAK_S))
            for name, worker in workers.items():
                if name in failed or sum(one["seconds"] for one in said[name]) > most_s:
                    continue
                try:
                    said[name].append(worker.do("replay", source=workload.path))
                except PeerError as err:
                    failed[name] = str(err)
    size = operations_of(members[0].sources.bundle)
    peers = {name: _figures(runs, size) for name, runs in said.items() if runs and name not in failed}
    for name, facts in peers.items():
        tell(f"{workload.name}: {name} alone: {facts['tokens_per_s']['median']:,.0f} tokens/s")
    return {
        "peers": peers,
        "peak": {"operations_per_s": figures(peaks), "product": PRODUCT, "threads": peak.threads},
        "failed": failed,
    }


def _started(
    members: Sequence[Member], workload: Workload, work: Path, stack: contextlib.ExitStack, failed: dict[str, str]
) -> Mapping[str, Worker]:
    """Give the processes of all members, warm; who cannot is put under ``failed``."""
    workers: dict[str, Worker] = {}
    for member in members:
        try:
            worker = stack.enter_context(member.running(work / f"{member.name}.model.log"))
            worker.do("replay", source=workload.path)
        except PeerError as err:
            failed[member.name] = str(err)
        else:
            workers[member.name] = worker
    return workers


def _figures(runs: Sequence[dict[str, Any]], size: Mapping[str, int] | None) -> dict[str, Any]:
    result: dict[str, Any] = {"tokens_per_s": figures([run["tokens"] / run["seconds"] for run in runs])}
    if size is not None:
        result["operations_per_s"] = figures(
            [(run["positions"] * size["a_position"] + run["squares"] * size["a_pair"]) / run["seconds"] for run in runs]
        )
    return result


def operations_of(folder: Path) -> dict[str, int] | None:
    """
    Count the multiplications and additions of a BERT-like encoder and its classifier.

    :return: ``a_position``: of the linear layers, for each token; ``a_pair``: of the attention products, for each
        pair of tokens in a segment; None where config.json does not give the sizes
    """
    bundle = Bundle.load(folder)
    try:
        config = json.loads((folder / "config.json").read_text("utf-8"))
        layers, hidden, inner = (int(config[key]) for key in ("num_hidden_layers", "hidden_size", "intermediate_size"))
    except (OSError, KeyError, ValueError):
        return None
    linear = layers * (4 * hidden * hidden + 2 * hidden * inner) + hidden * len(bundle.labels.names)
    return {"a_position": 2 * linear, "a_pair": 2 * layers * 2 * hidden}
