"""What a stranger reads before the installation agrees with the program."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
import yaml

import nerd_onnx
from nerd_onnx.inference.bundle import DEFAULT_FOLDER
from tests.conftest import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
TEMPLATES = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("[!c]*.yml"))


def test_the_citation_names_this_version() -> None:
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))["version"] == nerd_onnx.__version__


def test_the_licences_of_program_and_default_model_are_named() -> None:
    model = json.loads((DEFAULT_FOLDER / "nerd.json").read_text("utf-8"))["lineage"]["licence"]
    named = PROJECT["license"].lower().split(" and ")
    assert named == ["apache-2.0", model]
    notice = (ROOT / "NOTICE").read_text("utf-8").lower()
    assert [licence for licence in named if licence not in notice] == []


def test_the_licence_files_exist_and_are_no_links() -> None:
    files = [ROOT / name for name in PROJECT["license-files"]]
    assert all(file.is_file() and not file.is_symlink() for file in files)


def test_the_classifiers_name_no_version_below_the_minimum() -> None:
    prefix = "Programming Language :: Python :: 3."
    named = [int(found.removeprefix(prefix)) for found in PROJECT["classifiers"] if found.startswith(prefix)]
    assert PROJECT["requires-python"] == f">=3.{min(named)}"
    assert named == list(range(min(named), max(named) + 1))


def test_the_addresses_of_the_project_are_in_one_place() -> None:
    pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), ROOT / "mkdocs.yml", ROOT / "CITATION.cff", ROOT / "NOTICE"]
    assert all("OWNER" in address for address in PROJECT["urls"].values())
    assert [page.name for page in pages if "github.com/OWNER" in page.read_text("utf-8")] == []


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.name)
def test_an_issue_template_has_unique_fields(template: Path) -> None:
    fields = [field["id"] for field in yaml.safe_load(template.read_text("utf-8"))["body"]]
    assert fields
    assert len(set(fields)) == len(fields)


def test_a_bug_report_asks_for_the_version_and_a_reproducer() -> None:
    form = yaml.safe_load((ROOT / ".github/ISSUE_TEMPLATE/bug.yml").read_text("utf-8"))
    required = {field["id"] for field in form["body"] if field.get("validations", {}).get("required")}
    assert {"version", "reproducer"} <= required
