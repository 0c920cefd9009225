"""Errors as programs see them: each has a reason, survives the way to another process, and is listed in the docs."""

from __future__ import annotations

import copy
import pickle
import re
from pathlib import Path
from types import ModuleType

import pytest

from nerd_onnx.errors import BusyError, InputError, InterruptedRunError, NerdError, UnreadableFileError
from nerd_onnx.formats.line_reading import RowError
from tests.support.scripts import docs_script

ROOT = Path(__file__).resolve().parent.parent
_KEBAB = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_MEMBERS_OF_THE_JSON = {"status", "error", "reason", "message"}


@pytest.fixture(scope="module")
def make_errors() -> ModuleType:
    """Load the script that finds the raise sites and writes the page."""
    return docs_script("make_errors")


def test_every_raise_site_has_a_reason(make_errors: ModuleType) -> None:
    sites = make_errors.raise_sites()
    assert len(sites) > 200
    without = [f"{site.module}:{site.line}" for site in sites if not site.reasons and not site.passes_on]
    assert without == []
    for site in sites:
        assert all(map(_KEBAB.fullmatch, site.reasons)), site
        assert not _MEMBERS_OF_THE_JSON & set(site.fields), site


def test_the_page_of_errors_is_what_the_program_raises(make_errors: ModuleType) -> None:
    assert (ROOT / "docs" / "errors.md").read_text("utf-8") == make_errors.errors_page(), "python docs/make_errors.py"


@pytest.mark.parametrize(
    "err",
    [
        InputError("a: no such file", reason="missing-file", file="a"),
        BusyError("a: busy\nnow", reason="busy", file="a", process=3, share=0.5),
        RowError("a", 3, "not JSON", reason="not-json", character=7),
        UnreadableFileError.of(RowError("a", 3, "not JSON", reason="not-json", character=7)),
        InterruptedRunError(15, 100),
    ],
    ids=lambda err: type(err).__name__,
)
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_errors_travel_between_processes(err: NerdError, protocol: int) -> None:
    for back in (pickle.loads(pickle.dumps(err, protocol)), copy.copy(err)):  # noqa: S301 - our own bytes
        assert type(back) is type(err)
        assert str(back) == str(err)
        assert (back.reason, back.fields) == (err.reason, err.fields)
        assert (back.code, back.exit_code) == (err.code, err.exit_code)
        assert vars(back) == vars(err)


def test_a_row_error_says_where_and_what() -> None:
    err = RowError("a.jsonl", 3, "not JSON", reason="not-json", character=7)
    assert (str(err), err.problem) == ("a.jsonl, line 3: not JSON", "not JSON")
    assert err.fields == {"file": "a.jsonl", "row": 3, "character": 7}
    refused = UnreadableFileError.of(err)
    assert (str(refused), refused.reason, refused.fields) == (str(err), err.reason, err.fields)


def test_an_error_may_be_made_from_its_message_alone() -> None:
    assert InputError("a: no such file").reason == "unknown"
