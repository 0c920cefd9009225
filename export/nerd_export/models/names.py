"""What users may name where a checkpoint is wanted: hub ids, folders, bundles, and the model inside the package."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nerd_export.outputs import writing
from nerd_onnx.inference.bundle import Bundle
from nerd_onnx.inference.description import DESCRIPTION
from nerd_onnx.storage.hub import has_file, require_place

MODEL_INSIDE = "default"


def require_model(name: str, option: str) -> None:
    """
    Check that a name is that of a model here, on the hub, or inside the package.

    :param option: that gave the name, for the message
    :raises ModelError: when it is none of them
    """
    if not is_model_inside(name):
        require_place(name, "model", option)


@contextmanager
def as_checkpoint(name: str) -> Iterator[str]:
    """
    Yield the hub id or folder of a checkpoint; for a bundle, a temporary checkpoint is written.

    :param name: hub id, folder, or ``default`` for the model inside
    :raises ModelError: when the bundle is faulty, or PyTorch's weights cannot be read off its graph
    :raises OutputError: when there is no room for it
    """
    bundle = bundle_named(name)
    if bundle is None:
        yield name
        return

    from nerd_export.models.restoring import restored  # which nerd-export --check does without

    model, tokenizer = restored(bundle)
    with tempfile.TemporaryDirectory() as folder:
        with writing(Path(folder)):
            model.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
        yield folder


def bundle_named(name: str) -> Bundle | None:
    """
    Read the bundle that a name means; None where it means a checkpoint.

    :param name: hub id, folder, or ``default`` for the model inside
    :raises ModelError: when the bundle is faulty or cannot be fetched
    """
    if is_model_inside(name):
        return Bundle.load(None)
    return Bundle.load(name) if has_file(name, DESCRIPTION) else None


def is_model_inside(name: str) -> bool:
    """Whether a name means the default model; a folder of that name has precedence."""
    return name == MODEL_INSIDE and not Path(name).exists()
