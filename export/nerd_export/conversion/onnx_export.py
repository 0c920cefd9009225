"""A Hugging Face checkpoint to an ONNX graph, by optimum's exporter."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nerd_onnx.errors import ModelError, first_line

OPSET = 20  # the first with Gelu as one operator; LayerNormalization is one since 17


@dataclass(frozen=True)
class Checkpoint:
    """
    A fine-tuned model, loaded.

    :param folder: where it lies, or its hub id
    :param model: the PyTorch model, in fp32
    :param names: its label names in the order of the outputs
    """

    folder: str
    model: Any
    names: tuple[str, ...]


def load_checkpoint(name: str) -> Checkpoint:
    """
    Load a token-classification checkpoint.

    :raises ModelError: when it cannot be loaded, is of another kind, or names no labels
    """
    import torch
    import transformers

    try:
        config = transformers.AutoConfig.from_pretrained(name)
        architectures = config.architectures or []
        if architectures and not any(a.endswith("ForTokenClassification") for a in architectures):
            raise ModelError(
                f"{name}: holds {', '.join(architectures)}, not a token classifier; fine-tune it with nerd-train"
            )
        model = transformers.AutoModelForTokenClassification.from_pretrained(name, dtype=torch.float32)
    except (OSError, ValueError) as err:
        raise ModelError(f"{name}: cannot be loaded as a checkpoint: {first_line(err)}") from err
    names = tuple(str(config.id2label[i]) for i in sorted(config.id2label))
    if all(label == f"LABEL_{i}" for i, label in enumerate(names)):
        raise ModelError(
            f"{name}: its config.json names no labels (LABEL_0, ...); set id2label to the tags it was trained on"
        )
    return Checkpoint(name, model, names)


def export_onnx(checkpoint: str, folder: Path) -> Path:
    """
    Export with optimum; the result is checked later, against PyTorch and through the runtime.

    :param folder: receives model.onnx, config.json and the tokenizer's files
    :return: the ONNX file
    :raises ModelError: when optimum cannot export this architecture
    """
    with _quiet():
        from optimum.exporters.onnx import main_export

        try:
            main_export(checkpoint, output=folder, task="token-classification", opset=OPSET, do_validation=False)
        except (ValueError, KeyError, NotImplementedError, RuntimeError, OSError) as err:
            raise ModelError(f"{checkpoint}: optimum cannot export it: {first_line(err)}") from err
    return folder / "model.onnx"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporters' progress talk away from the user; errors still rise."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
