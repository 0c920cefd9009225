"""The networks alone, over the batches that a workload makes; and what share of the int8 peak they reach."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.measure import Tell, figures
from benchmarks.peers.peer import PeerError
from benchmarks.team import Member
from benchmarks.workloads import Workload
from nerd_onnx.inference.bundle import Bundle


def measure_networks(
    team: Sequence[Member], workload: Workload, rounds: int, *, most_s: float, work: Path, tell: Tell
) -> dict[str, Any]:
    """
    Run the networks in turn, without reading, tokenizing, decoding or writing.

    :return: ``peers``: by peer tokens and operations a second; ``failed``: by peer why it gave none
    """
    members = [member for member in team if member.peer.is_network]
    said: dict[str, list[dict[str, Any]]] = {member.name: [] for member in members}
    failed: dict[str, str] = {}
    with contextlib.ExitStack() as stack:
        workers = {}
        for member in members:
            try:
                workers[member.name] = stack.enter_context(member.running(work / f"{member.name}.model.log"))
                if member.worker is None:
                    workers[member.name].configure(workers[member.name].setup)
                workers[member.name].do("replay", source=workload.path)  # for warming up
            except PeerError as err:
                failed[member.name] = str(err)
        for _ in range(rounds):
            for name, worker in workers.items():
                if name in failed or sum(one["seconds"] for one in said[name]) > most_s:
                    continue
                try:
                    said[name].append(worker.do("replay", source=workload.path))
                except PeerError as err:
                    failed[name] = str(err)
    size = operations_of(members[0].sources.bundle) if members else None
    peers = {name: _figures(runs, size) for name, runs in said.items() if runs and name not in failed}
    for name, facts in peers.items():
        tell(f"{workload.name}: {name} alone: {facts['tokens_per_s']['median']:,.0f} tokens/s")
    return {"peers": peers, "failed": failed}


def _figures(runs: Sequence[dict[str, Any]], size: dict[str, int] | None) -> dict[str, Any]:
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
