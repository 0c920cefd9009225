"""The last check of all outputs of a run, before it removes its work folder and ends with exit code 0."""

from __future__ import annotations

from nerd_onnx.durability.recorded_files import FileState, state_of
from nerd_onnx.errors import OutputError
from nerd_onnx.storage.file_info import FileInfo
from nerd_onnx.storage.file_record import FileRecord
from nerd_onnx.storage.location import Location
from nerd_onnx.storage.output_place import output_errors, output_name


class FinalCheck:
    """
    Collects what a run knows of its outputs, and compares all of them at its end.

    :param verify: compare the content too
    """

    def __init__(self, *, verify: bool) -> None:
        self._verify = verify
        self._written: list[tuple[Location, FileRecord, str | None]] = []
        self._earlier: list[tuple[Location, FileInfo]] = []

    def add(self, path: Location, record: FileRecord | None, version: str | None) -> None:
        """Add an output of this run, see :func:`state_of`; a pipe or device, which has no record, is left out."""
        if record is not None:
            self._written.append((path, record, version))

    def add_earlier(self, path: Location, found: FileInfo) -> None:
        """Add an output that was finished before this run. ``found`` is what it was when this run accepted it."""
        self._earlier.append((path, found))

    def check(self) -> None:
        """
        Look at all outputs.

        :raises OutputError: if one is not what it was; the message names it
        """
        for path, record, version in self._written:
            if (state := state_of(path, record, version, verify=self._verify)) != "intact":
                raise output_lost(path, state)

        for path, before in self._earlier:
            with output_errors(path):
                found = path.info_if_any()
            if found is None:
                raise output_lost(path, "missing")
            if (found.size, found.modified_ns, found.inode) != (before.size, before.modified_ns, before.inode):
                raise output_lost(path, "changed")


def output_lost(path: Location, state: FileState) -> OutputError:
    """Return the error for an output that is no longer what the run wrote."""
    name = output_name(path)
    if state == "changed":
        return OutputError(
            f"{name}: is not what this run wrote there; move it away and write it again with --resume, or replace it "
            "with --resume --overwrite",
            reason="output-changed",
            file=name,
        )

    what = "was removed" if state == "missing" else "was cut"
    return OutputError(
        f"{name}: {what} after this run wrote it; write it again with --resume", reason="output-lost", file=name
    )
