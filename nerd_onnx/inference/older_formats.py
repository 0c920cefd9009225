"""
Descriptions of bundles in formats 1 to 4, rewritten as a description of the present format.

| format | what it has that the next one has not | how it is read |
|---|---|---|
| 1 | no field ``letter_case``: networks did not see letter case | it is false |
| 1, 2 | a calibration of other evidence, with another formula | refused; a bundle without a calibration is read |
| 3 | a calibration without weights of fine labels | all are equal |
| 4 | no field ``integer_products``; 8-bit weights that can saturate on x86 without VNNI | they run exactly |

Up to format 4 a bundle may have a second graph, with 7-bit weights, which is not used.
"""

from __future__ import annotations

from typing import Any

from nerd_onnx.errors import ModelError
from nerd_onnx.inference.json_object import JsonObject

OLDEST_VERSION = 1
_WITHOUT_LETTER_CASE = 1
_OTHER_CALIBRATION = 2
_WITHOUT_FINE_WEIGHTS = 3
_FULL_BITS = 8  # weights of fewer bits cannot saturate


def upgraded(found: JsonObject, version: int) -> tuple[JsonObject, bool]:
    """
    Return a description in the present format, and whether its integer products can saturate on x86 without VNNI.

    :param found: the content of ``nerd.json``
    :param version: its format, from :data:`OLDEST_VERSION` to the last before the present one
    :raises ModelError: when it has a calibration that this version cannot compute, or is malformed
    """
    content: dict[str, Any] = {**found.content}
    if version <= _WITHOUT_LETTER_CASE:
        content["letter_case"] = False

    calibration = found.optional_section("calibration")
    if calibration is not None:
        content["calibration"] = _calibration(found, calibration, version)

    bits = _weight_bits(found)
    content["quantization"] = {**found.section("quantization").content, "integer_products": bits is not None}
    return JsonObject(found.file, content), bits == _FULL_BITS


def _calibration(found: JsonObject, calibration: JsonObject, version: int) -> dict[str, Any]:
    if version <= _OTHER_CALIBRATION:
        raise ModelError(
            f"{found.file}: has format version {version} with a calibration that this program cannot compute; export "
            "the checkpoint again, with the labelled file that the calibration was fitted on",
            reason="old-calibration",
            file=found.file,
            found=str(version),
            expected=_OTHER_CALIBRATION + 1,
        )

    coarse = found.optional_section("coarse")
    if version > _WITHOUT_FINE_WEIGHTS or coarse is None:
        return {**calibration.content}
    return {**calibration.content, "fine_weights": dict.fromkeys(coarse.names(), 1.0)}


def _weight_bits(found: JsonObject) -> int | None:
    """
    Return the bits of the weights; None where they are not integers.

    :raises ModelError: when the record of the graphs is malformed
    """
    graphs = found.content.get("variants")
    if not graphs:
        return _FULL_BITS
    if not isinstance(graphs, list) or not isinstance(graphs[0], dict):
        raise found.error("variants", "is malformed; expected a list of objects")

    first = JsonObject(found.file, graphs[0], "variants[0]")
    return first.integer("weight_bits", 1, _FULL_BITS) if first.has("weight_bits") else None
