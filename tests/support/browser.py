"""A page in a real browser, for the tests of pages."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path
from typing import Any

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def look(page: str, folder: Path, width: int, *options: str) -> tuple[str, list[str]]:
    """Open a page in a window of some width. :return: the document as its scripts left it, and what the console said"""
    (folder / "page.html").write_text(page, "utf-8")
    command = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--dump-dom"]

    done = subprocess.run(
        [
            *command, *options, f"--window-size={width},900", f"--user-data-dir={folder / 'profile'}",
            # Virtual time passes at once: scripts that wait run to their end.
            "--virtual-time-budget=4000", (folder / "page.html").as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )  # fmt: skip
    assert done.stdout, done.stderr[-2000:]
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def probed(page: str, probe: str, folder: Path, width: int, *options: str) -> tuple[dict[str, Any], list[str]]:
    """
    Open a page with a script that leaves what it finds as ``data-found`` of the body.

    :return: what it found, and what the console said
    """
    document, console = look(page.replace("</body>", f"<script>{probe}</script></body>"), folder, width, *options)
    found = re.search(r'data-found="([^"]*)"', document)
    assert found, document[-2000:]

    facts: dict[str, Any] = json.loads(unescape(found[1]))
    return facts, console
