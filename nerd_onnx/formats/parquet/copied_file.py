"""A Parquet file whose column chunks are copied byte for byte into the output."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from nerd_onnx.errors import UnreadableFileError, first_line
from nerd_onnx.formats.parquet.footer import MAGIC, CannotCopyError, Footer, FooterContent, SeekableFile
from nerd_onnx.formats.parquet.key_values import stored_schema

_READ_BYTES = 4 << 20


class CopiedFile:
    """
    An open file that can be copied up to its footer.

    :param file: the file; its position is changed
    :param name: its name for messages
    :param added: names of the columns that are added
    :param content: what the file has as its footer
    :raises CannotCopyError: if the columns cannot be copied
    :ivar footer: the footer
    :ivar arrow_schema: the Arrow schema in the footer; None without one
    """

    def __init__(self, file: SeekableFile, name: str, added: tuple[str, ...], content: FooterContent) -> None:
        self._file = file
        self._name = name
        self.footer = Footer(content)
        # An encrypted file may have other magic bytes at its beginning alone.
        if b"".join(self.pieces(0, len(MAGIC))) != MAGIC:
            raise CannotCopyError("it is encrypted or damaged")
        self.arrow_schema = stored_schema(self.footer.metadata, len(self.footer.names))

        # Names that the file itself has twice do not count: only a new name may not be there already.
        if len({*added, *self.footer.names}) < len(added) + len(set(self.footer.names)):
            raise CannotCopyError("a column is replaced")

    def pieces(self, begin: int, end: int) -> Iterator[bytes]:
        """
        Yield the bytes of a range of the file.

        :raises UnreadableFileError: if they cannot be read
        """
        while begin < end:
            try:
                # Each time anew, because the reader of the texts moves in the same file between two pieces.
                self._file.seek(begin)
                piece = self._file.read(min(end - begin, _READ_BYTES))
            except (OSError, pa.ArrowException) as err:
                raise UnreadableFileError(
                    f"{self._name}: cannot be read: {first_line(err)}", reason="cannot-read", file=self._name
                ) from err

            if not piece:
                raise UnreadableFileError(
                    f"{self._name}: ends {end - begin} bytes too early; the file changed while it was read",
                    reason="file-cut",
                    file=self._name,
                )

            yield piece
            begin += len(piece)
