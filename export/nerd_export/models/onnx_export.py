"""Load a Hugging Face checkpoint and export it to an ONNX graph with optimum."""

from __future__ import annotations

import contextlib
import logging
import shutil
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from nerd_export.config import TESTED_VERSIONS
from nerd_export.models.names import as_checkpoint
from nerd_onnx.errors import ModelError, OutputError, first_line

OPSET = 20  # the first with Gelu as one operator; LayerNormalization is one since 17
_ROOM = 4  # copies of the fp32 weights: exported, written, read for activations, and the exporter's own


@dataclass(frozen=True)
class Checkpoint:
    """
    A fine-tuned model, loaded.

    :param folder: where it lies, or its hub id
    :param model: the PyTorch model, in fp32
    :param tokenizer: its fast tokenizer
    :param names: its label names in the order of the outputs
    """

    folder: str
    model: Any
    tokenizer: Any
    names: tuple[str, ...]

    @property
    def size_bytes(self) -> int:
        """Size of the weights in fp32."""
        return 4 * sum(int(weight.numel()) for weight in self.model.parameters())


def load_checkpoint(name: str, warn: Callable[[str], None] = lambda _: None) -> Checkpoint:
    """
    Load a token-classification checkpoint, or a bundle as one (:mod:`nerd_export.models.restoring`).

    :param name: hub id or folder of a checkpoint or bundle, or ``default`` for the default model
    :param warn: receives what the user should know but does not stop the export
    :raises ModelError: when it cannot be loaded, is no token classifier, has no label names or no fast tokenizer
    """
    with as_checkpoint(name) as place:
        return _load_checkpoint(name, place, warn)


def _load_checkpoint(name: str, place: str, warn: Callable[[str], None]) -> Checkpoint:
    import transformers

    try:
        config = transformers.AutoConfig.from_pretrained(place)
    except (OSError, ValueError, KeyError) as err:
        raise ModelError(
            f"{name}: cannot be loaded as a checkpoint: {first_line(err)}", reason="cannot-load", file=name
        ) from err

    # Read from the configuration, before gigabytes of weights are loaded.
    architectures = config.architectures or []
    if architectures and not any(a.endswith("ForTokenClassification") for a in architectures):
        raise ModelError(
            f"{name}: is a {', '.join(architectures)} and not a token classifier; fine-tune it with nerd-train",
            reason="not-token-classifier",
            file=name,
            found=", ".join(architectures),
        )

    # Sorted, because id2label has the order of its file, and the outputs have that of the numbers.
    names = tuple(str(config.id2label[i]) for i in sorted(config.id2label))
    if all(label == f"LABEL_{i}" for i, label in enumerate(names)):
        raise ModelError(
            f"{name}: its config.json names no labels (LABEL_0, ...); set id2label to the tags that the model was "
            "trained on",
            reason="no-label-names",
            file=name,
        )

    model = _load_model(name, place, warn)
    return Checkpoint(name, model, _load_tokenizer(name, place), names)


def _load_model(name: str, place: str, warn: Callable[[str], None]) -> Any:
    """Load the network with attention in plain operators, which :mod:`attention` can rewrite to run fastest."""
    import torch
    import transformers

    kind = transformers.AutoModelForTokenClassification

    try:
        with _quiet():
            model, found = kind.from_pretrained(
                place, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
            )
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as err:
        foreign = (
            "; it holds an ONNX graph that nerd-export did not write; give the checkpoint from which it was exported"
        )
        remedy = foreign if any(Path(place).rglob("*.onnx")) else ""
        raise ModelError(
            f"{name}: cannot be loaded as a checkpoint: {first_line(err)}{remedy}",
            reason="foreign-onnx" if remedy else "cannot-load",
            file=name,
        ) from err

    missing = sorted(found["missing_keys"])
    # Only a warning: somebody may export a random head on purpose, to measure speed.
    if any("classifier" in key for key in missing):
        warn(
            f"{name}: its classifier was never trained (the checkpoint lacks {', '.join(missing)}); its tags are random"
        )
    elif missing:
        warn(f"{name}: the checkpoint lacks {', '.join(missing[:3])}; these weights are random")

    return model.eval()


