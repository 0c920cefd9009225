"""F1 on labelled text, of every peer, and of the bundle beside the scores that were recorded at its export."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.inputs.labelled import (
    Labelled,
    f1_by_label,
    labelled_file,
    labels_changed,
    read_answers,
    read_labelled,
    read_sentences,
    texts_changed,
    write_inputs,
)
from benchmarks.measurements.measure import Tell
from benchmarks.paths import shown
from benchmarks.peers import REFERENCE
from benchmarks.peers.peer import PeerError
from benchmarks.processes.ready_peers import Member
from nerd_export.conversion.check_on_machine import recorded_scores
from nerd_export.data.plain_text import plain_text
from nerd_export.data.sample import sample_texts
from nerd_export.scoring.bootstrap import micro_f1, paired_difference
from nerd_export.scoring.evaluation import evaluate
from nerd_export.scoring.f1 import Rows, span_counts
from nerd_onnx.inference.arrays import Ints
from nerd_onnx.inference.bundle import Bundle
from nerd_onnx.inference.labels import LabelSet
from nerd_onnx.tagger import Tagger

SPLITS = ("validation", "test")
SHUFFLED_TEXTS = 300


def neighbour_texts(shared: Path, labels: LabelSet, limit: int) -> tuple[list[str], str]:
    """Return texts for the neighbour check with their origin: validation sentences, or the sample texts."""
    path = labelled_file(shared, "validation")
    if not path.is_file():
        return sample_texts()[:limit], "nerd_onnx/sample.jsonl"
    return [plain_text(sentence.tokens)[0] for sentence in read_sentences(path, labels, limit)], shown(path)


def score_bundle(bundle: Bundle, shared: Path, tell: Tell) -> dict[str, dict[str, Any]]:
    """
    Score the bundle on the labelled splits that exist.

    :return: by split, the scores, and those of :func:`recorded_scores`
    """
    scores: dict[str, dict[str, Any]] = {}

    for split in SPLITS:
        path = labelled_file(shared, split)
        if not path.is_file():
            continue
        sentences = read_sentences(path, bundle.labels)
        tell(f"accuracy of the bundle: {split}, {len(sentences)} sentences")

        tagger = Tagger(bundle)
        scores[split] = {
            "file": shown(path),
            "sentences": len(sentences),
            "bundle": evaluate(tagger, sentences).summary(),
            "recorded": recorded_scores(bundle, split, len(sentences)),
        }
        tagger.close()

    return scores


def score_peers(
    team: Sequence[Member], file: Path, work: Path, *, limit: int | None, seed: int, tell: Tell
) -> dict[str, Any]:
    """
    Score every peer on the same sentences, as raw text and, for networks, as words.

    :param file: labelled sentences
    :param limit: maximum number of sentences, from the start of the file
    :param seed: of the shuffle and of the bootstrap
    :return: ``peers``: by peer F1 by level, its difference to PyTorch with an interval, share of labels that differ
        from PyTorch, and number of texts that a shuffle changes; ``failed``: by peer that failed, the error
    """
    labels = Bundle.load(team[0].sources.bundle).labels
    labelled = read_labelled(file, labels, limit)
    order = list(range(min(SHUFFLED_TEXTS, len(labelled.texts))))

    # One order for all peers, or a difference could come from the order.
    random.Random(seed).shuffle(order)  # noqa: S311
    inputs = write_inputs(labelled, order, work)

    answers: dict[str, dict[str, Path]] = {}
    failed: dict[str, str] = {}

    for member in team:
        tell(f"{member.sources.shape}: accuracy of {member.name}")
        try:
            answers[member.name] = _answers(member, inputs, work)
        except PeerError as err:
            failed[member.name] = str(err)

    # Only after all peers ran, because each is compared with PyTorch, which may come last.
    found = {name: _Scored(labelled, files) for name, files in answers.items()}
    reference = found.get(REFERENCE)

    return {
        "file": labelled.source,
        "sentences": len(labelled.sentences),
        "words": sum(len(sentence.tokens) for sentence in labelled.sentences),
        "entities": sum(map(len, labelled.characters["coarse"])),
        "shuffled_texts": len(order),
        "peers": {name: scored.summary(reference, order, seed) for name, scored in found.items()},
        "failed": failed,
    }


def _answers(member: Member, inputs: Mapping[str, Path], work: Path) -> dict[str, Path]:
    """Tag every input with a peer, and return its output files by input."""
    targets = {name: work / f"labelled.{name}.{member.name}.parquet" for name in inputs}

    with member.running(work / f"{member.name}.accuracy.log") as worker:
        for name in ("raw", "shuffled"):
            worker.do("tag", source=inputs[name], target=targets[name])
        if member.peer.is_network:
            worker.do("words", source=inputs["words"], target=targets["words"])
        else:
            del targets["words"]

    return targets


class _Scored:
    """The entities of a peer, counted at every level that its labels have."""

    def __init__(self, labelled: Labelled, files: Mapping[str, Path]) -> None:
        self._labelled = labelled
        raw = {level: read_answers(files["raw"], level) for level in labelled.words}
        self.raw: dict[str, Rows] = {
            # A peer without fine labels, such as spaCy, gets no fine scores.
            level: rows
            for level, rows in raw.items()
            if level == "coarse" or _has_label_of(labelled, level, rows)
        }

        self.shuffled = read_answers(files["shuffled"], self.finest)
        self.counts: dict[str, Ints] = {
            _key("raw", level): span_counts(labelled.characters[level], rows) for level, rows in self.raw.items()
        }

        if "words" in files:
            self.counts |= {
                _key("words", level): span_counts(labelled.words[level], read_answers(files["words"], level))
                for level in self.raw
            }

    @property
    def finest(self) -> str:
        """The finest level of the peer's labels."""
        return "fine" if "fine" in self.raw else "coarse"

    def summary(self, reference: _Scored | None, order: Sequence[int], seed: int) -> dict[str, Any]:
        """
        Return the figures as plain data.

        :param reference: the same of PyTorch, if it ran
        :param order: for each shuffled text, its row
        """
        level = self.finest
        alone = [self.raw[level][i] for i in order]
        gold = self._labelled.characters
        result: dict[str, Any] = {
            "f1": {key: float(micro_f1(counts.sum(axis=0))) for key, counts in self.counts.items()},
            "f1_by_label": f1_by_label(gold["coarse"], self.raw["coarse"]),
            "f1_by_fine_label": f1_by_label(gold["fine"], self.raw["fine"]) if level == "fine" else {},
            "texts_changed_by_order": texts_changed(alone, self.shuffled),
        }

        if reference is not None and reference is not self:
            result["against_pytorch"] = {
                key: asdict(paired_difference(counts, reference.counts[key], seed=seed))
                for key, counts in self.counts.items()
                if key in reference.counts
            }
            # A peer with coarse labels alone has no score to compare at the fine level, and the other way round.
            if level in reference.raw:
                result["labels_changed"] = labels_changed(self.raw[level], reference.raw[level], self._labelled.places)

        return result


def _has_label_of(labelled: Labelled, level: str, rows: Rows) -> bool:
    """Whether any label of the entities belongs to a level."""
    known = {span[2] for spans in labelled.characters[level] for span in spans}
    return any(span[2] in known for spans in rows for span in spans)


def _key(way: str, level: str) -> str:
    """Return the name of a score as in a bundle's description: ``raw``, ``fine_raw``, ``words``, ``fine_words``."""
    return way if level == "coarse" else f"fine_{way}"
