"""nerd-view: what nerd-tag wrote, read back in every unit, on a page that is data and stays so."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from nerd_onnx.cli.view import command, main
from nerd_onnx.errors import InputError, OptionError, OutputError
from nerd_onnx.formats.columns import OffsetUnit
from nerd_onnx.formats.tagged_file import TaggedEntity, TaggedRow, sampled, tagged_rows
from nerd_onnx.tagger import Tagger
from nerd_onnx.tagging.job import TagJob
from nerd_onnx.tagging.run import tag_files
from nerd_onnx.view.page import MAX_CHARACTERS, view_page
from tests.support.commands import runner
from tests.support.failures import fails

TEXTS = [
    "Angela Merkel met Barack Obama in Berlin.",
    "🙂🙂 José Mourinho \U0001f1ea\U0001f1f8 lives in São Paulo 東京.",
    None,
    "",
    "</script><script>alert(1)</script> <!-- Angela Merkel & \u2028 'x' \x1b[2J",
]


def tagged(tmp_path: Path, name: str, unit: OffsetUnit = "codepoint") -> Path:
    """Tag the texts with the default model."""
    source = tmp_path / "in.jsonl"
    source.write_text("".join(json.dumps({"id": i, "text": text}) + "\n" for i, text in enumerate(TEXTS)))
    tagger = Tagger.load(offset_unit=unit)
    tag_files(tagger, TagJob([str(source)], str(tmp_path / name), overwrite=True))
    tagger.close()
    return tmp_path / name


def data_of(page: str) -> Any:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert found
    return json.loads(found[1])


@pytest.mark.parametrize("unit", ["codepoint", "utf8", "utf16"])
@pytest.mark.parametrize("name", ["o.parquet", "o.jsonl.gz"])
def test_entities_are_read_back_in_any_unit(tmp_path: Path, name: str, unit: Any) -> None:
    path = tagged(tmp_path, name, unit)
    rows = list(tagged_rows(str(path), unit=unit))
    assert [row.text for row in rows] == TEXTS
    assert [row.entities is None for row in rows] == [text is None for text in TEXTS]
    expected = Tagger.load().tag(TEXTS)
    for row, entities in zip(rows, expected, strict=True):
        assert [(e.start, e.end, e.label, e.fine_label) for e in row.entities or ()] == [
            (e.start, e.end, e.label, e.fine_label) for e in entities or ()
        ]
    if name == "o.parquet" and unit != "utf8":
        with fails(OptionError, "other-offset-unit", file=path, found=unit):
            list(tagged_rows(str(path), unit="utf8"))


def test_a_page_holds_every_text_whole_and_runs_only_its_own_script(tmp_path: Path) -> None:
    rows = list(tagged_rows(str(tagged(tmp_path, "o.parquet"))))
    page = view_page(rows, "a\x1b[1m<b>.parquet", "about </script>")
    data = data_of(page)
    texts = ["".join(p if isinstance(p, str) else p[0] for p in row["parts"]) for row in data["rows"]]
    assert texts == [text or "" for text in TEXTS]
    marked = [part for row in data["rows"] for part in row["parts"] if not isinstance(part, str)]
    assert len(marked) == sum(len(row.entities or ()) for row in rows) > 4
    assert {data["labels"][part[1]] for part in marked} == set(data["labels"])
    assert "\x1b" not in page
    assert page.count("<script") == page.count("</script>") == 2
    assert "alert(1)<" not in page
    script = page[page.rindex("<script>") + len("<script>") : page.rindex("</script>")]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in page
    assert not re.search(r"https?://", page)

    class Links(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            for key, value in attrs:
                assert key not in ("src", "action"), (tag, key)
                assert not key.startswith("on"), (tag, key)
                assert key != "href" or value in ("data:,", "#rows")

    Links().feed(page)


def test_a_novel_is_cut_and_says_so() -> None:
    far = TaggedEntity(MAX_CHARACTERS + 5, MAX_CHARACTERS + 8, "person", None, 0.5)
    text = "x" * (MAX_CHARACTERS + 500)
    row = data_of(view_page([TaggedRow(0, text, [TaggedEntity(1, 3, "person", None, None), far])], "t", "a"))["rows"][0]
    assert row["cut"] == 500
    assert [len(p if isinstance(p, str) else p[0]) for p in row["parts"]] == [1, 2, MAX_CHARACTERS - 3]


def test_rows_are_drawn_by_chance_but_the_same_for_a_seed() -> None:
    rows = [TaggedRow(i, str(i), []) for i in range(500)]
    first = sampled(iter(rows), 50, 1)
    assert first == sampled(iter(rows), 50, 1) != sampled(iter(rows), 50, 2)
    assert [row.number for row in first] == sorted(row.number for row in first)
    assert max(row.number for row in first) > 300
    assert sampled(iter(rows), 1000, 1) == rows


@pytest.mark.parametrize(
    ("table", "reason", "fields"),
    [
        ({"text": ["a"]}, "column-missing", {"column": "entities"}),
        ({"text": ["a"], "entities": ["x"]}, "not-entities", {"row": 0}),
        (
            {"text": ["a"], "entities": [[{"start": 0, "end": 9, "label": "p"}]]},
            "entity-outside-text",
            {"row": 0, "start": 0, "end": 9},
        ),
        ({"text": ["a"], "entities": [[{"start": None, "end": 1, "label": "p"}]]}, "not-entities", {"row": 0}),
        (
            {"text": ["é a"], "entities": [[{"start": 3, "end": 4, "label": "p", "text": "a"}]]},
            "entity-outside-text",
            {"row": 0, "start": 3, "end": 4},
        ),
        (
            {"text": [None], "entities": [[{"start": 0, "end": 1, "label": "p"}]]},
            "entity-outside-text",
            {"row": 0, "start": 0, "end": 1},
        ),
    ],
)
def test_what_is_not_tagged_is_refused(
    tmp_path: Path, table: dict[str, Any], reason: str, fields: dict[str, Any]
) -> None:
    pq.write_table(pa.table(table), tmp_path / "t.parquet")
    with fails(InputError, reason, file=tmp_path / "t.parquet", **fields):
        list(tagged_rows(str(tmp_path / "t.parquet")))


def test_the_command_writes_beside_its_input_and_never_over_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tagged(tmp_path, "o.parquet")
    view = runner("nerd-view", main, monkeypatch, capfd)
    code, out, err = view(path)
    assert (code, out) == (0, "")
    assert "o.parquet.html: All 5 rows of o.parquet, " in err
    page = (tmp_path / "o.parquet.html").read_text("utf-8")
    assert len(data_of(page)["rows"]) == 5
    code, _, err = view(path)
    assert (code, err.count("\n")) == (1, 1)
    assert "--overwrite" in err
    assert data_of(view(path, "-", "--rows", 2)[1])["about"].startswith("The first 2 rows of o.parquet, ")
    code, out, _ = view(path, "-", "--rows", 2, "--sample")
    assert code == 0
    assert data_of(out)["about"].startswith("A random sample of 2 rows out of 5 of o.parquet, ")
    assert data_of(view(path, "-", "--rows", 5, "--sample")[1])["about"].startswith("All 5 rows of o.parquet, ")
    assert len(data_of(out)["rows"]) == 2
    code, _, err = view(tmp_path / "none")
    assert (code, err.count("\n")) == (1, 1)


@pytest.mark.parametrize("typed", [False, True])
def test_a_file_without_rows_is_one_without_entities(tmp_path: Path, *, typed: bool) -> None:
    (tmp_path / "t.jsonl").touch()
    assert list(tagged_rows(str(tmp_path / "t.jsonl"), typed=typed)) == []


@pytest.mark.parametrize(
    "entity",
    ["null", "7", '{"start": "0", "end": 1, "label": "p"}', '{"start": 0, "end": 1, "label": "p", "score": "high"}'],
)
def test_lines_with_other_entities_are_named(tmp_path: Path, entity: str) -> None:
    good = '{"id": 1, "text": "Anna", "entities": [{"start": 0, "end": 4, "label": "p"}]}'
    bad = f'{{"id": "x", "text": "Anna", "entities": [{entity}]}}'
    (tmp_path / "t.jsonl").write_text(f"{good}\n{bad}\n")
    rows = tagged_rows(str(tmp_path / "t.jsonl"))
    assert next(rows).entities == [TaggedEntity(0, 4, "p", None, None)]
    with fails(InputError, "not-entities", file=tmp_path / "t.jsonl", row=2):
        next(rows)


def test_offsets_in_another_unit_are_noticed(tmp_path: Path) -> None:
    path = tagged(tmp_path, "o.jsonl", "utf8")
    with fails(InputError, "entity-text-differs", file=path, row=2):
        list(tagged_rows(str(path)))


def test_the_page_never_takes_the_place_of_its_input(tmp_path: Path) -> None:
    source = tmp_path / "v.jsonl"
    source.write_text('{"text": "a", "entities": []}\n')
    done = CliRunner().invoke(command, [str(source), str(source), "--overwrite"], standalone_mode=False)
    assert isinstance(done.exception, OutputError)
    assert source.read_text() == '{"text": "a", "entities": []}\n'


def no_constant(name: str) -> None:
    raise AssertionError(f"{name} is not JSON")


BAD_SCORES = {
    "NaN": "bad score nan",
    "Infinity": "bad score inf",
    "-Infinity": "bad score -inf",
    "1e400": "bad score inf",
    "-1e400": "bad score -inf",
    "1" + "0" * 400: "bad score inf",
    "7": "bad score 7",
    "-0.5": "bad score -0.5",
    "null": None,
    "0.987654": 0.9877,
    "1": 1,
    "-0": 0,
    "1e-400": 0,
}


@pytest.mark.parametrize(("score", "shown"), BAD_SCORES.items(), ids=[score[:12] for score in BAD_SCORES])
def test_bad_scores_are_shown_and_the_data_stays_json(
    score: str, shown: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    entity = f'{{"start": 0, "end": 4, "label": "person", "score": {score}}}'
    (tmp_path / "in.jsonl").write_text(f'{{"text": "Anna", "entities": [{entity}]}}\n', "utf-8")
    run = runner("nerd-view", main, monkeypatch, capfd)
    code, _, err = run(tmp_path / "in.jsonl", tmp_path / "page.html")
    assert code == 0, err
    found = re.search(r'id="data">(.*?)</script>', (tmp_path / "page.html").read_text("utf-8"), re.DOTALL)
    assert found
    data = json.loads(found[1], parse_constant=no_constant)
    assert data["rows"][0]["parts"] == [["Anna", 0, None, shown]]


@pytest.mark.parametrize("score", [float("nan"), float("inf"), -float("inf"), 2.0])
def test_bad_scores_of_parquet(score: float, tmp_path: Path) -> None:
    entities = [{"start": 0, "end": 4, "label": "person", "score": score}]
    pq.write_table(pa.table({"text": ["Anna"], "entities": [entities]}), tmp_path / "in.parquet")
    page = view_page(list(tagged_rows(str(tmp_path / "in.parquet"))), "in.parquet", "about")
    assert data_of(page)["rows"][0]["parts"] == [["Anna", 0, None, f"bad score {score:g}"]]
