"""Send the model to workers: pack it once, send it with the job, and unpack it once per machine."""

from __future__ import annotations

import hashlib
import io
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from platform import node

from nerd_onnx.errors import ModelError
from nerd_onnx.inference.bundle import Bundle
from nerd_onnx.inference.description import DESCRIPTION
from nerd_onnx.machine import system

_PLAIN_FILES = ("config.json", "tokenizer.json", "tokenizer_config.json")


@dataclass(frozen=True)
class WorkerModel:
    """
    Where a worker finds the model.

    :param place: a folder or hub id that every worker can read; None for the default model
    :param digest: SHA-256 of the archive that is sent instead; None if nothing is sent
    :param files: name and size in bytes of each file in the archive
    :param fingerprint: that of the model where the run was started; empty for any model
    """

    place: str | None = None
    digest: str | None = None
    files: tuple[tuple[str, int], ...] = ()
    fingerprint: str = ""

    def check(self, bundle: Bundle) -> None:
        """
        Check that a model that was loaded here is the one of the run: folders and versions may differ by machine.

        :raises ModelError: when it is another one
        """
        if self.fingerprint not in ("", bundle.fingerprint):
            raise ModelError(
                f"{bundle.name}: is another model on {node()} than where the run was started; give all machines the "
                "same files and the same version of nerd-onnx, or send the model with --ship-model",
                reason="other-model-on-worker",
                file=bundle.name,
                host=node(),
                found=bundle.fingerprint,
                expected=self.fingerprint,
            )

    def folder(self, fetch: Callable[[], bytes]) -> str | None:
        """
        Return the model folder on this machine, and unpack the archive if the folder is missing or incomplete.

        :param fetch: returns the archive that was sent
        :return: the folder, or ``place`` if no archive was sent
        :raises ModelError: when the folder for models on this machine belongs to another user
        """
        if self.digest is None:
            return self.place

        home = _own_folder()
        folder = home / self.digest

        # Workers of one machine start at the same time: the first one unpacks, the others wait. Without locks, each
        # unpacks the same files.
        with (home / "lock").open("w") as lock:
            system.lock(lock.fileno(), wait=True)
            if not self._is_complete(folder):
                with tarfile.open(fileobj=io.BytesIO(fetch())) as archive:
                    # The filter refuses paths outside of the folder: the archive came over the network.
                    archive.extractall(folder, filter="data")

        return str(folder)

    def _is_complete(self, folder: Path) -> bool:
        paths = ((folder / name, size) for name, size in self.files)
        return all(path.is_file() and path.stat().st_size == size for path, size in paths)


def for_workers(bundle: Bundle, *, ship: bool, uri: str | None = None) -> tuple[WorkerModel, bytes]:
    """
    Return where workers find a model, and the archive to send. The same files give the same archive.

    :param uri: URI of the folder if it is in remote storage
    :param ship: whether the model's files are sent; the default model never is, because workers have it already
    :return: the place, and the archive; the archive is empty if nothing is sent
    """
    if bundle.folder is None:
        # The default model is in the package, which every worker has installed.
        return WorkerModel(fingerprint=bundle.fingerprint), b""
    if not ship:
        is_folder = Path(bundle.name).expanduser().exists()
        place = uri or (str(bundle.folder) if is_folder else bundle.name)
        return WorkerModel(place, fingerprint=bundle.fingerprint), b""

    buffer, files = io.BytesIO(), []
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for path in _needed(bundle):
            # Without times and owners of the files: the digest must depend on their content alone.
            entry = tarfile.TarInfo(path.relative_to(bundle.folder).as_posix())
            entry.size = path.stat().st_size
            files.append((entry.name, entry.size))

            with path.open("rb") as file:
                archive.addfile(entry, file)

    content = buffer.getvalue()
    digest = hashlib.sha256(content).hexdigest()
    return WorkerModel(digest=digest, files=tuple(files), fingerprint=bundle.fingerprint), content


def _needed(bundle: Bundle) -> Iterator[Path]:
    """Yield the files that :meth:`Bundle.load` reads."""
    folder = bundle.folder or Path()
    if bundle.description is not None:
        yield from (folder / name for name in sorted({DESCRIPTION, *bundle.description.files}))
        return

    yield from (folder / name for name in _PLAIN_FILES if (folder / name).is_file())
    yield from (bundle.model_file, *bundle.weight_files)


def _own_folder() -> Path:
    """Return the folder for models that were sent to this machine, created so that only this user can write to it."""
    user = system.user()
    home = Path(tempfile.gettempdir()) / ("nerd-onnx" if user is None else f"nerd-onnx-{user}")
    home.mkdir(mode=0o700, exist_ok=True)

    # Temporary folders are shared: another user could have made this one and put a model of theirs into it.
    found = home.lstat()
    if (user is not None and found.st_uid != user) or not home.is_dir() or home.is_symlink():
        raise ModelError(
            f"{home}: belongs to another user, or is not a folder; remove it, or set TMPDIR",
            reason="foreign-folder",
            file=str(home),
        )
    return home
