"""Results of the steps of a run, stored on disk: an interrupted run can be resumed without measuring again."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.paths import without_folders
from nerd_onnx.storage.atomic_file import write_whole


class Steps:
    """
    The steps of a run. Each result is stored in a file of its own.

    :param folder: folder for the files
    :param about: facts that determine the results; results of other facts are not reused
    :param resume: reuse the results of an earlier run with the same facts
    :param tell: called with one line per step
    :ivar failed: by step that failed, the error
    :ivar seconds: by step, its duration
    """

    def __init__(self, folder: Path, about: Mapping[str, Any], *, resume: bool, tell: Callable[[str], None]) -> None:
        key = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:12]
        self._folder = folder / key
        self._folder.mkdir(parents=True, exist_ok=True)

        self._tell = tell
        self.failed: dict[str, str] = {}
        self.seconds: dict[str, float] = {}

        if not resume:
            for path in self._folder.glob("*.json"):
                path.unlink()

    def run(self, name: str, action: Callable[[], Any]) -> Any:
        """
        Run a step, or read its stored result.

        :return: its result as plain data; None if it failed. The error is then in ``failed``
        """
        file = self._folder / f"{name}.json"
        if file.is_file():
            self._tell(f"{name}: result of the earlier run")
            stored = json.loads(file.read_text("utf-8"))
            self.seconds[name] = stored["seconds"]
            return stored["result"]

        begin = time.perf_counter()

        try:
            result = action()
        except Exception as err:  # noqa: BLE001 - the other steps still run
            self.failed[name] = without_folders(f"{type(err).__name__}: {err}")
            self._tell(f"{name} failed: {self.failed[name]}")
            return None

        self.seconds[name] = time.perf_counter() - begin
        # Atomic: an interruption leaves no damaged result for the resumed run.
        content = json.dumps({"seconds": self.seconds[name], "result": result})
        write_whole(str(file), content.encode(), overwrite=True)

        # A resumed run reads JSON, so both give the same types: keys are strings and tuples are lists.
        return json.loads(json.dumps(result))
