"""Files of a model as they were when their fingerprints were taken: libraries open them by name, some time later."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from nerd_onnx.errors import ModelError
from nerd_onnx.inference.description import sha256_of
from nerd_onnx.inference.model_files import unreadable
from nerd_onnx.storage.file_info import FileInfo


@dataclass(frozen=True)
class SeenFile:
    """
    A file whose fingerprint was taken.

    :param path: its path
    :param sha256: of its content, as hexadecimal digits
    :param info: facts about it from before its content was read
    """

    path: Path
    sha256: str
    info: FileInfo

    @classmethod
    def of(cls, path: Path) -> Self:
        """
        Read a file.

        :raises ModelError: when it cannot be read, or is not a regular file
        """
        # Taken first: a change during the read leaves a doubt, and the content is compared.
        return cls(path, info=_info(path), sha256=sha256_of(path))

    def check(self) -> None:
        """
        Check that the file has the same content still. It is read again only if its facts leave a doubt.

        :raises ModelError: when it has another one, or cannot be read
        """
        if _info(self.path) == self.info:
            return

        found = sha256_of(self.path)
        if found != self.sha256:
            raise ModelError(
                f"{self.path}: changed while the model was loaded (SHA-256 {found[:12]}..., expected "
                f"{self.sha256[:12]}...); run the command again",
                reason="changed-while-loaded",
                file=str(self.path),
                found=found,
                expected=self.sha256,
            )


def _info(path: Path) -> FileInfo:
    try:
        return FileInfo.of_path(os.fspath(path))
    except OSError as err:
        raise unreadable(path, err) from err
