"""A checkpoint with a bundle's architecture and random weights: good for measuring speed, and for nothing else."""

from __future__ import annotations

import shutil
from pathlib import Path

from nerd_onnx.inference.bundle import Bundle
from nerd_onnx.inference.labels import OUTSIDE

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
_OUTSIDE_BIAS = 20.0  # far above what random weights add


def can_have_twin(bundle: Bundle) -> bool:
    """Tell whether the model folder describes its architecture."""
    return (bundle.model_file.parent / "config.json").is_file()


def make_twin(bundle: Bundle, folder: Path, seed: int) -> Path:
    """
    Write the twin. It finds almost no entities, which spares the pipeline the work of listing them.

    :param folder: receives the checkpoint
    :return: ``folder``
    """
    import torch
    import transformers

    torch.manual_seed(seed)
    described = bundle.model_file.parent
    model = transformers.AutoModelForTokenClassification.from_config(transformers.AutoConfig.from_pretrained(described))
    if OUTSIDE in bundle.labels.names:
        with torch.no_grad():
            model.classifier.bias[bundle.labels.names.index(OUTSIDE)] = _OUTSIDE_BIAS
    model.save_pretrained(folder)
    for name in _TOKENIZER_FILES:
        if (described / name).is_file():
            shutil.copyfile(described / name, folder / name)
    return folder