def _load_tokenizer(name: str, place: str) -> Any:
    import transformers

    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(place)
    except (OSError, ValueError, KeyError, ImportError) as err:
        raise ModelError(
            f"{name}: its tokenizer cannot be loaded: {first_line(err)}", reason="unreadable-tokenizer", file=name
        ) from err

    if not tokenizer.is_fast:
        raise ModelError(
            f"{name}: has no fast tokenizer ({type(tokenizer).__name__}), and exact character offsets need one; add "
            "the tokenizer.json of its base model",
            reason="no-fast-tokenizer",
            file=name,
            found=type(tokenizer).__name__,
        )

    return tokenizer


def export_onnx(checkpoint: Checkpoint, folder: Path) -> Path:
    """
    Export with optimum; the result is checked later, against PyTorch and through the runtime.

    :param folder: receives model.onnx, config.json and the tokenizer's files
    :return: the ONNX file
    :raises ModelError: when optimum cannot export this architecture, or the installed versions do not work together
    :raises OutputError: when the disk is full
    """
    require_room(folder, _ROOM * checkpoint.size_bytes)
    with _quiet():
        export = _exporter()
        try:
            # optimum's own validation compares a padded batch with another tolerance; the gate compares what users run.
            export(checkpoint.model, folder, task="token-classification", opset=OPSET, do_validation=False)
            checkpoint.tokenizer.save_pretrained(folder)
        except OSError as err:
            raise OutputError(
                f"{folder}: cannot be written: {err.strerror or first_line(err)}",
                reason="cannot-write",
                file=str(folder),
            ) from err
        # An unknown architecture fails with any of these errors, deep in the code of optimum and torch.
        except (ValueError, KeyError, NotImplementedError, RuntimeError, TypeError, AttributeError) as err:
            kind = getattr(checkpoint.model.config, "model_type", "unknown")
            raise ModelError(
                f"{checkpoint.folder}: optimum cannot export this architecture ({kind}): {first_line(err)}",
                reason="unsupported-architecture",
                file=str(checkpoint.folder),
                found=kind,
            ) from err

    return folder / "model.onnx"


def require_room(folder: Path, size_bytes: int) -> None:
    """
    Check that the disk has room, before an export that takes minutes.

    :raises OutputError: with the free and the needed space
    """
    # The folder is not there yet, and disk_usage needs one that is.
    place = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    free = shutil.disk_usage(place).free
    if free < size_bytes:
        raise OutputError(
            f"{place}: {free / 1e6:,.0f} MB are free, and the export needs about {size_bytes / 1e6:,.0f} MB; free some "
            "space, or choose another disk (--output, and TMPDIR for the intermediate files)",
            reason="too-little-space",
            folder=str(place),
            found=free,
            minimum=size_bytes,
        )


def _exporter() -> Callable[..., None]:
    """
    Return optimum's exporter.

    :raises ModelError: when the installed versions do not work together, with versions that do
    """
    try:
        from optimum.exporters.onnx import onnx_export_from_model
    except (ImportError, AttributeError) as err:
        pins = " ".join(f"{name}=={wanted}" for name, wanted in TESTED_VERSIONS.items())
        found = ", ".join(f"{name} {version(name)}" for name in ("optimum", "transformers", "torch"))
        raise ModelError(
            f"the versions of the installed export packages ({found}) do not work together: {first_line(err)}. These "
            f"versions do: pip install {pins}",
            reason="package-versions",
            found=found,
            expected=pins,
        ) from err

    exporter: Callable[..., None] = onnx_export_from_model
    return exporter


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the log messages of the exporters; errors are still raised."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
