"""The model on its way to the workers: packed once, sent along with the job, unpacked once a machine."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from nerd_onnx.errors import ModelError
from nerd_onnx.inference.bundle import Bundle
from nerd_onnx.inference.description import DESCRIPTION

_PLAIN_FILES = ("config.json", "tokenizer.json", "tokenizer_config.json")


@dataclass(frozen=True)
class WorkerModel:
    """
    Where a worker finds the model.

    :param place: a folder or hub id that every worker can read; None for the model inside
    :param digest: SHA-256 of what is sent along instead; None where nothing is
    :param files: what is in it: names and bytes
    """

    place: str | None = None
    digest: str | None = None
    files: tuple[tuple[str, int], ...] = ()

    def folder(self, fetch: Callable[[], bytes]) -> str | None:
        """
        Give the folder on this machine, unpacked when it is not there yet, whole.

        :param fetch: gives what was sent along
        :raises ModelError: when its place on this machine belongs to somebody else
        """
        if self.digest is None:
            return self.place
        home = _own_folder()
        folder = home / self.digest
        with (home / "lock").open("w") as lock:
            _wait_for(lock.fileno())
            if not self._is_whole(folder):
                with tarfile.open(fileobj=io.BytesIO(fetch())) as archive:
                    archive.extractall(folder, filter="data")
        return str(folder)

    def _is_whole(self, folder: Path) -> bool:
        paths = ((folder / name, size) for name, size in self.files)
        return all(path.is_file() and path.stat().st_size == size for path, size in paths)


def for_workers(bundle: Bundle, *, ship: bool, uri: str | None = None) -> tuple[WorkerModel, bytes]:
    """
    Say where workers find a model, and pack what is to be sent along; the same files give the same bytes.

    :param uri: of its folder, where that is in a store
    :param ship: send its folder along, hub ids too; the model inside is there already
    :return: where, and the archive; empty where nothing is sent
    """
    if bundle.folder is None:
        return WorkerModel(), b""
    if not ship:
        is_folder = Path(bundle.name).expanduser().exists()
        return WorkerModel(uri or (str(bundle.folder) if is_folder else bundle.name)), b""
    buffer, files = io.BytesIO(), []
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for path in _needed(bundle):
            entry = tarfile.TarInfo(path.relative_to(bundle.folder).as_posix())
            entry.size = path.stat().st_size
            files.append((entry.name, entry.size))
            with path.open("rb") as file:
                archive.addfile(entry, file)
    content = buffer.getvalue()
    return WorkerModel(digest=hashlib.sha256(content).hexdigest(), files=tuple(files)), content


def _needed(bundle: Bundle) -> Iterator[Path]:
    """List what :meth:`Bundle.load` reads."""
    folder = bundle.folder or Path()
    if bundle.description is not None:
        yield from (folder / name for name in sorted({DESCRIPTION, *bundle.description.files}))
        return
    yield from (folder / name for name in _PLAIN_FILES if (folder / name).is_file())
    graph = bundle.model_file
    yield from (graph, *sorted(path for path in graph.parent.glob(f"{graph.name}?*") if path.is_file()))


def _own_folder() -> Path:
    """Make the folder of models that were sent to this machine: nobody else may put anything there."""
    home = Path(tempfile.gettempdir()) / f"nerd-onnx-{os.geteuid()}"
    home.mkdir(mode=0o700, exist_ok=True)
    found = home.lstat()
    if found.st_uid != os.geteuid() or not home.is_dir() or home.is_symlink():
        raise ModelError(
            f"{home}: belongs to another user, or is not a folder; remove it, or set TMPDIR",
            reason="foreign-folder",
            file=str(home),
        )
    return home


def _wait_for(descriptor: int) -> None:
    """Wait for a lock; the system lets go of it when the file is closed or the process dies."""
    import fcntl

    fcntl.flock(descriptor, fcntl.LOCK_EX)
