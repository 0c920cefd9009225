"""
``expected.json`` of a bundle: the entities of the sample texts, so that any machine can compare without PyTorch.

It has those that the original finds. A bundle that the native encoder computes has its own too: the bits are the
same on every processor, so any machine must find exactly these.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nerd_export.conversion.compare_with_original import Entities, as_set, entity_set
from nerd_export.data.sample import SAMPLE_FILE, sample_texts
from nerd_onnx.inference.bundle import Bundle
from nerd_onnx.inference.description import sha256_of
from nerd_onnx.inference.json_object import JsonObject, read_json
from nerd_onnx.inference.native_network import NativeNetwork
from nerd_onnx.inference.session import Network
from nerd_onnx.tagger import Tagger, TagOptions

EXPECTED = "expected.json"
_ENTITY_FIELDS = 5  # text, start, end, label, fine label: the last two as indices into the label set


@dataclass(frozen=True)
class Expected:
    """
    The entities that an export recorded.

    :param original: those of the original
    :param bundle: those of the bundle; None where their bits depend on the processor
    :param kernels: what computed those of the bundle, see :attr:`Tagger.kernels`
    """

    original: Entities
    bundle: Entities | None = None
    kernels: str = ""


def write_expected(folder: Path, bundle: Bundle, original: Network) -> None:
    """
    Write what the original and the bundle find in the sample.

    :param bundle: with its calibration, which decides for both
    :param original: the PyTorch model
    """
    # The original computes and the bundle decides: a later check on another machine compares networks alone.
    # One thread, because PyTorch uses all processors in one call.
    expected = _found(Tagger(bundle, TagOptions(threads=1), network=original))
    content = {"texts": SAMPLE_FILE.name, "sha256": sha256_of(SAMPLE_FILE), "entities": expected}

    tagger = Tagger(bundle)
    if isinstance(tagger.network, NativeNetwork):
        content |= {"kernels": tagger.kernels, "bundle": _found(tagger)}
    (folder / EXPECTED).write_text(json.dumps(content, separators=(",", ":")) + "\n", "utf-8")


def read_expected(bundle: Bundle) -> Expected | None:
    """
    Read what was written at export.

    :return: None without a record for the sample texts of this version of the program
    :raises ModelError: when the record is malformed
    """
    if bundle.description is None or EXPECTED not in bundle.description.files:
        return None

    recorded = read_json(bundle.model_file.parent / EXPECTED)
    if recorded.text("sha256") != sha256_of(SAMPLE_FILE):
        return None

    original = _entities(recorded, "entities")
    if not recorded.has("bundle"):
        return Expected(original)
    return Expected(original, _entities(recorded, "bundle"), recorded.text("kernels"))


def _found(tagger: Tagger) -> list[tuple[int, ...]]:
    """Return the entities of the sample, sorted, and close the tagger."""
    found = sorted(entity_set(tagger.tag_arrays(sample_texts()).spans))
    tagger.close()
    return found


def _entities(recorded: JsonObject, name: str) -> Entities:
    """
    Return a list of entities of the record.

    :raises ModelError: when it is malformed
    """
    entities: Any = recorded.content.get(name)
    if not isinstance(entities, list) or not all(map(_is_entity, entities)):
        raise recorded.error(name, "is malformed; expected a list of lists of five whole numbers")
    return as_set(entities)


def _is_entity(row: object) -> bool:
    # type() and not isinstance(), to which true and false are integers.
    return isinstance(row, list) and [type(value) for value in row] == [int] * _ENTITY_FIELDS
