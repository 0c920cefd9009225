"""What the writers of all file formats share: how an output is finished, committed and discarded."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import TracebackType
from typing import Self

import pyarrow as pa

from nerd_onnx.formats.interfaces import RowBatch, Written
from nerd_onnx.storage.atomic_file import Target


class AtomicWriter(ABC):
    """
    A writer whose output gets its name when it is complete, and leaves no file after an exception.

    The constructor of a subclass sets ``_target`` to what :func:`~nerd_onnx.storage.atomic_file.open_target` returns.
    """

    _target: Target
    _written: Written | None = None

    @abstractmethod
    def write(self, rows: RowBatch, entities: pa.Array, reasons: pa.Array | None = None) -> None:
        """Write rows with their entities; see :class:`~nerd_onnx.formats.interfaces.Writer`."""

    @abstractmethod
    def _complete(self) -> int:
        """
        Write what follows the last rows, and return the number of rows in the output.

        :raises OutputError: if the output cannot be written
        """

    def _release(self) -> None:  # noqa: B027 - a hook: most writers hold nothing besides the target
        """Let go of what writes to the target, in any state and without an exception."""

    def unfit(self, rows: RowBatch) -> Mapping[int, str]:  # noqa: ARG002 - of its own for a format that has such rows
        """Return no rows: every row can be written."""
        return {}

    def finish(self) -> Written:
        """
        Write everything to disk (fsync), but do not give the output its final name yet.

        :raises OutputError: if the output cannot be written
        """
        # Once: a run calls it before it records the output, and the end of the context calls it again.
        if self._written is None:
            self._written = Written(self._complete(), self._target.flush())

        return self._written

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self.finish()
                self._target.commit()
        finally:
            # In this order: what is released may still write to the target.
            self._release()
            self._target.discard()
