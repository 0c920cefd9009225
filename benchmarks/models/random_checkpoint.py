"""Checkpoints with random weights, in a bundle's architecture or as bert-base. They measure only speed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from nerd_onnx.inference.bundle import Bundle
from nerd_onnx.inference.labels import OUTSIDE

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
_OUTSIDE_BIAS = 20.0  # far above any logit of random weights


def can_make_checkpoint(folder: Path) -> bool:
    """Whether a bundle describes its architecture, and PyTorch and transformers are installed."""
    # Looked up and not imported: importing torch takes seconds.
    return (folder / "config.json").is_file() and None not in map(find_spec, ("torch", "transformers"))


def base_config(bundle: Bundle) -> dict[str, Any]:
    """Return the configuration of a bert-base with a bundle's vocabulary and labels."""
    vocabulary = json.loads(bundle.tokenizer_file.read_text("utf-8"))["model"]["vocab"]
    names = bundle.labels.names
    return {
        "model_type": "bert",
        "vocab_size": len(vocabulary),
        "id2label": {str(i): name for i, name in enumerate(names)},
        "label2id": {name: i for i, name in enumerate(names)},
    }


def make_random_checkpoint(bundle: Bundle, folder: Path, seed: int, config: Mapping[str, Any] | None = None) -> Path:
    """
    Write a checkpoint with random weights.

    It finds almost no entities: random tags would make the pipelines slower than any real model does.

    :param bundle: gives the tokenizer, the labels and, without ``config``, the architecture
    :param folder: folder for the checkpoint
    :param config: another architecture, in the form of config.json
    :return: ``folder``
    """
    import torch
    import transformers

    # The same weights in each run: reports of two commits are compared.
    torch.manual_seed(seed)

    described = bundle.model_file.parent
    if config is None:
        wanted = transformers.AutoConfig.from_pretrained(described)
    else:
        wanted = transformers.AutoConfig.for_model(**config)
        # JSON has only strings as keys.
        wanted.id2label = {int(i): name for i, name in config["id2label"].items()}

    model = transformers.AutoModelForTokenClassification.from_config(wanted)
    if OUTSIDE in bundle.labels.names:
        with torch.no_grad():
            model.classifier.bias[bundle.labels.names.index(OUTSIDE)] = _OUTSIDE_BIAS

    model.save_pretrained(folder)
    for name in _TOKENIZER_FILES:
        if (described / name).is_file():
            shutil.copyfile(described / name, folder / name)

    return folder
