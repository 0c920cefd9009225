"""
Model folders: found, read and checked.

A bundle is a folder that ``nerd-export`` wrote: its ``nerd.json`` describes the graph and has the fingerprint of every
file, and all of them are compared when it is read. A plain folder of transformers or optimum is read too, with the
labels and the longest input that its ``config.json`` states. The files are data: nothing in a folder is executed.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from nerd_onnx.errors import ModelError, first_line
from nerd_onnx.inference.calibration import ScoreCalibration
from nerd_onnx.inference.description import DESCRIPTION, GRAPH, TOKENIZER, Description
from nerd_onnx.inference.graph_file import GraphFile, read_graph
from nerd_onnx.inference.json_object import JsonObject, read_json
from nerd_onnx.inference.labels import OUTSIDE, LabelSet
from nerd_onnx.inference.model_files import require_regular_file
from nerd_onnx.inference.seen_files import SeenFile
from nerd_onnx.inference.word_joints import Join
from nerd_onnx.inference.words import WordRule
from nerd_onnx.machine.cpu import integer_kernels, processor_kind
from nerd_onnx.storage.hub import is_elsewhere, readable_place, require_place

DEFAULT_FOLDER = Path(__file__).resolve().parent.parent / "default_model"
# Of plain folders: enough context, and attention costs the square of the length.
SEGMENT_TOKENS = 128
_UNSET_LENGTH = 1_000_000  # tokenizers write 1e30 for "no limit"
_MAX_COUNT = 1 << 40
_NO_NAME = re.compile(r"LABEL_[0-9]+")  # what transformers writes for a model without names of labels
_USUAL_NAMES = ("model.onnx", "model_quantized.onnx", "model_optimized.onnx", "model_int8.onnx", "model_fp16.onnx")
# These count positions from the id of the padding token plus one, so that many positions are never used.
_POSITIONS_AFTER_PADDING = frozenset({"roberta", "xlm-roberta", "camembert", "mpnet", "xlm-roberta-xl", "longformer"})


@dataclass(frozen=True)
class Bundle:
    """
    A model folder that was read and checked.

    :param name: the model as the user named it
    :param folder: absolute path; None for the default model
    :param model_file: the ONNX graph
    :param tokenizer_file: ``tokenizer.json``
    :param labels: tags that the network scores, and the labels of entities
    :param segment_tokens: maximum length of a segment, in tokens, special tokens included
    :param model_sha256: fingerprint of the ONNX file and of its files with weights
    :param tokenizer_sha256: fingerprint of ``tokenizer.json``
    :param seen_files: the files that libraries open by name, as they were when their fingerprints were taken
    :param graph: facts about the ONNX file; None to read them where they are needed
    :param weight_files: the files with weights that the graph reads, and others that belong to it by their names
    :param other_graphs: paths in a plain folder of the graphs that were not taken
    :param optimized: whether the graph is in its final form and its products cannot saturate on this processor
    :param quantization: name of the quantization; ``none`` for fp32, ``unknown`` for plain folders
    :param word_rule: which tokens form a word, see :mod:`words`
    :param letter_case: whether the network sees letter case, see :mod:`letter_case`
    :param calibration: computes the scores of candidates; None where nothing was fitted
    :param description: content of ``nerd.json``; None for plain folders
    """

    name: str
    folder: Path | None
    model_file: Path
    tokenizer_file: Path
    labels: LabelSet
    segment_tokens: int
    model_sha256: str
    tokenizer_sha256: str
    optimized: bool = False
    quantization: str = "unknown"
    word_rule: WordRule = "pretokens"
    letter_case: bool = False
    calibration: ScoreCalibration | None = None
    description: Description | None = None
    graph: GraphFile | None = field(default=None, repr=False, compare=False)
    weight_files: tuple[Path, ...] = ()
    other_graphs: tuple[str, ...] = ()
    seen_files: tuple[SeenFile, ...] = field(default=(), repr=False, compare=False)

    @property
    def join(self) -> Join:
        """
        How words become entities, see :mod:`word_joints`: as the bundle states.

        Else ``scheme`` where words are those of treebanks, which are written words already, and ``touching`` where they
        are the tokenizer's pieces.
        """
        if self.description is not None and self.description.join is not None:
            return self.description.join
        return "touching" if self.word_rule == "pretokens" else "scheme"

    @cached_property
    def kernels(self) -> str:
        """Instructions for the products of the linear layers. A plain folder does not state whether these are int8."""
        if self.description is None:
            return "as the ONNX file says"
        if not self.description.integer_products:
            return "fp32"
        return integer_kernels() if self.optimized else "int8, exact: an older bundle, see docs/int8.md"

    @cached_property
    def fingerprint(self) -> str:
        """Fingerprint of all files that decide entities."""
        facts = [self.model_sha256, self.tokenizer_sha256, self.calibration_digest, *self.labels.names]
        return hashlib.sha256("\n".join(facts).encode()).hexdigest()

    def check_files(self) -> None:
        """
        Check that the files are those whose fingerprints the bundle has, after libraries opened them by name.

        :raises ModelError: when one was replaced or changed meanwhile
        """
        for file in self.seen_files:
            file.check()

    def uncalibrated(self) -> Bundle:
        """Return the bundle without its calibration: each word is then decided by itself."""
        return replace(self, calibration=None)

    @cached_property
    def calibration_digest(self) -> str:
        """Fingerprint of the calibration, which decides entities beside the graph; ``none`` without a calibration."""
        if self.calibration is None or self.description is None:
            return "none"
        return self.description.calibration_digest

    @classmethod
    def load(cls, model: str | Path | None = None) -> Bundle:
        """
        Read a bundle, or a plain folder of transformers or optimum.

        :param model: a folder or a hub id; None for the default model
        :raises ModelError: when a file is missing, changed or not usable; the error names it
        """
        if model is None:
            return _read("default", DEFAULT_FOLDER)

        with readable_place(str(model), ModelError):
            return _read(str(model), _resolve(str(model)).absolute())


def _read(name: str, folder: Path) -> Bundle:
    """Read a folder of either kind."""
    # Also where it is something else than a file, which is then refused by its name.
    if os.path.lexists(folder / DESCRIPTION):
        return _read_described(name, folder)

    if not folder.is_dir():
        raise ModelError(
            f"{folder}: no such model folder; give a folder with ONNX and tokenizer.json, or a hub id",
            reason="missing-model",
            file=str(folder),
        )
    return _read_plain(name, folder)


def _resolve(model: str) -> Path:
    """Return the folder of a model. A name that is no local folder and looks like a hub id is downloaded."""
    if not is_elsewhere(model):
        return Path(model).expanduser()
    require_place(model, "model")
    from huggingface_hub import snapshot_download

    try:
        # Weights in other formats are not needed, and they are the largest files of most repositories.
        return Path(snapshot_download(model, allow_patterns=["*.json", "*.onnx", "*.onnx_data", "onnx/*"]))
    except Exception as err:  # huggingface_hub raises many kinds
        raise ModelError(
            f"{model}: cannot be fetched from the hub: {first_line(err)}", reason="cannot-fetch", file=model
        ) from err


def _read_described(name: str, folder: Path) -> Bundle:
    """Read a folder that ``nerd-export`` wrote, and compare every file with its fingerprint."""
    description = Description.read(folder)
    seen = tuple(_checked_file(folder, file, sha256) for file, sha256 in description.files.items())

    graph = read_graph(folder / GRAPH)
    weights = _listed_weights(folder, graph, description)

    return Bundle(
        name=name,
        folder=None if folder == DEFAULT_FOLDER else folder,
        model_file=folder / GRAPH,
        tokenizer_file=folder / TOKENIZER,
        labels=description.labels,
        segment_tokens=description.segment_tokens,
        model_sha256=_joined(description.files[GRAPH], [description.files[path.name] for path in weights]),
        tokenizer_sha256=description.files[TOKENIZER],
        # Otherwise onnxruntime must replace products that can saturate here, see session_options().
        optimized=not (description.may_saturate and processor_kind() == "x86"),
        quantization=description.method,
        word_rule=description.word_rule,
        letter_case=description.letter_case,
        calibration=description.score_calibration(),
        description=description,
        graph=graph,
        weight_files=weights,
        seen_files=seen,
    )


def _listed_weights(folder: Path, graph: GraphFile, description: Description) -> tuple[Path, ...]:
    """
    Return the files with weights that the graph of a bundle reads.

    :raises ModelError: when ``nerd.json`` has no fingerprint of one: it could be replaced without notice
    """
    named = sorted(graph.locations)
    for name in named:
        if name not in description.files:
            raise ModelError(
                f"{folder / GRAPH}: reads its weights from {name!r}, of which {DESCRIPTION} has no fingerprint; export "
                "the model again",
                reason="unlisted-file",
                file=str(folder / GRAPH),
                found=name,
            )
    return tuple(folder / name for name in named)


def _checked_file(folder: Path, file: str, expected: str) -> SeenFile:
    """
    Return a file after a comparison with its recorded fingerprint.

    :param file: name in the folder, as ``nerd.json`` has it
    :param expected: SHA-256 as hexadecimal digits
    :raises ModelError: when the file is missing, changed, or outside the folder by its name or by a link
    """
    path = folder / file
    if Path(file).name != file or not _stays_inside(path, folder):
        raise ModelError(
            f"{folder / DESCRIPTION}: names {file!r}, which is outside the model folder",
            reason="outside-folder",
            file=str(folder / DESCRIPTION),
            found=file,
        )

    if not path.exists():
        raise ModelError(
            f"{path}: is missing from the model folder; copy the whole folder again",
            reason="missing-file",
            file=str(path),
        )

    seen = SeenFile.of(path)
    if (found := seen.sha256) != expected:
        require_regular_file(path)  # names a pointer of Git LFS
        raise ModelError(
            f"{path}: changed since export (SHA-256 {found[:12]}..., expected {expected[:12]}...); copy the folder "
            "again",
            reason="altered",
            file=str(path),
            found=found,
            expected=expected,
        )
    return seen


def _stays_inside(path: Path, folder: Path) -> bool:
    """Whether a file is inside its folder after all links are followed."""
    home = folder.resolve()
    # The hub's cache has the files of a model in a folder ``blobs``, and links to them.
    blobs = home.parent.parent / "blobs"

    target = path.resolve()
    return target.is_relative_to(home) or (home.parent.name == "snapshots" and target.is_relative_to(blobs))


def _read_plain(name: str, folder: Path) -> Bundle:
    """
    Read a folder of transformers or optimum.

    :raises ModelError: when a file is missing or not usable
    """
    # No fingerprints protect this folder, and it may come from the net: a link could show any file of this machine.
    for path in (*folder.glob("*"), *folder.glob("onnx/*")):
        if path.is_symlink() and not _stays_inside(path, folder):
            raise ModelError(
                f"{path}: is a link to a place outside the model folder; put the file itself into the folder",
                reason="outside-folder",
                file=str(path),
            )

    config = read_json(folder / "config.json")
    labels = _labels(config)
    model_file, other_graphs = _find_onnx(folder)

    tokenizer_file = folder / "tokenizer.json"
    if not tokenizer_file.exists():
        raise ModelError(
            f"{tokenizer_file}: is missing; {_about_tokenizer(folder)}",
            reason="missing-file",
            file=str(tokenizer_file),
        )

    graph = read_graph(model_file)
    weights = _plain_weights(model_file, graph)
    seen = [SeenFile.of(path) for path in (tokenizer_file, model_file, *weights)]
    tokenizer_sha256, model_sha256, *weights_sha256 = (file.sha256 for file in seen)
    return Bundle(
        name=name,
        folder=folder,
        model_file=model_file,
        tokenizer_file=tokenizer_file,
        labels=labels,
        segment_tokens=min(SEGMENT_TOKENS, longest_input(config.content, folder)),
        model_sha256=_joined(model_sha256, weights_sha256),
        tokenizer_sha256=tokenizer_sha256,
        seen_files=tuple(seen),
        letter_case=sees_case(config.content),
        graph=graph,
        weight_files=weights,
        other_graphs=other_graphs,
    )


def _about_tokenizer(folder: Path) -> str:
    """Return what to do about a folder without ``tokenizer.json``."""
    other = next((name for name in ("vocab.txt", "vocab.json", "spiece.model") if (folder / name).exists()), None)
    if other is not None:
        return f"the folder has {other} only; nerd-export takes such a folder and writes a bundle with tokenizer.json"
    return "the runtime needs the file of the fast tokenizer (save_pretrained writes it)"


def _labels(config: JsonObject) -> LabelSet:
    """
    Return the labels that ``config.json`` states.

    :raises ModelError: when there are none, or they are malformed
    """
    names = config.content.get("id2label")
    if not isinstance(names, dict) or not names:
        raise ModelError(
            f"{config.file}: has no id2label; expected a token-classification model",
            reason="no-labels",
            file=config.file,
        )

    expected = [str(i) for i in range(len(names))]
    if names.keys() != set(expected):
        raise ModelError(
            f"{config.file}: id2label must name 0 to {len(names) - 1}; it names {', '.join(names)}",
            reason="bad-labels",
            file=config.file,
        )

    by_number = config.section("id2label").names()
    if all(map(_NO_NAME.fullmatch, by_number.values())):
        raise ModelError(
            f"{config.file}: id2label has numbers in place of names ({by_number['0']}, ...), so that no tag means 'no "
            "entity' and every word would be in one; write the tags that the model was trained on into id2label, with "
            "O for words outside of entities",
            reason="no-label-names",
            file=config.file,
            found=", ".join(list(by_number.values())[:3]),
            expected=OUTSIDE,
        )

    try:
        return LabelSet(tuple(by_number[number] for number in expected))
    except ValueError as err:
        raise ModelError(f"{config.file}: id2label: {err}", reason="bad-labels", file=config.file) from err


def _plain_weights(model_file: Path, graph: GraphFile) -> tuple[Path, ...]:
    """
    Return the files with weights of a graph: those that it names, and those with its name and more (``.onnx_data``).

    Files that the graph names elsewhere are left out: onnxruntime refuses them and says so.
    """
    folder = model_file.parent
    named = {folder / name for name in graph.locations if "\0" not in name}
    inside = {path for path in named if path.resolve().is_relative_to(folder.resolve())}

    found = {*inside, *folder.glob(f"{model_file.name}?*")}
    return tuple(sorted(path for path in found if os.path.isfile(path)))  # noqa: PTH113 - no error for a long name


def _joined(graph: str, weights: Sequence[str]) -> str:
    """Return one fingerprint for those of a graph and of its weights; that of the graph where it has no others."""
    return hashlib.sha256("".join([graph, *weights]).encode()).hexdigest() if weights else graph


def _find_onnx(folder: Path) -> tuple[Path, tuple[str, ...]]:
    """
    Find the graph of a plain folder, in the folder or in its ``onnx/``.

    :return: the graph, and the paths of the other graphs in the folder
    :raises ModelError: when there is no graph, or several of which none has a usual name
    """
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
                return path, tuple(str(other.relative_to(folder)) for other in found if other != path)

    if len(found) == 1:
        return found[0], ()

    raise ModelError(
        f"{folder}: has several ONNX files ({', '.join(p.name for p in found)}); name one of them model.onnx",
        reason="several-graphs",
        file=str(folder),
        found=", ".join(p.name for p in found),
    )


def sees_case(config: Mapping[str, Any]) -> bool:
    """
    Whether a network sees letter case, by the ``config.json`` of its checkpoint, where ``nerd-train`` writes it.

    :raises ModelError: when the field is neither true nor false
    """
    read = JsonObject("config.json", config)
    return read.has("letter_case") and read.flag("letter_case")


def longest_input(config: Mapping[str, Any], folder: Path) -> int:
    """
    Return the maximum number of tokens of an input, special tokens included.

    :param config: content of ``config.json``
    :param folder: folder whose ``tokenizer_config.json`` may have a limit too
    :raises ModelError: when a field that limits it is malformed, or ``tokenizer_config.json`` cannot be read
    """
    limits = [512]

    read = JsonObject(folder / "config.json", config)
    positions = _count(read, "max_position_embeddings", 0)
    if positions > 0:
        after_padding = read.has("model_type") and read.text("model_type") in _POSITIONS_AFTER_PADDING
        limits.append(positions - (_count(read, "pad_token_id", 1) + 1 if after_padding else 0))

    tokenizer_config = folder / "tokenizer_config.json"
    if tokenizer_config.exists():  # a pipe or device is refused by name
        tokenizer = read_json(tokenizer_config)
        length = tokenizer.number("model_max_length") if tokenizer.has("model_max_length") else 0
        if 0 < length < _UNSET_LENGTH:
            limits.append(int(length))

    return min(limits)


def _count(config: JsonObject, key: str, default: int) -> int:
    """Return a field with a small whole number, which some configurations set to -1; or a default without the field."""
    return config.integer(key, -1, _MAX_COUNT) if config.has(key) else default
