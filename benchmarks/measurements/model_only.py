"""The networks alone, over the batches that a workload makes; and what share of the int8 peak they reach."""

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
from benchmarks.processes.team import Member
from benchmarks.processes.worker import Worker
from nerd_onnx.inference.bundle import Bundle

_PEAK_S = 1.0  # seconds a round


def measure_networks(
    team: Sequence[Member],
    workload: Workload,
    rounds: int,
    *,
    subject: str,
    most_s: float,
    work: Path,
    tell: Tell,
) -> dict[str, Any]:
    """
    Run the networks in turn, without reading, tokenizing, decoding or writing, and the int8 peak among them.

    :param subject: peer that the others are compared with
    :return: ``peers``: by peer tokens and operations a second, its runs, and ``peak_share``, the share of the int8
        peak that it reaches, over paired rounds; ``ratios``: see :func:`~benchmarks.measurements.ratios.ratios`;
        ``peak``: operations per second, and of what product; ``failed``: by peer why it gave none
    """
    members = [member for member in team if member.peer.is_network]
    said: dict[str, list[dict[str, Any]]] = {member.name: [] for member in members}
    failed: dict[str, str] = {}
    if not members:
        return {"peers": {}, "ratios": {}, "failed": failed}

    peak, peaks = Int8Peak(members[0].sources.threads), dict[int, float]()

    with contextlib.ExitStack() as stack:
        workers = _started(members, workload, work, stack, failed)
        for number in range(rounds):
            peaks[number] = peak.operations_per_s(_PEAK_S)
            for name, worker in workers.items():
                if name in failed or has_run_enough([one["seconds"] for one in said[name]], most_s):
                    continue
                try:
                    said[name].append({"round": number, **worker.do("replay", source=workload.path)})
                except PeerError as err:
                    failed[name] = str(err)

    peers = {
        member.name: _figures(said[member.name], operations_of(member.bundle), peaks)
        for member in members
        if said[member.name] and member.name not in failed
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


def _figures(
    runs: Sequence[dict[str, Any]], size: Mapping[str, int] | None, peaks: Mapping[int, float]
) -> dict[str, Any]:
    """
    Sum the runs of one network up.

    :param size: its operations, see :func:`operations_of`
    :param peaks: operations a second of the int8 peak, by round
    """
    result: dict[str, Any] = {
        "tokens_per_s": figures([run["tokens"] / run["seconds"] for run in runs]),
        "runs": [{"round": run["round"], "seconds": run["seconds"]} for run in runs],
    }
    if size is not None:
        operations = [run["positions"] * size["a_position"] + run["squares"] * size["a_pair"] for run in runs]
        for run, count in zip(result["runs"], operations, strict=True):
            run["operations_per_s"] = count / run["seconds"]
        rates = by_round(result["runs"], "operations_per_s")
        result["operations_per_s"] = figures(list(rates.values()))
        result["peak_share"] = paired(rates, peaks)
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
