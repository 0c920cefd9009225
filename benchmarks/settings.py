"""What a run measures, and how much of it: the short form and the full form."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.inputs.workloads import KINDS
from benchmarks.models.shapes import SHAPES
from benchmarks.paths import SHARED, shown
from benchmarks.peers import PEERS
from benchmarks.peers.nerd_tag import NerdTagOther

PARTS = ("speed", "model", "stages", "operators", "accuracy", "neighbours", "growth", "start")
NEIGHBOUR_TEXTS = 300


@dataclass(frozen=True)
class Form:
    """
    How much is measured.

    :param tokens: tokens of a workload, by shape
    :param kinds: workloads, by shape
    :param peers: peers that run unless others are named
    :param alone: workloads on which the networks run alone, by shape
    :param probe_tokens: tokens on which the setups of a peer are compared
    :param probes_each: the setups are compared on every workload, not on the first one for all
    :param rounds: interleaved runs of each peer on each workload
    :param most_s: seconds after which a peer sits out the rounds that are left
    :param sentences: labelled sentences that every peer is scored on, by shape; None for all
    :param growth_rows: rows of the growing files
    :param growth_characters: lengths of the growing text
    """

    tokens: Mapping[str, int]
    kinds: Mapping[str, tuple[str, ...]]
    peers: tuple[str, ...]
    alone: Mapping[str, tuple[str, ...]]
    probe_tokens: Mapping[str, int]
    probes_each: bool
    rounds: int
    most_s: float
    sentences: Mapping[str, int | None]
    growth_rows: tuple[int, ...]
    growth_characters: tuple[int, ...]


FORMS = {
    "full": Form(
        tokens={"small": 40_000, "base": 5_000},
        kinds={"small": tuple(KINDS), "base": ("short", "long")},
        peers=tuple(name for name in PEERS if name != NerdTagOther.name),  # it runs where --other-model is given
        alone={"small": ("short", "long"), "base": ("short",)},
        probe_tokens={"small": 1_500, "base": 400},
        probes_each=True,
        rounds=4,
        most_s=12.0,
        sentences={"small": None, "base": 400},
        growth_rows=(1_000, 10_000, 100_000),
        growth_characters=(1_000, 10_000, 100_000, 1_000_000),
    ),
    "short": Form(
        tokens={"small": 8_000, "base": 1_000},
        kinds={"small": ("short", "ragged", "novels", "repeats"), "base": ("short",)},
        peers=("nerd_tag", "transformers_pipeline", "optimum_int8", "onnxruntime_dynamic"),
        alone={"small": ("short",), "base": ("short",)},
        probe_tokens={"small": 800, "base": 300},
        probes_each=False,
        rounds=3,
        most_s=3.0,
        sentences={"small": 200, "base": 50},
        growth_rows=(100, 1_000, 3_000),
        growth_characters=(1_000, 10_000, 100_000),
    ),
}


@dataclass(frozen=True)
class Settings:
    """
    What to measure.

    :param out: folder for the report; what the peers read and write lies in its ``work/``
    :param form: ``short`` or ``full``
    :param model: bundle folder of the small shape; None for the model inside
    :param checkpoint: its PyTorch original; None for a random twin, which serves for speed alone
    :param other_model: another bundle, which runs as the peer ``nerd_tag_other`` beside the small shape
    :param base_model: bundle folder of the base shape; None to export one from its checkpoint
    :param base_checkpoint: its PyTorch original; None for a bert-base with random weights
    :param shapes: model shapes; the short form takes ``small`` alone unless asked
    :param peers: names of peers; empty for those of the form
    :param without: peers to leave out
    :param pythons: interpreters by environment
    :param tokens: tokens of each workload; None for what the form says
    :param rounds: runs of each peer on each workload; None for what the form says
    :param sentences: labelled sentences that every peer is scored on; None for what the form says
    :param resume: take up what an earlier run with the same settings has measured
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
        """How much is measured."""
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
            wanted.add(NerdTagOther.name)
        return tuple(name for name in PEERS if name in wanted and name not in self.without)

    @property
    def round_count(self) -> int:
        """Runs of each peer on each workload."""
        return self.rounds or self.amounts.rounds

    def sentence_count(self, shape: str) -> int | None:
        """Give how many labelled sentences peers of a shape are scored on, None for all."""
        return self.sentences or self.amounts.sentences[shape]

    def kinds(self, shape: str) -> tuple[str, ...]:
        """Give the workloads of a shape."""
        return self.workloads or self.amounts.kinds[shape]

    def about(self) -> dict[str, Any]:
        """Give what decides the results, without what only chooses the steps."""
        facts = asdict(self)
        for name in ("out", "resume", "parts", "workloads", "shapes"):
            del facts[name]
        return {key: shown(value) if isinstance(value, Path) else value for key, value in facts.items()}
