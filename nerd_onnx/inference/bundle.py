"""The model folder: found, read, checked, described. Its files are data; nothing in it is executed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from nerd_onnx.errors import ModelError, first_line
from nerd_onnx.inference.calibration import ScoreCalibration
from nerd_onnx.inference.cpu import integer_kernels, processor_kind
from nerd_onnx.inference.description import DESCRIPTION, GRAPH, TOKENIZER, Description, read_json, sha256_of
from nerd_onnx.inference.labels import LabelSet
from nerd_onnx.inference.words import WordRule
from nerd_onnx.storage.hub import is_elsewhere, require_place

DEFAULT_FOLDER = Path(__file__).resolve().parent.parent / "default_model"
SEGMENT_TOKENS = 128  # where the model does not say: long enough for context, short enough for its square
_UNSET_LENGTH = 1_000_000  # tokenizers write 1e30 for "no limit"
_USUAL_NAMES = ("model.onnx", "model_quantized.onnx", "model_optimized.onnx", "model_int8.onnx", "model_fp16.onnx")
_POSITIONS_AFTER_PADDING = frozenset({"roberta", "xlm-roberta", "camembert", "mpnet", "xlm-roberta-xl", "longformer"})


@dataclass(frozen=True)
class Bundle:
    """
    A model folder that was read and checked.

    :param name: how the user named it
    :param folder: where it lies, absolute; None for the model inside
    :param model_file: the ONNX graph
    :param tokenizer_file: ``tokenizer.json``
    :param labels: what the model's outputs mean
    :param segment_tokens: longest segment to run, special tokens included
    :param model_sha256: fingerprint of the ONNX file
    :param optimized: the graph is in its final form and cannot saturate on this processor
    :param quantization: how it was quantized; ``none`` for fp32, ``unknown`` for foreign folders
    :param word_rule: what a word is, see :mod:`words`
    :param letter_case: the network sees letter case, see :mod:`letter_case`
    :param calibration: what tells how likely a candidate is right; None where nothing was fitted
    :param description: what ``nerd.json`` says; None for foreign folders
    """

    name: str
    folder: Path | None
    model_file: Path
    tokenizer_file: Path
    labels: LabelSet
    segment_tokens: int
    model_sha256: str
    optimized: bool = False
    quantization: str = "unknown"
    word_rule: WordRule = "pretokens"
    letter_case: bool = False
    calibration: ScoreCalibration | None = None
    description: Description | None = None

    @cached_property
    def kernels(self) -> str:
        """Instructions for the products of the linear layers; a foreign folder does not say whether they are int8."""
        if self.description is None:
            return "as the ONNX file says"
        if not self.description.integer_products:
            return "fp32"
        return integer_kernels() if self.optimized else "int8, exact: an older bundle, see docs/int8.md"

    def uncalibrated(self) -> Bundle:
        """Return the same network with each word decided for itself, as in models whose scores nobody fitted."""
        return replace(self, calibration=None)

    @cached_property
    def calibration_digest(self) -> str:
        """Fingerprint of what decides entities, fine labels and scores besides the graph; ``none`` without."""
        if self.calibration is None or self.description is None:
            return "none"
        return self.description.calibration_digest

    @classmethod
    def load(cls, model: str | Path | None = None) -> Bundle:
        """
        Read a bundle, a plain Hugging Face or Optimum folder, or a hub id; None is the model inside.

        :raises ModelError: naming the file that is missing, altered or unfit
        """
        folder = (DEFAULT_FOLDER if model is None else _resolve(str(model))).absolute()
        name = "default" if model is None else str(model)
        if (folder / DESCRIPTION).is_file():
            return _read_described(name, folder)
        if not folder.is_dir():
            raise ModelError(
                f"{folder}: no such model folder; give a folder with ONNX and tokenizer.json, or a hub id",
                reason="missing-model",
                file=str(folder),
            )
        return _read_plain(name, folder)


def _resolve(model: str) -> Path:
    """Turn a folder or hub id into a folder; only what looks like a hub id and is no folder is fetched."""
    if not is_elsewhere(model):
        return Path(model).expanduser()
    require_place(model, "model")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(model, allow_patterns=["*.json", "*.onnx", "*.onnx_data", "onnx/*"]))
    except Exception as err:  # huggingface_hub raises many kinds
        raise ModelError(
            f"{model}: cannot be fetched from the hub: {first_line(err)}", reason="cannot-fetch", file=model
        ) from err


def _read_described(name: str, folder: Path) -> Bundle:
    """Read a folder that ``nerd-export`` wrote, and check every file against its fingerprint."""
    description = Description.read(folder)
    for file, sha256 in description.files.items():
        _check_hash(folder, file, sha256)
    return Bundle(
        name=name,
        folder=None if folder == DEFAULT_FOLDER else folder,
        model_file=folder / GRAPH,
        tokenizer_file=folder / TOKENIZER,
        labels=description.labels,
        segment_tokens=description.segment_tokens,
        model_sha256=description.files[GRAPH],
        optimized=not (description.may_saturate and processor_kind() == "x86"),
        quantization=description.method,
        word_rule=description.word_rule,
        letter_case=description.letter_case,
        calibration=description.score_calibration(),
        description=description,
    )


def _check_hash(folder: Path, file: str, expected: str) -> None:
    """Compare a file with its recorded fingerprint, and refuse any that lies or points outside the folder."""
    path = folder / file
    if Path(file).name != file or not _stays_inside(path, folder):
        raise ModelError(
            f"{folder / DESCRIPTION}: names {file!r}, which is outside the model folder",
            reason="outside-folder",
            file=str(folder / DESCRIPTION),
            found=file,
        )
    if not path.is_file():
        raise ModelError(
            f"{path}: is missing from the model folder; copy the whole folder again",
            reason="missing-file",
            file=str(path),
        )
    found = sha256_of(path)
    if found != expected:
        raise ModelError(
            f"{path}: changed since export (SHA-256 {found[:12]}..., expected {expected[:12]}...); copy the folder "
            "again",
            reason="altered",
            file=str(path),
            found=found,
            expected=expected,
        )


def _stays_inside(path: Path, folder: Path) -> bool:
    """Tell whether a file lies in its folder; the hub's cache keeps files in ``blobs`` and links to them."""
    home = folder.resolve()
    blobs = home.parent.parent / "blobs"
    target = path.resolve()
    return target.is_relative_to(home) or (home.parent.name == "snapshots" and target.is_relative_to(blobs))


