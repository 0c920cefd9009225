"""Settings of a run, and the amounts that its form (short or full) sets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.inputs.workloads import KINDS
from benchmarks.models.shapes import SHAPES
from benchmarks.paths import SHARED, shown
from benchmarks.peers import PEERS

PARTS = ("speed", "model", "stages", "operators", "accuracy", "neighbours", "growth", "start")
NEIGHBOUR_TEXTS = 300


@dataclass(frozen=True)
class Form:
    """
    The amounts of a run.

    :param tokens: by shape, the tokens of a workload
    :param kinds: by shape, the names of its workloads
    :param peers: peers that run by default
    :param alone: by shape, the workloads on which the networks also run alone
    :param probe_tokens: by shape, the tokens on which the setups of a peer are compared
    :param probes_each: compare the setups on every workload, not only on the first
    :param rounds: interleaved runs of each peer on each workload
    :param max_seconds: total run time in seconds after which a peer skips the remaining rounds
    :param sentences: by shape, the number of labelled sentences for each peer; None for all
    :param growth_rows: row counts of the files that measure growth
    :param growth_characters: lengths of the text that measures growth
    """

    tokens: Mapping[str, int]
    kinds: Mapping[str, tuple[str, ...]]
    peers: tuple[str, ...]
    alone: Mapping[str, tuple[str, ...]]
    probe_tokens: Mapping[str, int]
    probes_each: bool
    rounds: int
    max_seconds: float
    sentences: Mapping[str, int | None]
    growth_rows: tuple[int, ...]
    growth_characters: tuple[int, ...]


FORMS = {
    "full": Form(
        # Amounts by tokens and not by rows: workloads with rows of any length then take about the same time.
        tokens={"small": 40_000, "base": 5_000},
        kinds={"small": tuple(KINDS), "base": ("short", "long")},
        peers=tuple(name for name, peer in PEERS.items() if peer.by_default),
        alone={"small": ("short", "long"), "base": ("short",)},
        probe_tokens={"small": 1_500, "base": 400},
        # The fastest setup for short rows is often not the fastest for long ones.
        probes_each=True,
        rounds=4,
        max_seconds=12.0,
        sentences={"small": None, "base": 400},
        growth_rows=(1_000, 10_000, 100_000),
        growth_characters=(1_000, 10_000, 100_000, 1_000_000),
    ),
    # Small enough that no peer is left out on two slow cores: transformers' pipeline is what people compare with.
    "short": Form(
        tokens={"small": 4_000, "base": 1_000},
        kinds={"small": ("short", "ragged", "novels", "repeats"), "base": ("short",)},
        peers=("nerd_tag", "transformers_pipeline", "optimum_int8", "onnxruntime_dynamic"),
        alone={"small": ("short",), "base": ("short",)},
        probe_tokens={"small": 400, "base": 300},
        probes_each=False,
        rounds=3,
        max_seconds=3.0,
        sentences={"small": 200, "base": 50},
        growth_rows=(100, 1_000, 3_000),
        growth_characters=(1_000, 10_000, 100_000),
    ),
}


@dataclass(frozen=True)
class Settings:
    """
    The settings of a run. Empty and None stand for the amount of the form.

    :param out: folder for the report; its subfolder ``work/`` has the files of the peers
    :param form: ``short`` or ``full``
    :param model: bundle of the small shape; None for the default model
    :param checkpoint: its PyTorch original; None for random weights, which measure only speed
    :param other_model: another bundle, which runs as the peer ``nerd_tag_other`` of the small shape
    :param base_model: bundle of the base shape; None to export one from ``base_checkpoint``
    :param base_checkpoint: its PyTorch original; None for a bert-base with random weights
    :param shared: folder with corpora and labelled sentences
    :param shapes: model shapes; by default both in the full form, and ``small`` in the short form
    :param workloads: names of workloads
    :param parts: the parts to measure, see ``PARTS``
    :param peers: names of peers
    :param without: peers that do not run
    :param pythons: by environment, the interpreter of its peers
    :param tokens: tokens of each workload
    :param rounds: runs of each peer on each workload
    :param sentences: labelled sentences for each peer
    :param growth_rows: row counts of the files that measure growth
    :param resume: reuse the results of an earlier run with the same settings
    :param seed: of samples, shuffles and random weights
    """

    out: Path
    form: str = "full"
    model: Path | None = None
    checkpoint: Path | None = None
    other_model: Path | None = None
    base_model: Path | None = None
    base_checkpoint: Path | None = None
    shared: Path = SHARED
    shapes: tuple[str, ...] = ()
    workloads: tuple[str, ...] = ()
    parts: tuple[str, ...] = PARTS
    peers: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    pythons: Mapping[str, str] = field(default_factory=dict)
    tokens: int | None = None
    rounds: int | None = None
    sentences: int | None = None
    growth_rows: tuple[int, ...] = ()
    resume: bool = False
    seed: int = 42

    @property
    def amounts(self) -> Form:
        """The amounts of the form."""
        return FORMS[self.form]

    @property
    def model_shapes(self) -> tuple[str, ...]:
        """The shapes to measure."""
        return self.shapes or (SHAPES if self.form == "full" else SHAPES[:1])

    @property
    def peer_names(self) -> tuple[str, ...]:
        """The peers to run, in the order of the report."""
        wanted = {*(self.peers or self.amounts.peers)}
        if self.other_model:
            # --other-model alone is enough to run the peer.
            wanted |= {name for name, peer in PEERS.items() if "other_bundle" in peer.needs}

        return tuple(name for name in PEERS if name in wanted and name not in self.without)

    @property
    def round_count(self) -> int:
        """Runs of each peer on each workload."""
        return self.rounds or self.amounts.rounds

    def sentence_count(self, shape: str) -> int | None:
        """Return the number of labelled sentences for each peer of a shape; None for all."""
        return self.sentences or self.amounts.sentences[shape]

    def kinds(self, shape: str) -> tuple[str, ...]:
        """Return the names of the workloads of a shape."""
        return self.workloads or self.amounts.kinds[shape]

    def about(self) -> dict[str, Any]:
        """Return the settings that determine the results of steps, but not those that only select steps."""
        facts = asdict(self)
        # A run may be resumed with more parts or workloads: the results that are there stay valid.
        for name in ("out", "resume", "parts", "workloads", "shapes"):
            del facts[name]

        return {key: shown(value) if isinstance(value, Path) else value for key, value in facts.items()}
