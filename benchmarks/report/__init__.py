"""The report: plain data to ``report.json``, and the same sections as Markdown and as one self-contained page."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.report.sections import sections, title
from nerd_export.reporting.html import page
from nerd_export.reporting.markdown import markdown

REPORT = "report"


def write_report(report: Mapping[str, Any], folder: Path, name: str = REPORT) -> str:
    """
    Write all three files.

    :param folder: is made where it is missing
    :param name: of the files, without the suffix
    :return: the Markdown
    """
    folder.mkdir(parents=True, exist_ok=True)
    text = as_markdown(report)
    (folder / f"{name}.json").write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", "utf-8")
    (folder / f"{name}.md").write_text(text, "utf-8")
    (folder / f"{name}.html").write_text(as_page(report), "utf-8")
    return text


def as_markdown(report: Mapping[str, Any]) -> str:
    """Render a report as Markdown; parts that were not measured are left out."""
    return markdown(title(report), sections(report))


def as_page(report: Mapping[str, Any]) -> str:
    """Render a report as a page; parts that were not measured are left out."""
    return page(title(report), sections(report))
