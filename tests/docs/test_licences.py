"""What ships has a licence that somebody looked at, and the page says so."""

from __future__ import annotations

from importlib.metadata import PathDistribution
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.support.scripts import DOCS, docs_script

licences = docs_script("make_licences")


def package(folder: Path, *lines: str) -> PathDistribution:
    """Return an installed package with these lines of metadata."""
    info = folder / "thing-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("\n".join(["Metadata-Version: 2.4", "Name: thing", "Version: 1.0", *lines, ""]))
    return PathDistribution(info)


def test_the_page_is_what_is_installed() -> None:
    assert (DOCS / "licences.md").read_text("utf-8") == licences.page(), "python docs/make_licences.py"


def test_the_dependencies_are_those_that_the_program_imports() -> None:
    found = licences.dependencies()
    assert {"click", "numpy", "onnxruntime", "pyarrow", "tokenizers", "tqdm", "zstandard"} <= set(found)
    assert "torch" not in found


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["License-Expression: MIT AND BSD-3-Clause", "License: other"], "MIT AND BSD-3-Clause"),
        (["License: 3-Clause BSD License"], "BSD-3-Clause"),
        (["Classifier: License :: OSI Approved :: Apache Software License"], "Apache-2.0"),
    ],
)
def test_a_licence_has_its_spdx_name(tmp_path: Path, lines: list[str], expected: str) -> None:
    assert licences.licence_of(package(tmp_path, *lines)) == expected


@pytest.mark.parametrize(
    "lines", [[], ["License: AGPL-3.0"], ["License-Expression: MIT OR SSPL-1.0"], ["License: see file"]]
)
def test_an_unknown_licence_is_refused(tmp_path: Path, lines: list[str]) -> None:
    with pytest.raises(licences.LicenceError, match=r"thing 1\.0"):
        licences.licence_of(package(tmp_path, *lines))


def test_a_bill_of_materials_gets_the_content_of_the_wheel() -> None:
    bill = {
        "metadata": {"component": {"name": "nerd-onnx"}},
        "components": [{"name": "protobuf", "version": "7"}],
    }
    done = licences.add_content(bill)

    assert done["components"] == [{"name": "protobuf", "version": "7", "licenses": [{"expression": "BSD-3-Clause"}]}]
    parts = {part["name"]: part for part in done["metadata"]["component"]["components"]}
    model = parts["nerd-onnx default model"]
    assert model["licenses"] == [{"license": {"id": "CC-BY-SA-4.0"}}]
    assert [ancestor["name"] for ancestor in model["pedigree"]["ancestors"]] == ["all-MiniLM-L6-v2"]
    assert "Few-NERD" in [data["name"] for data in model["modelCard"]["modelParameters"]["datasets"]]
    assert all(part["licenses"] for part in parts.values())


def test_the_notice_names_every_part_with_a_licence_of_its_own() -> None:
    notice = (ROOT / "NOTICE").read_text("utf-8")
    for number in licences.sample_licences().values():
        assert f"{number} texts" in notice
    for weights in ("all-MiniLM-L6-v2", "all-mpnet-base-v2"):
        assert weights in notice
