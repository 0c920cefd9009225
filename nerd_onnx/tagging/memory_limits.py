"""How much memory a run may take, and the sizes that keep it there."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from nerd_onnx.errors import OptionError, OutputError
from nerd_onnx.formats.base import GROUP_BYTES
from nerd_onnx.storage.input_stream import MAX_LINE_BYTES

BATCH_BYTES = 1 << 19
_PROGRAM_BYTES = 150_000_000
_MODEL_COPIES = 3  # the file while it is read, the weights, and what the kernels make of them
_BYTES_A_TEXT_BYTE = 200  # tokens, words, offsets and spans of the two batches under way
_BYTES_A_LINE_BYTE = 8  # the line, its text, the parsed row and the row written, with characters of four bytes
_LEAST_BATCH_BYTES = 1 << 14
_STATM = Path("/proc/self/statm")
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "ki": 1 << 10, "mi": 1 << 20, "gi": 1 << 30}


@dataclass(frozen=True)
class Limits:
    """
    Sizes in bytes.

    :param memory: most resident memory; None for any
    :param batch: about the most text in a batch
    :param line: longest line of JSON Lines
    :param group: about the largest Parquet row group
    """

    memory: int | None = None
    batch: int = BATCH_BYTES
    line: int = MAX_LINE_BYTES
    group: int = GROUP_BYTES

    @classmethod
    def of(cls, memory: int | None, model_bytes: int) -> Limits:
        """
        Choose sizes that keep a run in its memory; the same for the same model, whatever the machine.

        :raises OptionError: when the model alone does not fit
        """
        if memory is None:
            return cls()
        spare = memory - _PROGRAM_BYTES - _MODEL_COPIES * model_bytes
        if spare < _LEAST_BATCH_BYTES * _BYTES_A_TEXT_BYTE:
            least = memory - spare + _LEAST_BATCH_BYTES * _BYTES_A_TEXT_BYTE
            raise OptionError(
                f"--max-memory is too small for this model; give at least {least // 10**6 + 1}MB",
                reason="memory-too-small",
                option="--max-memory",
                minimum=least,
            )
        return cls(
            memory,
            batch=min(BATCH_BYTES, spare // _BYTES_A_TEXT_BYTE),
            line=min(MAX_LINE_BYTES, spare // _BYTES_A_LINE_BYTE),
            group=min(GROUP_BYTES, spare // 4),
        )

    def check(self, output: str) -> None:
        """
        Check what the process really takes.

        :param output: for the message
        :raises OutputError: when it is more than allowed: better one line than a process that the system kills
        """
        if self.memory is not None and (taken := resident_bytes()) > self.memory:
            raise OutputError(
                f"{output}: the process uses {taken // 10**6} MB of memory, more than --max-memory "
                f"{self.memory // 10**6}MB; a row or value is very large. Allow more memory, or split that row",
                reason="over-memory",
                file=output,
                option="--max-memory",
                found=taken,
                maximum=self.memory,
            )


def resident_bytes() -> int:
    """Give the memory this process takes now; 0 where the system does not tell."""
    try:
        return int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return 0


def size_of(text: str) -> int:
    """
    Read a size: ``500MB``, ``2G``, ``1.5GiB``, ``800000000``.

    :return: bytes
    :raises ValueError: when it is none
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmg]i?)?b?\s*", text.lower())
    if found is None:
        raise ValueError(f"{text!r} is no size; expected something like 500MB or 2GiB")
    return int(float(found[1]) * _UNITS[found[2] or ""])
