"""What the tests of exported bundles share: texts, limits, labelled data, and a bundle changed on purpose."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir

from nerd_export.config import VerifyLimits
from nerd_export.graph.rewrite import folded, rewritten
from nerd_export.models.onnx_export import export_onnx, load_checkpoint
from nerd_onnx.inference.arrays import Doubles
from nerd_onnx.inference.bundle import Bundle
from nerd_onnx.inference.description import sha256_of
from nerd_onnx.inference.encoding import EncodedBatch
from nerd_onnx.tagger import Tagger
from tests.support.models import sample_texts

TEXTS = sample_texts()[:60]
LIMITS = VerifyLimits(min_entity_agreement=0.75, max_labels_changed=0.08, max_f1_drop=0.2)  # random weights: near ties
WIDE = VerifyLimits(min_entity_agreement=0, max_labels_changed=1, max_f1_drop=1)


def silent(_: str) -> None:
    pass


def prepared(model_file: Path, *, letter_case: bool = False, means: Mapping[str, Doubles] | None = None) -> ir.Model:
    """Load a graph and rewrite it, as an export does in two steps."""
    return rewritten(folded(model_file, letter_case=letter_case), means)


def random_batches(count: int) -> list[EncodedBatch]:
    """Make batches of ids that all the small models know, the same ones every time. *Shape:* (6, 60) each."""
    return [EncodedBatch(np.random.default_rng(seed).integers(5, 500, (6, 60))) for seed in range(count)]


def plain_folder(source: Path, folder: Path) -> Path:
    """Write a folder as optimum does with a subfolder: ``onnx/model.onnx`` and the rest in the root."""
    export_onnx(load_checkpoint(str(source)), folder)

    (folder / "onnx").mkdir()
    for path in folder.glob("*.onnx*"):
        shutil.move(path, folder / "onnx" / path.name)

    assert not (folder / "nerd.json").exists()
    return folder


def labelled(path: Path, model: Path) -> Path:
    """Label sentences with what the original itself finds, so that every change of it costs F1."""
    bundle = Bundle.load(model)
    tagger = Tagger(bundle)
    sentences = [text.split() for text in TEXTS]
    spans = tagger.tag_words(sentences)

    tags = [["O"] * len(words) for words in sentences]
    for row, start, end, fine in zip(spans.row, spans.start, spans.end, spans.fine, strict=True):
        tags[row][start:end] = [bundle.labels.fine_types[fine]] * int(end - start)

    lines = (json.dumps({"tokens": w, "fine_ner_tags": t}) + "\n" for w, t in zip(sentences, tags, strict=True))
    path.write_text("".join(lines), "utf-8")
    return path


def edited(bundle: Path, folder: Path, change: Callable[[onnx.ModelProto], None]) -> Path:
    """
    Copy a bundle and change its graph, fingerprints and all, as a broken exporter would have written it.

    The copy has no native section, because that describes the graph as it was.
    """
    shutil.copytree(bundle, folder)
    model = onnx.load(folder / "model.onnx")
    change(model)
    onnx.save(model, folder / "model.onnx")

    description = json.loads((folder / "nerd.json").read_text("utf-8"))
    description.pop("native", None)
    description["files"]["model.onnx"]["sha256"] = sha256_of(folder / "model.onnx")
    (folder / "nerd.json").write_text(json.dumps(description), "utf-8")
    return folder
