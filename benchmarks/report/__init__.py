"""Write a report as JSON, as Markdown, and as one self-contained HTML page."""

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
    Write the three files of a report.

    :param folder: folder for the files, made if it is missing
    :param name: name of the files without suffix
    :return: the Markdown
    """
    folder.mkdir(parents=True, exist_ok=True)
    text = as_markdown(report)
    (folder / f"{name}.json").write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", "utf-8")
    (folder / f"{name}.md").write_text(text, "utf-8")
    (folder / f"{name}.html").write_text(as_page(report), "utf-8")
    return text


def as_markdown(report: Mapping[str, Any]) -> str:
    """Return a report as Markdown, without the parts that were not measured."""
    return markdown(title(report), sections(report))


def as_page(report: Mapping[str, Any]) -> str:
    """Return a report as an HTML page, without the parts that were not measured."""
    return page(title(report), sections(report))
