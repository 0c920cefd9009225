"""F1 on labelled text: of the bundle, of its PyTorch original, and what the bundle's description claims."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.paths import shown
from nerd_export.conversion.networks import TorchNetwork
from nerd_export.conversion.onnx_export import load_checkpoint
from nerd_export.conversion.verify import sample_texts
from nerd_export.training.checks import Findings, Sentence, check_split
from nerd_export.training.corpus import TAG_COLUMNS, read_file
from nerd_export.training.evaluation import evaluate
from nerd_export.training.plain_text import plain_text
from nerd_onnx.inference.bundle import Bundle
from nerd_onnx.tagger import Tagger, TagOptions

SPLITS = ("validation", "test")


def labelled_file(shared: Path, split: str) -> Path:
    """Where the labelled sentences of a split lie."""
    return shared / "few_nerd" / f"{split}.parquet"


def read_sentences(path: Path, bundle: Bundle) -> list[Sentence]:
    """
    Read labelled sentences at the model's level.

    :raises TrainingDataError: when the file is damaged or its rows are faulty
    """
    findings = Findings()
    level = "fine" if bundle.labels.has_fine_level else "coarse"
    sentences = check_split(read_file(path, TAG_COLUMNS[level]), None, findings)
    findings.raise_problems()
    return sentences


def neighbour_texts(shared: Path, bundle: Bundle, count: int) -> tuple[list[str], str]:
    """Give texts for the neighbour check, and say which: validation sentences, or the program's sample."""
    path = labelled_file(shared, "validation")
    if not path.is_file():
        return sample_texts()[:count], "nerd_onnx/sample.jsonl"
    return [plain_text(sentence.tokens)[0] for sentence in read_sentences(path, bundle)[:count]], shown(path)


def score_splits(
    bundle: Bundle, checkpoint: Path | None, shared: Path, tell: Callable[[str], None]
) -> dict[str, dict[str, Any]]:
    """
    Score the bundle, and the checkpoint through the same runtime, on every labelled split that is here.

    :param checkpoint: the fine-tuned PyTorch weights; None leaves them to what the bundle's description says
    :param tell: receives a line a step
    :return: by split; see :func:`recorded_scores` for what is recorded
    """
    original = TorchNetwork(load_checkpoint(str(checkpoint)).model) if checkpoint else None
    scores: dict[str, dict[str, Any]] = {}
    for split in SPLITS:
        path = labelled_file(shared, split)
        if not path.is_file():
            continue
        sentences = read_sentences(path, bundle)
        tell(f"accuracy: {split}, {len(sentences)} sentences")
        scores[split] = {
            "file": shown(path),
            "sentences": len(sentences),
            "bundle": _scores(Tagger(bundle), sentences),
            "pytorch": _scores(Tagger(bundle, TagOptions(threads=1), network=original), sentences)
            if original
            else None,
            "recorded": recorded_scores(bundle, split, len(sentences)),
        }
    return scores


def recorded_scores(bundle: Bundle, split: str, sentences: int) -> dict[str, Any] | None:
    """
    Read the scores that the export wrote into the bundle: ``bundle`` and ``original``.

    :param sentences: how many the split has here
    :return: None where nothing is recorded for this split, or for a split of another size
    """
    recorded = (bundle.description.get("metrics") or {}).get(split)
    if not recorded or recorded["bundle"]["sentences"] != sentences:
        return None
    return {"bundle": recorded["bundle"], "original": recorded["original"]}


def _scores(tagger: Tagger, sentences: Sequence[Sentence]) -> dict[str, Any]:
    try:
        return evaluate(tagger, sentences).summary()
    finally:
        tagger.close()
