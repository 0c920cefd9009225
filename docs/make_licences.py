"""
Write licences.md, what ships and under which licences: ``python docs/make_licences.py``.

``python docs/make_licences.py FILE`` adds the content of the wheel to FILE, a bill of materials that cyclonedx-py wrote
for the environment in which the wheel is installed (``make sbom``).

Dependencies are those of the installed runtime without extras. A licence that has no SPDX name, or that is not in
``ALLOWED``, is an error.
"""

from __future__ import annotations

import json
import re
import sys
import tomllib
from collections import Counter
from dataclasses import dataclass
from hashlib import sha256
from importlib.metadata import Distribution, distribution
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
PAGE = Path(__file__).with_name("licences.md")
CARD = ROOT / "nerd_onnx" / "default_model" / "README.md"
SAMPLE = ROOT / "nerd_onnx" / "sample.jsonl"
SAMPLE_LICENCES = ("CC BY-SA 4.0", "public domain")
MODEL = ROOT / "nerd_onnx" / "default_model" / "model.onnx"

# Names that packages use for licences, and their SPDX names.
SPDX = {
    "3-clause bsd license": "BSD-3-Clause",
    "apache": "Apache-2.0",
    "apache 2.0": "Apache-2.0",
    "apache software license": "Apache-2.0",
    "apache license 2.0": "Apache-2.0",
    "bsd license": "BSD-3-Clause",
    "mit license": "MIT",
    "mozilla public license 2.0 (mpl 2.0)": "MPL-2.0",
}
# A dependency with another licence is looked at by a person first.
ALLOWED = {
    *("0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "CC0-1.0", "MIT", "MPL-2.0", "PSF-2.0", "Zlib"),
}

_HEAD = """# Licences of what ships

This page lists the licences of the package's content, of the training data and of the dependencies.
`python docs/make_licences.py` writes it, and the tests compare it with the installed packages. `make sbom` writes the
same facts, with versions and hashes, as a bill of materials in the format CycloneDX.

"""
_INSIDE = """## Inside the wheel

| part | from | licence |
|---|---|---|
| the program, `nerd_onnx` and `nerd_export`, with the native encoder's C++ sources | this project | {program} |
| the compiled native encoder | these sources. Wheels of `make wheels` also contain parts of LLVM's compiler-rt | {program}; Apache-2.0 WITH LLVM-exception |
| the default model, `nerd_onnx/default_model` | trained by this project from the next two rows and on the data below | {model} |
| its first weights, its tokenizer and vocabulary | all-MiniLM-L6-v2 (sentence-transformers) | Apache-2.0 |
| its teacher, which is not in the wheel | made from all-mpnet-base-v2 (sentence-transformers) | Apache-2.0 |
| the sample, `nerd_onnx/sample.jsonl` | {sample} texts; each row names its source | {licences} |

`LICENSE` and `NOTICE` are in each wheel and sdist.

## Data that the default model was trained on

The wheel contains none of these texts, except for the sentences of Few-NERD in the sample.

"""  # noqa: E501 - rows of a table
_DEPENDENCIES = """
## Dependencies

`pip install nerd-onnx` installs these packages; the list is for the versions of `constraints.txt` on Linux. They are
not in the wheel of nerd-onnx. Some of their wheels contain more libraries, such as OpenBLAS in numpy and C++ libraries
in pyarrow; the licences of these libraries are in those wheels. Extras install more packages.

| package | licence |
|---|---|
"""


class LicenceError(Exception):
    """A licence has no SPDX name, or is not allowed."""


@dataclass(frozen=True)
class DataSet:
    """
    A row of the table "Sources" of the default model's card.

    :param name: the set
    :param text: kind of its texts
    :param licence: in the words of the card
    :param source: authors, year, and where it is
    """

    name: str
    text: str
    licence: str
    source: str


def page() -> str:
    """Return licences.md. Raises LicenceError."""
    program, model = own_licences()

    sample = sample_licences()
    licences = "; ".join(f"{name}: {number} texts" for name, number in sample.items())
    sets = [f"| {found.name} | {found.licence} | {found.source} |\n" for found in data_sets()]
    rows = [f"| {name} | {licence_of(found)} |\n" for name, found in dependencies().items()]

    return "".join(
        [
            _HEAD,
            _INSIDE.format(program=program, model=model, sample=sum(sample.values()), licences=licences),
            "| set | licence | source |\n|---|---|---|\n",
            *sets,
            _DEPENDENCIES,
            *rows,
        ]
    )


def own_licences() -> tuple[str, str]:
    """Return the licences of the program and of the default model, from ``pyproject.toml``."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    program, model = project["license"].split(" AND ")
    return program, model


def sample_licences() -> dict[str, int]:
    """Return the licences that the rows of the sample name, with the number of rows. Raises LicenceError."""
    found: Counter[str] = Counter()
    for number, line in enumerate(SAMPLE.read_text("utf-8").splitlines(), start=1):
        source = json.loads(line)["source"]

        licence = next((name for name in SAMPLE_LICENCES if name in source), None)
        if licence is None:
            message = f"{SAMPLE}, line {number}: the source {source!r} names no licence of SAMPLE_LICENCES"
            raise LicenceError(message)

        found[licence] += 1
    return dict(found.most_common())


def data_sets() -> list[DataSet]:
    """Return the sets that the card of the default model names. Raises LicenceError for a set without a licence."""
    card = CARD.read_text("utf-8")
    table = re.search(r"^\| set \| text \| licence \| source \|\n\|[-|]+\|\n((?:\|.*\n)+)", card, re.MULTILINE)
    if not table:
        message = f"{CARD} has no table with the columns set, text, licence and source"
        raise LicenceError(message)

    found = [DataSet(*(cell.strip() for cell in row.strip("|").split("|"))) for row in table[1].splitlines()]
    for one in found:
        if not one.licence:
            message = f"{CARD}: the set {one.name} has no licence"
            raise LicenceError(message)

    return found


def dependencies() -> dict[str, Distribution]:
    """Return the packages that the runtime needs without extras, directly or by others; by name, sorted."""
    found: dict[str, Distribution] = {}
    open_names = _required_by(distribution("nerd-onnx"))

    while open_names:
        name = open_names.pop()
        if name not in found:
            found[name] = distribution(name)
            open_names += _required_by(found[name])
    return dict(sorted(found.items()))


def _required_by(package: Distribution) -> list[str]:
    """Return the names of the packages that this one needs here."""
    needed = [Requirement(line) for line in package.requires or []]
    # A marker with an extra is false for this one, so that packages of extras are left out.
    return [canonicalize_name(one.name) for one in needed if one.marker is None or one.marker.evaluate({"extra": ""})]


def licence_of(package: Distribution) -> str:
    """
    Return the SPDX expression of a package's licence, of which every part is in ``ALLOWED``.

    It is that of the field License-Expression, else of License, else of the classifiers.
    """
    metadata = package.metadata
    classifiers = [found.split(" :: ")[-1] for found in metadata.get_all("Classifier", []) if " :: OSI" in found]
    stated = [metadata.get("License-Expression"), metadata.get("License"), " AND ".join(classifiers)]
    text = next((found.strip() for found in stated if found and found.strip()), "")

    expression = SPDX.get(text.lower(), text)
    unknown = set(re.split(r" (?:AND|OR) ", expression)) - ALLOWED
    if unknown:
        message = (
            f"{metadata['Name']} {package.version}: licence {text[:80]!r} is not known. "
            "Read it, then add it to SPDX or ALLOWED in docs/make_licences.py"
        )
        raise LicenceError(message)
    return expression


def components() -> list[dict[str, Any]]:
    """Return what is inside the wheel, as components of CycloneDX 1.5 and later."""
    program, model = own_licences()
    base = _component("machine-learning-model", "all-MiniLM-L6-v2", "Apache-2.0", publisher="sentence-transformers")
    teacher = _component("machine-learning-model", "all-mpnet-base-v2", "Apache-2.0", publisher="sentence-transformers")

    sets = [
        {"type": "dataset", "name": one.name, "description": f"{one.text}. Licence: {one.licence}. {one.source}"}
        for one in data_sets()
    ]

    return [
        _component(
            "machine-learning-model",
            "nerd-onnx default model",
            model,
            hashes=[{"alg": "SHA-256", "content": sha256(MODEL.read_bytes()).hexdigest()}],
            pedigree={"ancestors": [base], "notes": "Learned from the probabilities of a model made from the teacher."},
            modelCard={"modelParameters": {"task": "token-classification", "datasets": sets}},
        ),
        # In CycloneDX, what was needed to make the product and is not delivered.
        teacher | {"scope": "excluded"},
        {
            "type": "data",
            "bom-ref": "sample.jsonl",
            "name": "sample.jsonl",
            "licenses": [{"license": {"name": name}} for name in sample_licences()],
        },
        _component(
            "library", "nerd-onnx native encoder", program, description="C++ sources and the library made of them"
        ),
    ]


def _component(kind: str, name: str, licence: str, **more: Any) -> dict[str, Any]:
    """Return one component; its reference is its name."""
    return {"type": kind, "bom-ref": name, "name": name, "licenses": [{"license": {"id": licence}}], **more}


def add_content(bill: dict[str, Any]) -> dict[str, Any]:
    """
    Return the bill of an environment, with the content of the wheel as parts of its main component, nerd-onnx.

    The licences of packages are those of the page: cyclonedx-py copies what a package says, or finds none.
    Raises LicenceError.
    """
    metadata = bill["metadata"]

    packages = [found | _licence_for(found["name"]) for found in bill["components"]]
    main = metadata["component"] | {"components": components()}
    return bill | {"components": packages, "metadata": metadata | {"component": main}}


def _licence_for(name: str) -> dict[str, Any]:
    """Return the licence of an installed package, as CycloneDX has it."""
    return {"licenses": [{"expression": licence_of(distribution(name))}]}


if __name__ == "__main__":
    if len(sys.argv) > 1:
        file = Path(sys.argv[1])
        file.write_text(json.dumps(add_content(json.loads(file.read_text("utf-8"))), indent=2) + "\n", "utf-8")
    else:
        PAGE.write_text(page(), "utf-8")
