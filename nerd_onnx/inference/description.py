"""
``nerd.json``, the description of a bundle. Only this module reads, checks and writes it.

It has what the runtime needs to know of the graph (labels, length of segments, word rule, letter case), the fingerprint
of every file, and a record for people: where the model comes from, its scores, and its differences from the original.

To add a field: add it to :class:`Description`, to :meth:`Description.read` and to :meth:`Description.write`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from nerd_onnx.errors import ModelError
from nerd_onnx.inference.calibration import ScoreCalibration
from nerd_onnx.inference.json_object import JsonObject, read_json
from nerd_onnx.inference.labels import LabelSet, Scheme
from nerd_onnx.inference.model_files import open_regular_file, unreadable
from nerd_onnx.inference.native_layout import NativeLayout
from nerd_onnx.inference.older_formats import OLDEST_VERSION, upgraded
from nerd_onnx.inference.word_joints import Join
from nerd_onnx.inference.words import WordRule

DESCRIPTION = "nerd.json"
GRAPH = "model.onnx"
TOKENIZER = "tokenizer.json"
# Increase it when earlier programs would misread a description; a new field that they may ignore needs no new version.
FORMAT_VERSION = 5
_MAX_SEGMENT_TOKENS = 1 << 20
_MAX_OPSET = 10_000


@dataclass(frozen=True)
class Description:
    """
    The content of ``nerd.json``.

    :param labels: tags that the network scores, and the labels of entities
    :param segment_tokens: maximum length of a segment, in tokens, special tokens included
    :param word_rule: which tokens form a word, see :mod:`words`
    :param letter_case: whether the network sees letter case, see :mod:`letter_case`
    :param quantization: record of how the graph was quantized; the runtime reads ``method`` and ``integer_products``
    :param opset: opset of the ONNX graph
    :param lineage: where the model comes from: checkpoint, training, licence, versions
    :param calibration: record of the fitted calibration; None where nothing was fitted
    :param metrics: scores by labelled split: of the original, in fp32, and of the bundle
    :param verification: differences between the bundle and the original
    :param files: SHA-256 of every other file that the runtime reads, by name
    :param may_saturate: whether integer products can saturate on x86 without VNNI; only in bundles of formats 1 to 4
    :param native: where the native encoder finds its weights in the graph; None where it cannot compute the network
    :param join: how words become entities, see :mod:`word_joints`; None for the usual way
    """

    labels: LabelSet
    segment_tokens: int
    word_rule: WordRule
    letter_case: bool
    quantization: Mapping[str, Any]
    opset: int
    lineage: Mapping[str, Any]
    calibration: Mapping[str, Any] | None = None
    metrics: Mapping[str, Any] = field(default_factory=dict)
    verification: Mapping[str, Any] | None = None
    files: Mapping[str, str] = field(default_factory=dict)
    may_saturate: bool = False
    native: NativeLayout | None = None
    join: Join | None = None

    @property
    def method(self) -> str:
        """Name of the quantization; ``none`` for fp32."""
        return str(self.quantization["method"])

    @property
    def integer_products(self) -> bool:
        """Whether linear layers multiply integers."""
        return bool(self.quantization["integer_products"])

    @property
    def calibration_digest(self) -> str:
        """Fingerprint of the calibration; ``none`` without one."""
        if self.calibration is None:
            return "none"

        return hashlib.sha256(json.dumps(self.calibration, sort_keys=True).encode()).hexdigest()[:16]

    def score_calibration(self) -> ScoreCalibration | None:
        """Return the recorded calibration as decoding uses it; None where nothing was fitted."""
        return None if self.calibration is None else ScoreCalibration.from_description(self.calibration, self.labels)

    @classmethod
    def read(cls, folder: Path) -> Description:
        """
        Read the description of a bundle.

        :param folder: the bundle
        :raises ModelError: when ``nerd.json`` is missing, of another format version, incomplete or malformed
        """
        found = read_json(folder / DESCRIPTION, strict=True)
        version = _version(found)

        may_saturate = False
        if version < FORMAT_VERSION:
            found, may_saturate = upgraded(found, version)

        files = {name: facts.text("sha256") for name, facts in _files(found).sections()}
        labels = _labels(found)

        quantization = found.section("quantization")
        quantization.text("method")
        quantization.flag("integer_products")

        calibration = found.optional_section("calibration")
        if calibration is not None:
            # Read for its checks alone: a calibration that does not fit the labels is an error of this file.
            ScoreCalibration.read(calibration, labels)

        verification = found.optional_section("verification")
        metrics = found.optional_section("metrics")
        native = found.optional_section("native")

        return cls(
            labels=labels,
            segment_tokens=found.integer("segment_tokens", 1, _MAX_SEGMENT_TOKENS),
            word_rule=found.choice("word_rule", get_args(WordRule)),
            letter_case=found.flag("letter_case"),
            quantization=quantization.content,
            opset=found.integer("opset", 1, _MAX_OPSET),
            lineage=found.section("lineage").content,
            calibration=None if calibration is None else calibration.content,
            metrics={} if metrics is None else metrics.content,
            verification=None if verification is None else verification.content,
            files=files,
            may_saturate=may_saturate,
            join=found.choice("join", get_args(Join)) if found.content.get("join") is not None else None,
            native=None if native is None else NativeLayout.from_json(native),
        )

    def write(self, folder: Path, exclude: frozenset[str] = frozenset()) -> None:
        """
        Write the description of a bundle, with the fingerprint of every other file in its folder.

        :param folder: the bundle, whose other files are complete
        :param exclude: names of files for people, who may change them
        :raises OSError: when the file cannot be written
        """
        names = sorted(path.name for path in folder.iterdir() if path.name not in exclude | {DESCRIPTION})

        content = {
            "format_version": FORMAT_VERSION,
            "labels": list(self.labels.names),
            "scheme": self.labels.scheme,
            "coarse": dict(self.labels.coarse) or None,
            "segment_tokens": self.segment_tokens,
            "inputs": ["input_ids", "attention_mask", *(["token_type_ids"] if self.letter_case else [])],
            "word_rule": self.word_rule,
            "letter_case": self.letter_case,
            **({} if self.join is None else {"join": self.join}),
            "quantization": dict(self.quantization),
            "opset": self.opset,
            **({} if self.native is None else {"native": self.native.to_json()}),
            "lineage": dict(self.lineage),
            "verification": self.verification,
            "calibration": self.calibration,
            "metrics": dict(self.metrics),
            "files": {
                name: {"sha256": sha256_of(folder / name), "bytes": (folder / name).stat().st_size} for name in names
            },
        }

        # read() refuses numbers that are not finite, so they must not be written.
        (folder / DESCRIPTION).write_text(
            json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n", "utf-8"
        )


def sha256_of(path: Path) -> str:
    """
    Return the SHA-256 of a file as hexadecimal digits; the file is read in parts.

    :raises ModelError: when the file cannot be read
    """
    try:
        with open_regular_file(path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as err:
        raise unreadable(path, err) from err


def _version(found: JsonObject) -> int:
    """
    Return the format version.

    :raises ModelError: when it is missing, or this program does not read it
    """
    version = found.content.get("format_version")
    # Not isinstance(): true is an int as well.
    if type(version) is not int or not OLDEST_VERSION <= version <= FORMAT_VERSION:
        raise ModelError(
            f"{found.file}: has format version {version!r}, and this program reads versions {OLDEST_VERSION} to "
            f"{FORMAT_VERSION}; export the model again, or install the matching nerd-onnx",
            reason="other-format-version",
            file=found.file,
            found=str(version),
            expected=FORMAT_VERSION,
        )
    return version


def _files(found: JsonObject) -> JsonObject:
    """
    Return the record of all files.

    :raises ModelError: when the record is malformed, or has no fingerprint of the graph or the tokenizer
    """
    listed = found.content.get("files")
    names = set(listed) if isinstance(listed, dict) else set()

    # A file without a fingerprint could be replaced without notice.
    unlisted = {GRAPH, TOKENIZER} - names
    if unlisted:
        raise ModelError(
            f"{found.file}: incomplete or malformed (no fingerprint of {', '.join(sorted(unlisted))})",
            reason="no-fingerprint",
            file=found.file,
            found=", ".join(sorted(unlisted)),
        )
    return found.section("files")


def _labels(found: JsonObject) -> LabelSet:
    """
    Return the labels that the network scores.

    :raises ModelError: when they are malformed
    """
    coarse = found.optional_section("coarse")
    names, scheme = found.texts("labels"), found.choice("scheme", get_args(Scheme))
    try:
        return LabelSet(names, {} if coarse is None else coarse.names(), scheme)
    except ValueError as err:
        raise found.error("labels", f"cannot be used: {err}") from err
