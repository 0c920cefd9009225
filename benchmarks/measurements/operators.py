"""
Time of a network by operator, from the profiler of onnxruntime.

``python -m benchmarks.measurements.operators FOLDER FILE`` prints it for a bundle and a Parquet file of texts.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
import pyarrow.parquet as pq

from nerd_export.models.networks import segment_batches
from nerd_onnx.inference.bundle import Bundle
from nerd_onnx.inference.encoding import EncodedBatch
from nerd_onnx.inference.session import session_options

_RUNS = 3
_MAX_TEXTS = 256
_SHOWN = 12  # operators; the others are summed up


def operator_profile(folder: Path, file: Path) -> dict[str, Any]:
    """
    Profile a bundle's graph on the batches of the first texts of a file, one call at a time.

    :param folder: the bundle
    :param file: Parquet file with a column ``text``
    :return: ``operators``: by operator, the most expensive first, ``seconds`` of all runs and ``nodes`` of the graph;
        ``tokens``: tokens of all runs, with the special ones
    """
    bundle = Bundle.load(folder)
    texts = pq.read_table(file, columns=["text"])["text"].to_pylist()[:_MAX_TEXTS]
    # The batches of the tagger itself: the share of an operator depends on the lengths.
    batches = segment_batches(bundle, [text for text in texts if text])

    with TemporaryDirectory() as scratch:
        events = json.loads(_profiled(bundle, batches, Path(scratch)).read_text("utf-8"))

    seconds: Counter[str] = Counter()
    nodes: dict[str, set[str]] = {}
    runs = [event for event in events if event["name"] == "model_run"]
    warm_from = runs[len(batches)]["ts"]  # the first run over all batches is the warm-up

    for event in events:
        # A node has several events; this one is its computation.
        if event.get("cat") == "Node" and event["ts"] >= warm_from and event["name"].endswith("_kernel_time"):
            kind = event["args"]["op_name"]
            seconds[kind] += event["dur"] / 1e6
            nodes.setdefault(kind, set()).add(event["name"])

    shown = {kind: {"seconds": spent, "nodes": len(nodes[kind])} for kind, spent in seconds.most_common(_SHOWN)}
    rest = [kind for kind in seconds if kind not in shown]
    if rest:
        shown["others"] = {
            "seconds": sum(seconds[kind] for kind in rest),
            "nodes": sum(len(nodes[kind]) for kind in rest),
        }

    return {"operators": shown, "tokens": _RUNS * sum(batch.ids.size for batch in batches)}


def _profiled(bundle: Bundle, batches: Sequence[EncodedBatch], scratch: Path) -> Path:
    """Profile the graph on all batches, after a warm-up ``_RUNS`` times, and return the file of the profile."""
    import onnxruntime

    options = session_options(optimized=bundle.optimized)
    options.enable_profiling = True
    options.profile_file_prefix = str(scratch / "profile")
    session = onnxruntime.InferenceSession(str(bundle.model_file), options, providers=["CPUExecutionProvider"])

    # Not every graph has token type ids.
    names = {node.name for node in session.get_inputs()}

    for _ in range(1 + _RUNS):
        for batch in batches:
            inputs = batch.inputs()
            session.run(None, {name: inputs[name] for name in names})

    return Path(session.end_profiling())


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def main(folder: Path, file: Path) -> None:
    """Print the profile of the bundle in FOLDER on the texts of FILE."""
    profile = operator_profile(folder, file)
    total = sum(found["seconds"] for found in profile["operators"].values())
    for kind, found in profile["operators"].items():
        click.echo(f"{kind:24s} {found['nodes']:4d} nodes {found['seconds'] / total:7.1%}")


if __name__ == "__main__":
    main()
