"""Soft labels: the probabilities of larger models for each word, to learn from (Hinton et al., 2015)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nerd_export.config import Precision
from nerd_export.data.examples import Example
from nerd_export.models.letter_case import token_types
from nerd_export.models.names import as_checkpoint, bundle_named
from nerd_export.outputs import writing
from nerd_export.training.features import Features
from nerd_onnx.errors import NerdError, OutputError, first_line
from nerd_onnx.inference.bundle import longest_input, sees_case
from nerd_onnx.inference.description import DESCRIPTION
from nerd_onnx.inference.json_object import read_json
from nerd_onnx.inference.labels import LabelSet

_BATCH_TOKENS = 4096
_FILE = "soft_labels.npy"
_DECIDING = (".json", ".txt", ".safetensors", ".bin", ".model")


@dataclass(frozen=True)
class SoftLabels:
    """
    The teachers' probabilities for each decided word, in a file that is mapped into memory.

    :param table: *Shape:* (decided words of all examples, labels); zeros where no teacher has a token
    :param first: row of each example's first word. *Shape:* (examples + 1,)
    """

    table: npt.NDArray[np.float16]
    first: npt.NDArray[np.int64]

    def of(self, example: int) -> npt.NDArray[np.float16]:
        """Return the probabilities of the decided words of one example. *Shape:* (words, labels)."""
        return self.table[self.first[example] : self.first[example + 1]]


def fingerprint(teacher: str) -> str:
    """Return a fingerprint of a teacher's name and local files, so that a resumed run notices another teacher."""
    # The name counts too: it is all that is known of a model on the hub.
    digest = hashlib.sha256(teacher.encode())
    bundle = bundle_named(teacher)
    if bundle is not None:
        # The description holds the fingerprints of all other files.
        description = read_json(bundle.model_file.parent / DESCRIPTION).content
        digest.update(json.dumps(description, sort_keys=True).encode())
        return digest.hexdigest()

    for path in sorted(path for path in Path(teacher).glob("*") if path.suffix in _DECIDING):
        with path.open("rb") as file:
            digest.update(path.name.encode() + hashlib.file_digest(file, "sha256").digest())

    return digest.hexdigest()


def soft_labels(
    teachers: Sequence[str],
    examples: Sequence[Example],
    features: Features,
    labels: LabelSet,
    *,
    temperature: float,
    precision: Precision = "fp32",
    folder: Path,
    note: Callable[[str], None],
) -> SoftLabels:
    """
    Compute the teachers' probabilities of every decided word, or read those of an interrupted run in ``folder``.

    A word gets the answer of the teacher's piece in which it starts: a teacher may have another tokenizer. Of several
    teachers, the word gets the mean of those that have such a piece.

    :param teachers: hub ids or folders of token classifiers or bundles with the same labels; one that is listed
        twice counts twice
    :param temperature: divides their logits before the softmax
    :param precision: precision of their matrix products
    :raises NerdError: when one cannot be loaded or has other labels
    :raises OutputError: when the saved answers are not for these examples
    """
    counts = np.fromiter(map(len, features.places), dtype=np.int64, count=len(features.places))
    first = np.concatenate([[0], np.cumsum(counts)])
    path = folder / _FILE
    if not path.exists():
        models = [_Teacher(name, labels, temperature, precision) for name in teachers]
        who = "the teacher labels" if len(models) == 1 else f"{len(models)} teachers label"
        note(f"{who} {len(examples)} texts with {first[-1]} words; this is done once")
        # Renamed when complete, so that an interrupted run does not leave a table with zeros.
        pending = path.with_suffix(".writing")
        with writing(folder):
            table = np.lib.format.open_memmap(
                pending, mode="w+", dtype=np.float16, shape=(int(first[-1]), len(labels.names))
            )
            _fill(table, first, models, examples, features)
            table.flush()
            pending.rename(path)

    found = SoftLabels(np.load(path, mmap_mode="r"), first)
    if found.table.shape != (first[-1], len(labels.names)):
        raise OutputError(
            f"{path}: was written for other examples or by another version; start again with --overwrite",
            reason="other-examples",
            file=str(path),
        )

    return found


