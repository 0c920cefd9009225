"""What a stranger reads before the installation agrees with the program."""

from __future__ import annotations

import json
import re
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


WORKFLOWS = sorted((ROOT / ".github").glob("workflows/*.yml"))
ACTION = yaml.safe_load((ROOT / ".github" / "actions" / "gate" / "action.yml").read_text("utf-8"))
GATE = next(step for step in ACTION["runs"]["steps"] if step.get("id") == "gate")


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_the_steps_of_a_workflow_call_targets_that_exist(workflow: Path) -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    jobs = yaml.safe_load(workflow.read_text("utf-8"))["jobs"].values()
    steps = [step["run"] for job in jobs for step in job["steps"] if "run" in step]
    called = [words[1] for words in (step.split() for step in steps) if words[0] == "make"]
    assert called
    assert set(called) <= targets


def test_the_action_gives_options_that_the_commands_have() -> None:
    commands = json.loads((ROOT / "docs" / "interface.json").read_text("utf-8"))["interface"]["commands"]
    calls = re.findall(r"^(nerd-\w+) (.*)$", GATE["run"].replace("\\\n", " "), re.MULTILINE)
    assert [name for name, _ in calls] == ["nerd-export", "nerd-eval"]
    for name, words in calls:
        known = {option for parameter in commands[name]["parameters"] for option in parameter["names"]}
        assert set(re.findall(r"--[\w-]+", words)) <= known


def test_no_input_of_the_action_becomes_a_part_of_its_script() -> None:
    scripts = [step["run"] for step in ACTION["runs"]["steps"] if "run" in step]
    assert not [script for script in scripts if "${{" in script]
    assert {f"inputs.{name}" for name in ACTION["inputs"]} == set(
        re.findall(r"inputs\.[\w-]+", json.dumps(ACTION["runs"]))
    )


def test_the_image_runs_without_root_and_without_torch() -> None:
    lines = (ROOT / "Dockerfile").read_text("utf-8").splitlines()
    last = lines[max(number for number, line in enumerate(lines) if line.startswith("FROM ")) :]
    assert [line for line in last if line.startswith("USER ")] == ["USER 1000:1000"]
    assert "[export]" not in "\n".join(lines)


def test_the_kubernetes_job_is_one_for_this_image_and_program() -> None:
    pod = yaml.safe_load((ROOT / "docs" / "kubernetes-job.yaml").read_text("utf-8"))["spec"]["template"]["spec"]
    user = pod["securityContext"]
    assert f"USER {user['runAsUser']}:{user['runAsGroup']}\n" in (ROOT / "Dockerfile").read_text("utf-8")

    (container,) = pod["containers"]
    assert container["image"] == f"nerd-onnx:{nerd_onnx.__version__}"
    command = json.loads((ROOT / "docs" / "interface.json").read_text("utf-8"))["interface"]["commands"]["nerd-tag"]
    known = {option for parameter in command["parameters"] for option in parameter["names"]}
    given = {word for word in container["args"] if word.startswith("-")}
    assert "--resume" in given
    assert given <= known
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}


def test_what_ci_runs_are_targets_of_the_makefile() -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    script = (ROOT / ".ci" / "run").read_text("utf-8")
    called = [words.split() for words in re.findall(r"^\s*target ([^|\n]+)", script, re.MULTILINE)]
    names = {word for words in called for word in words if "=" not in word}
    assert {"lint", "types", "lint-ci", "docs", "packages", "bench"} <= names <= targets


def test_every_linter_of_ci_is_installed_by_its_requirements() -> None:
    packages = (ROOT / ".ci" / "requirements-lint.txt").read_text("utf-8")
    programs = re.findall(r"^check ([\w-]+)", (ROOT / ".ci" / "lint").read_text("utf-8"), re.MULTILINE)
    assert programs
    assert [program for program in programs if not re.search(rf"^{program}(-\w+)?==", packages, re.MULTILINE)] == []
