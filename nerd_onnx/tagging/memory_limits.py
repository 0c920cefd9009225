"""The memory limit of a run, and the sizes of batches, lines and row groups that keep it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from nerd_onnx.errors import OptionError, OutputError
from nerd_onnx.formats.interfaces import GROUP_BYTES
from nerd_onnx.machine.memory import resident_bytes
from nerd_onnx.storage.input_stream import MAX_LINE_BYTES

BATCH_BYTES = 1 << 19
_PROGRAM_BYTES = 150_000_000
_MODEL_COPIES = 3  # the file while it is read, the weights, and the kernels' own layout of them
_BYTES_PER_TEXT_BYTE = 200  # tokens, words, offsets and spans of two batches at a time
# The line, its text, the parsed row and the row written, with characters of four bytes.
_BYTES_PER_LINE_BYTE = 8
_MIN_BATCH_BYTES = 1 << 14
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "ki": 1 << 10, "mi": 1 << 20, "gi": 1 << 30}


@dataclass(frozen=True)
class Limits:
    """
    Maximum sizes in bytes.

    :param memory: resident memory of the process; None for no limit
    :param batch: text of a batch, approximately
    :param line: one line of JSON Lines
    :param group: a Parquet row group, approximately
    """

    memory: int | None = None
    batch: int = BATCH_BYTES
    line: int = MAX_LINE_BYTES
    group: int = GROUP_BYTES

    @classmethod
    def of(cls, memory: int | None, model_bytes: int) -> Limits:
        """
        Return the sizes that keep a run within its memory.

        They depend on the arguments only, not on the machine: a run can be resumed elsewhere to the same bytes.

        :param memory: resident memory in bytes; None for the usual sizes
        :param model_bytes: size of the model's file
        :raises OptionError: if the model alone does not fit
        """
        if memory is None:
            return cls()

        spare = memory - _PROGRAM_BYTES - _MODEL_COPIES * model_bytes
        if spare < _MIN_BATCH_BYTES * _BYTES_PER_TEXT_BYTE:
            minimum = memory - spare + _MIN_BATCH_BYTES * _BYTES_PER_TEXT_BYTE
            raise OptionError(
                f"--max-memory is too small for this model; give at least {minimum // 10**6 + 1}MB",
                reason="memory-too-small",
                option="--max-memory",
                minimum=minimum,
            )

        return cls(
            memory,
            batch=min(BATCH_BYTES, spare // _BYTES_PER_TEXT_BYTE),
            line=min(MAX_LINE_BYTES, spare // _BYTES_PER_LINE_BYTE),
            group=min(GROUP_BYTES, spare // 4),
        )

    def check(self, output: str) -> None:
        """
        Check the resident memory of the process.

        An error with a message is better than a process that the system kills.

        :param output: the output, for the message
        :raises OutputError: if it is more than :attr:`memory`
        """
        if self.memory is not None and (used := resident_bytes()) > self.memory:
            raise OutputError(
                f"{output}: the process uses {used // 10**6} MB of memory, more than --max-memory "
                f"{self.memory // 10**6}MB; a row or value is very large. Allow more memory, or split that row",
                reason="over-memory",
                file=output,
                option="--max-memory",
                found=used,
                maximum=self.memory,
            )


def size_of(text: str) -> int:
    """
    Parse a size such as ``500MB``, ``2G``, ``1.5GiB`` or ``800000000``.

    :return: number of bytes
    :raises ValueError: if the text is not a size
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmg]i?)?b?\s*", text.lower())
    if found is None:
        raise ValueError(f"{text!r} is no size; expected something like 500MB or 2GiB")
    return int(float(found[1]) * _UNITS[found[2] or ""])