def _read_plain(name: str, folder: Path) -> Bundle:
    """Read a folder as transformers and optimum write it."""
    for path in (*folder.glob("*"), *folder.glob("onnx/*")):
        if path.is_symlink() and not _stays_inside(path, folder):
            raise ModelError(
                f"{path}: is a link to a place outside the model folder; put the file itself into the folder",
                reason="outside-folder",
                file=str(path),
            )
    config = read_json(folder / "config.json")
    names = config.get("id2label")
    if not isinstance(names, dict) or not names:
        raise ModelError(
            f"{folder / 'config.json'}: has no id2label; expected a token-classification model",
            reason="no-labels",
            file=str(folder / "config.json"),
        )
    if set(names) != {str(i) for i in range(len(names))}:
        raise ModelError(
            f"{folder / 'config.json'}: id2label must name 0 to {len(names) - 1}; it names {', '.join(names)}",
            reason="bad-labels",
            file=str(folder / "config.json"),
        )
    model_file = _find_onnx(folder)
    tokenizer_file = folder / "tokenizer.json"
    if not tokenizer_file.is_file():
        raise ModelError(
            f"{tokenizer_file}: is missing; the runtime needs the file of the fast tokenizer (save_pretrained writes "
            "it)",
            reason="missing-file",
            file=str(tokenizer_file),
        )
    try:
        labels = LabelSet(tuple(str(names[key]) for key in sorted(names, key=int)))
    except ValueError as err:
        raise ModelError(
            f"{folder / 'config.json'}: id2label: {err}", reason="bad-labels", file=str(folder / "config.json")
        ) from err
    return Bundle(
        name=name,
        folder=folder,
        model_file=model_file,
        tokenizer_file=tokenizer_file,
        labels=labels,
        segment_tokens=min(SEGMENT_TOKENS, longest_input(config, folder)),
        model_sha256=_fingerprint(model_file),
        letter_case=sees_case(config),
    )


def _fingerprint(model_file: Path) -> str:
    """Fingerprint a graph together with weights beside it (``model.onnx_data`` and the like)."""
    parts = [sha256_of(path) for path in sorted(model_file.parent.glob(f"{model_file.name}?*")) if path.is_file()]
    own = sha256_of(model_file)
    return hashlib.sha256("".join([own, *parts]).encode()).hexdigest() if parts else own


def _find_onnx(folder: Path) -> Path:
    """Find the graph under the usual names, in the folder or its ``onnx/``."""
    found = [
        path
        for place in (folder, folder / "onnx")
        if place.is_dir()
        for path in sorted(place.glob("*.onnx"))
        if path.is_file()
    ]
    if not found:
        raise ModelError(
            f"{folder}: contains no .onnx file, and its folder onnx/ does not either; make one with nerd-export",
            reason="no-graph",
            file=str(folder),
        )
    for usual in _USUAL_NAMES:
        for path in found:
            if path.name == usual:
                return path
    if len(found) == 1:
        return found[0]
    raise ModelError(
        f"{folder}: has several ONNX files ({', '.join(p.name for p in found)}); name one of them model.onnx",
        reason="several-graphs",
        file=str(folder),
        found=", ".join(p.name for p in found),
    )


def sees_case(config: Mapping[str, Any]) -> bool:
    """Tell from a checkpoint's ``config.json`` whether its network sees letter case; nerd-train writes it there."""
    return config.get("letter_case") is True


def longest_input(config: Mapping[str, Any], folder: Path) -> int:
    """Tell the longest input in tokens from what the folder says of positions and tokenizer."""
    limits = [512]
    positions = config.get("max_position_embeddings")
    if isinstance(positions, int) and positions > 0:
        after_padding = config.get("model_type") in _POSITIONS_AFTER_PADDING
        limits.append(positions - (_pad_id(config) + 1 if after_padding else 0))
    tokenizer_config = folder / "tokenizer_config.json"
    if tokenizer_config.is_file():
        length = read_json(tokenizer_config).get("model_max_length")
        if isinstance(length, (int, float)) and 0 < length < _UNSET_LENGTH:
            limits.append(int(length))
    return min(limits)


def _pad_id(config: Mapping[str, Any]) -> int:
    found = config.get("pad_token_id")
    return found if isinstance(found, int) else 1