def _fill(
    table: npt.NDArray[np.float16],
    first: npt.NDArray[np.int64],
    models: Sequence[_Teacher],
    examples: Sequence[Example],
    features: Features,
) -> None:
    """Run the teachers over all examples in batches of similar length, the longest first."""
    texts = [example.text for example in examples]
    lengths = [max(of_each) for of_each in zip(*(model.lengths(texts) for model in models), strict=True)]
    # Similar lengths need little padding, and a batch that is too large for the memory fails at once.
    order = np.argsort([-length for length in lengths], kind="stable").tolist()
    begin = 0

    while begin < len(order):
        # All texts of a batch are padded to its first, which is the longest.
        rows = order[begin : begin + max(1, _BATCH_TOKENS // max(1, lengths[order[begin]]))]
        asked = [texts[i] for i in rows], [features.starts[i] for i in rows]
        for i, *answers in zip(rows, *(model.probabilities(*asked) for model in models), strict=True):
            table[first[i] : first[i + 1]] = _mean(np.stack(answers))
        begin += len(rows)


def _mean(answers: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """
    Return, for each word, the mean of the answers that it has.

    :param answers: zeros where a teacher has no answer. *Shape:* (teachers, words, labels)
    :return: *Shape:* (words, labels)
    """
    answered = answers.any(axis=-1).sum(axis=0)
    return np.asarray(answers.sum(axis=0) / np.maximum(answered, 1)[:, None], dtype=np.float32)


class _Teacher:
    """A token classifier whose probabilities are used, but which is not trained."""

    def __init__(self, name: str, labels: LabelSet, temperature: float, precision: Precision) -> None:
        import torch
        import transformers

        try:
            with as_checkpoint(name) as place:
                self._tokenizer = transformers.AutoTokenizer.from_pretrained(place)
                self._model = transformers.AutoModelForTokenClassification.from_pretrained(place).eval()
        except (OSError, ValueError) as err:
            raise NerdError(
                f"teacher {name!r} cannot be loaded: {first_line(err)} Give a folder with --teacher",
                reason="cannot-load",
                option="--teacher",
                file=name,
            ) from err

        if not self._tokenizer.is_fast or self._tokenizer.pad_token is None:
            raise NerdError(
                f"teacher {name!r} has no fast tokenizer (tokenizer.json) with a padding token, which it needs to find "
                "its words",
                reason="no-fast-tokenizer",
                option="--teacher",
                file=name,
            )

        known = {label: i for i, label in self._model.config.id2label.items()}
        missing = sorted(set(labels.names) ^ set(known))
        if missing:
            raise NerdError(
                f"teacher {name!r} and the data differ in the labels {', '.join(missing[:5])}; a teacher must be "
                "trained for the labels of the data",
                reason="other-labels",
                option="--teacher",
                file=name,
                found=", ".join(missing[:5]),
            )

        self._order = torch.tensor([known[label] for label in labels.names])
        # No warning: the text is encoded before padding on purpose.
        self._tokenizer.deprecation_warnings["Asking-to-pad-a-fast-tokenizer"] = True
        self._tokenizer.padding_side = "right"  # so that tokens stay where their offsets are

        self._temperature, self._precision = temperature, precision
        self._sees_case = sees_case(self._model.config.to_dict())
        self._longest = min(longest_input(self._model.config.to_dict(), Path(name)), self._tokenizer.model_max_length)

        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self._model.to(self._device)

    def lengths(self, texts: list[str]) -> list[int]:
        """Return the number of tokens of each text, after truncation."""
        return [len(ids) for ids in self._tokenizer(texts, truncation=True, max_length=self._longest)["input_ids"]]

    def probabilities(self, texts: list[str], starts: Sequence[Sequence[int]]) -> list[Any]:
        """
        Return the probabilities of the words of texts.

        :param starts: the character at which each word starts
        :return: one array per text. *Shape:* (words, labels)
        """
        import torch

        encoded = self._tokenizer(
            texts,
            truncation=True,
            max_length=self._longest,
            return_offsets_mapping=True,
            return_token_type_ids=False,
        )
        if self._sees_case:
            encoded["token_type_ids"] = token_types(texts, encoded, self._tokenizer)

        offsets = [np.array(row, dtype=np.int64).reshape(-1, 2) for row in encoded.pop("offset_mapping")]
        padded = self._tokenizer.pad(encoded, return_tensors="pt")
        accepted = {k: v.to(self._device) for k, v in padded.items()}
        mixed = torch.autocast(self._device, dtype=torch.bfloat16, enabled=self._precision == "bf16")

        with torch.inference_mode(), mixed:
            logits = self._model(**accepted).logits[..., self._order.to(self._device)].float()
            table = (logits / self._temperature).softmax(-1).cpu().numpy()

        return [_at(places, answers, wanted) for places, answers, wanted in zip(offsets, table, starts, strict=True)]


def _at(offsets: Any, answers: Any, starts: Sequence[int]) -> Any:
    """Return the answers of the pieces in which words start; zeros where there is no such piece."""
    filled = np.flatnonzero(offsets[:, 1] > offsets[:, 0])  # special tokens and padding have no characters
    wanted, begins = np.asarray(starts, dtype=np.int64), offsets[filled, 0]

    # The last piece that begins at or before the first letter of a word; the test below drops one that ends before it.
    last = np.maximum(np.searchsorted(begins, wanted, side="right") - 1, 0)
    pieces = filled[np.searchsorted(begins, begins[last])]  # the first, where one character has several pieces

    inside = (offsets[pieces, 0] <= wanted) & (wanted < offsets[pieces, 1])
    return np.where(inside[:, None], answers[pieces], np.float32(0))
