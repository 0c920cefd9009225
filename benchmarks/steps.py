"""Results kept on disk as they come: what ends early can go on, and nothing that was measured is lost."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.paths import without_folders


class Steps:
    """
    The steps of a run, each a file.

    :param folder: receives them
    :param about: what decides the results: with other facts, kept results are not taken up
    :param resume: take up what an earlier run of the same facts has measured
    :param tell: receives a line a step
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
        Do a step, or read what it gave before.

        :return: its result as plain data; None where it failed, which is noted under ``failed``
        """
        file = self._folder / f"{name}.json"
        if file.is_file():
            self._tell(f"{name}: taken from the run before")
            kept = json.loads(file.read_text("utf-8"))
            self.seconds[name] = kept["seconds"]
            return kept["result"]

        begin = time.perf_counter()

        try:
            result = action()
        except Exception as err:  # noqa: BLE001 - the other steps go on
            self.failed[name] = without_folders(f"{type(err).__name__}: {err}")
            self._tell(f"{name} failed: {self.failed[name]}")
            return None

        self.seconds[name] = time.perf_counter() - begin
        beside = file.with_suffix(".new")
        beside.write_text(json.dumps({"seconds": self.seconds[name], "result": result}), "utf-8")
        beside.replace(file)
        return json.loads(json.dumps(result))
