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
from typing import Any, cast, get_args

from nerd_onnx.errors import ModelError, first_line
from nerd_onnx.inference.calibration import ScoreCalibration
from nerd_onnx.inference.labels import LabelSet
from nerd_onnx.inference.native_layout import NativeLayout
from nerd_onnx.inference.words import WordRule

DESCRIPTION = "nerd.json"
GRAPH = "model.onnx"
TOKENIZER = "tokenizer.json"
FORMAT_VERSION = 5
# Format 4 is read as well. Its 8-bit weights can saturate on x86 without VNNI. It may have a second graph with 7-bit
# weights, which is not used.
_SATURATING_VERSION = 4
_JSON_BYTES = 16 << 20


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
    :param may_saturate: whether integer products can saturate on x86 without VNNI; only in bundles of format 4
    :param native: where the native encoder finds its weights in the graph; None where it cannot compute the network
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
        file = folder / DESCRIPTION
        found = read_json(file)

        version = found.get("format_version")
        if version not in (FORMAT_VERSION, _SATURATING_VERSION):
            raise ModelError(
                f"{file}: has format version {version!r}, and this program reads versions {_SATURATING_VERSION} and "
                f"{FORMAT_VERSION}; export the model again, or install the matching nerd-onnx",
                reason="other-format-version",
                file=str(file),
                found=str(version),
                expected=FORMAT_VERSION,
            )

        # A file without a fingerprint could be replaced without notice.
        files = found.get("files")
        if unlisted := {GRAPH, TOKENIZER} - set(files if isinstance(files, dict) else ()):
            raise ModelError(
                f"{file}: incomplete or malformed (no fingerprint of {', '.join(sorted(unlisted))})",
                reason="no-fingerprint",
                file=str(file),
                found=", ".join(sorted(unlisted)),
            )

        try:
            quantization, may_saturate = _quantization(found)
            description = cls(
                labels=LabelSet(tuple(found["labels"]), found.get("coarse") or {}, found["scheme"]),
                segment_tokens=int(found["segment_tokens"]),
                word_rule=_word_rule(found["word_rule"]),
                letter_case=_flag(found, "letter_case"),
                quantization=quantization,
                opset=int(found["opset"]),
                lineage=_object(found["lineage"]),
                calibration=found.get("calibration"),
                metrics=_object(found.get("metrics") or {}),
                verification=found.get("verification"),
                files={str(name): str(facts["sha256"]) for name, facts in found["files"].items()},
                may_saturate=may_saturate,
                native=_native(found.get("native")),
            )
            description.score_calibration()  # raises when the calibration does not fit the labels
        except (KeyError, TypeError, ValueError, AttributeError) as err:
            raise ModelError(
                f"{file}: incomplete or malformed ({err!r}); export the model again",
                reason="bad-description",
                file=str(file),
            ) from err

        return description

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

        (folder / DESCRIPTION).write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", "utf-8")


def sha256_of(path: Path) -> str:
    """
    Return the SHA-256 of a file as hexadecimal digits; the file is read in parts.

    :raises ModelError: when the file cannot be read
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as err:
        raise ModelError(f"{path}: cannot be read: {err.strerror}", reason="cannot-read", file=str(path)) from err


def read_json(path: Path) -> dict[str, Any]:
    """
    Read a file that contains one JSON object.

    :raises ModelError: when the file is missing, too large, or not a JSON object
    """
    try:
        if path.stat().st_size > _JSON_BYTES:
            raise ModelError(
                f"{path}: has {path.stat().st_size / 1e6:.0f} MB; expected a description of some KB",
                reason="too-large",
                file=str(path),
                found=path.stat().st_size,
                maximum=_JSON_BYTES,
            )
        value = json.loads(path.read_text("utf-8"))
    except FileNotFoundError as err:
        raise ModelError(
            f"{path}: is missing; a model folder has config.json, tokenizer.json and an ONNX file",
            reason="missing-file",
            file=str(path),
        ) from err
    except (OSError, ValueError, RecursionError) as err:
        raise ModelError(f"{path}: not readable as JSON: {first_line(err)}", reason="not-json", file=str(path)) from err

    if not isinstance(value, dict):
        raise ModelError(f"{path}: expected a JSON object", reason="not-object", file=str(path))
    return value


def _object(value: object) -> Mapping[str, Any]:
    """
    Return a value that must be a JSON object.

    :raises TypeError: when it is not
    """
    if not isinstance(value, dict):
        raise TypeError(f"expected an object, found {value!r}")
    return value


def _quantization(found: Mapping[str, Any]) -> tuple[Mapping[str, Any], bool]:
    """
    Return the record of the quantization, and whether its integer products can saturate on x86 without VNNI.

    :raises KeyError, TypeError: when the record is incomplete or malformed
    """
    record = _object(found["quantization"])
    record["method"]  # raises KeyError without a method

    if found["format_version"] == _SATURATING_VERSION:
        graphs = found.get("variants") or [{"weight_bits": 8}]
        bits = graphs[0]["weight_bits"]
        return {**record, "integer_products": bits is not None}, bits == 8  # noqa: PLR2004 - the others have 7

    _flag(record, "integer_products")
    return record, False


def _native(found: object) -> NativeLayout | None:
    """
    Return the section about the native encoder; None where there is none.

    :raises KeyError, TypeError, ValueError: when it is incomplete or malformed
    """
    return None if found is None else NativeLayout.from_json(_object(found))


def _word_rule(rule: object) -> WordRule:
    """
    Return a value that must be a word rule.

    :raises ValueError: when it is not
    """
    if rule not in get_args(WordRule):
        raise ValueError(f"word rule {rule!r}")
    return cast("WordRule", rule)


def _flag(record: Mapping[str, Any], key: str) -> bool:
    """
    Return a value that must be true or false.

    :raises KeyError, TypeError: when it is missing or something else
    """
    value = record[key]
    if not isinstance(value, bool):
        raise TypeError(f"{key} {value!r}")
    return value
