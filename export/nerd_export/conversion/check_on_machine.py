"""Check a bundle on the machine where it will run, without PyTorch."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from nerd_export.config import VerifyLimits
from nerd_export.conversion.batch_independence import changed_by_neighbours, neighbour_faults
from nerd_export.conversion.compare_with_original import agreement, entity_set
from nerd_export.conversion.expected import read_expected
from nerd_export.conversion.gate import LabelledSplit
from nerd_export.data.sample import sample_texts
from nerd_export.scoring.evaluation import evaluate_labelled
from nerd_onnx.errors import ModelError
from nerd_onnx.inference.bundle import Bundle
from nerd_onnx.inference.description import DESCRIPTION
from nerd_onnx.inference.json_object import JsonObject
from nerd_onnx.machine.cpu import cpu_features, processor_kind
from nerd_onnx.tagger import Tagger


@dataclass(frozen=True)
class F1Again:
    """
    Entity F1 measured on this machine, and the F1 recorded for the split at export.

    :param recorded: None if nothing is recorded for a split of this name and size
    """

    split: str
    view: str
    here: float
    recorded: float | None
    original: float | None


@dataclass(frozen=True)
class CheckReport:
    """
    What was found on this machine.

    :param files: number of files with a verified fingerprint; a wrong fingerprint is an error before the check
    :param kernels: the processor, and what computes the bundle on it
    :param entity_agreement: F1 of the entities found here against those that the original found at export
    :param entities_changed: entities that the bundle found only here or only at export; None where their bits depend on
        the processor
    :param neighbours: number of texts with other entities, by the way of tagging
    :param faults: the limits that are exceeded
    """

    files: int
    kernels: str
    entity_agreement: float | None
    entities_changed: int | None
    neighbours: dict[str, int]
    f1: tuple[F1Again, ...]
    faults: tuple[str, ...]

    def summary(self) -> dict[str, Any]:
        """Return every figure as plain data."""
        return asdict(self)


def check_bundle(bundle: Bundle, splits: dict[str, LabelledSplit], limits: VerifyLimits) -> CheckReport:
    """
    Compare the entities that a bundle finds with those that its original found.

    :param bundle: as :func:`described` returns it, with verified fingerprints
    :param splits: labelled data to score on, by name
    """
    tagger = Tagger(bundle)
    # The original is not here: its entities were recorded at export, and the sample texts come with the program.
    agreed, changed = _compared(tagger)
    neighbours = changed_by_neighbours(bundle, sample_texts())
    rows = [row for name, split in splits.items() for row in _scored(bundle, tagger, name, split)]

    arithmetic = kernels(tagger.kernels)
    tagger.close()

    faults = [*_faults(agreed, changed, rows, limits), *neighbour_faults(neighbours)]
    files = 0 if bundle.description is None else len(bundle.description.files)

    return CheckReport(files, arithmetic, agreed, changed, neighbours, tuple(rows), tuple(faults))


def _faults(agreed: float | None, changed: int | None, rows: Sequence[F1Again], limits: VerifyLimits) -> list[str]:
    """
    Return a message for each limit that is exceeded.

    :param agreed: agreement with the original
    :param changed: number of entities that differ from those at export
    """
    faults = []
    # The agreement allows near ties; the same bits have none.
    if changed:
        faults.append(f"{changed} entities of the sample differ from those at export, with the same bits")

    if agreed is not None and agreed < limits.min_entity_agreement:
        faults.append(
            f"entity agreement with the original is {agreed:.4f}, at least {limits.min_entity_agreement:.4f} is "
            "required"
        )

    for row in rows:
        # Compared with the original and not with the bundle's record: a bundle may lose as much here as it might at
        # export.
        if row.original is not None and row.original - row.here > limits.max_f1_drop:
            less = row.original - row.here
            faults.append(f"F1 on {row.split} ({row.view}) is {row.here:.4f}, {less:.4f} less than at export")

    return faults


def described(model: str) -> Bundle:
    """
    Load a folder that nerd-export wrote.

    :raises ModelError: when it is no bundle, or a file is missing or altered
    """
    bundle = Bundle.load(model)
    if bundle.description is None:
        raise ModelError(
            f"{model}: has no {DESCRIPTION}, so there is nothing to compare it with; export it with nerd-export",
            reason="not-bundle",
            file=model,
        )

    return bundle


def kernels(name: str) -> str:
    """Describe the processor and what computes a bundle here, see :attr:`Tagger.kernels`."""
    where = f"{processor_kind()} ({', '.join(cpu_features()) or 'features unknown'})"
    return f"{where}: {name}"


def _compared(tagger: Tagger) -> tuple[float | None, int | None]:
    """
    Compare the entities of the sample with those recorded at export.

    :return: the agreement with the original, and the number of entities that the bundle found in only one of the two
        places. None without a record; the second one also where other bits compute here than at export
    """
    expected = read_expected(tagger.bundle)
    if expected is None:
        return None, None

    found = entity_set(tagger.tag_arrays(sample_texts()).spans)
    has_bits = expected.bundle is not None and expected.kernels == tagger.kernels
    changed = len(found ^ expected.bundle) if has_bits and expected.bundle is not None else None
    return agreement(expected.original, found), changed


def recorded_scores(bundle: Bundle, split: str, sentences: int) -> dict[str, Any] | None:
    """
    Read the scores that the export wrote into a bundle: ``bundle`` and ``original``.

    :param sentences: how many the split has here
    :return: None where nothing is recorded for this split, or for a split of another size
    """
    metrics = {} if bundle.description is None else bundle.description.metrics
    recorded = _in_description(bundle, metrics, "metrics").optional_section(split)
    if recorded is None or recorded.section("bundle").integer("sentences", 0, sys.maxsize) != sentences:
        return None
    return {role: recorded.section(role).content for role in ("bundle", "original")}


def _in_description(bundle: Bundle, content: Mapping[str, Any], place: str) -> JsonObject:
    """Return a part of the bundle's ``nerd.json`` for typed reading."""
    return JsonObject(bundle.model_file.parent / DESCRIPTION, content, place)


def _scored(bundle: Bundle, tagger: Tagger, name: str, split: LabelledSplit) -> Sequence[F1Again]:
    """Score a split, and look up the scores recorded for it."""
    found = evaluate_labelled(tagger, split.labelled)
    recorded = recorded_scores(bundle, name, found.sentences)

    def f1_of(role: str, view: str) -> float | None:
        if recorded is None:
            return None
        return _in_description(bundle, recorded[role], f"metrics.{name}.{role}").section(view).number("f1", 0, 1)

    return [
        F1Again(
            split=name,
            view=view,
            here=seen.scores.f1,
            recorded=f1_of("bundle", view),
            original=f1_of("original", view),
        )
        for view, seen in found.views.items()
    ]
