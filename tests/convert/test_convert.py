"""nerd-convert: what other programs read back is what the tagged file says."""

from __future__ import annotations

import gzip
import json
import re
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nerd_onnx.cli.convert import main
from nerd_onnx.convert.brat import write_brat
from nerd_onnx.convert.conll import conll, tagged_tokens
from nerd_onnx.convert.displacy import displacy
from nerd_onnx.convert.label_studio import label_studio
from nerd_onnx.convert.spacy import doc_bin
from nerd_onnx.convert.tokens import tokens_of
from nerd_onnx.errors import InputError
from nerd_onnx.formats.tagged_file import TaggedEntity, TaggedRow, tagged_rows
from nerd_onnx.tagger import Tagger
from nerd_onnx.tagging.job import TagJob
from nerd_onnx.tagging.run import tag_files
from tests.support.commands import Run, runner
from tests.support.failures import fails
from tests.support.models import SAMPLE

LETTERS = ["Ana", "née", "e\u0301te\u0301", "हिन्दी", "東京", "🙂", "\u200d", "❤️", ".", "-", "_", "'", "#", '"']
SPACES = [" ", "  ", "\r\n", "\n", "\t", "\u2028", "\x1c", "\x85", "\u00a0", "\x00", "\u200b", "\ufeff"]
PIECES = st.lists(st.sampled_from(LETTERS) | st.sampled_from(SPACES) | st.text(max_size=4), max_size=12)


@st.composite
def rows_of(draw: st.DrawFn) -> TaggedRow:
    """Draw a text and entities in it that do not overlap, nor begin or end in white space, as nerd-tag's do not."""
    text = "".join(draw(PIECES))
    cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=6, unique=True)))
    entities = [
        TaggedEntity(start, end, draw(st.sampled_from(["person", "art", "two words"])), "art-film", 0.5)
        for start, end in zip(cuts[::2], cuts[1::2], strict=False)
        if text[start:end] == text[start:end].strip() and text[start:end]
    ]
    return TaggedRow(3, text, entities, "in.parquet, row 3")


ROW = rows_of()


def spans(row: TaggedRow) -> list[tuple[str, str]]:
    return [(e.label, (row.text or "")[e.start : e.end]) for e in row.entities or ()]


@given(ROW)
def test_tokens_hold_all_but_white_space_and_every_entity_is_some_of_them(row: TaggedRow) -> None:
    text, entities = row.text or "", row.entities or ()
    tokens = tokens_of(text, entities)
    assert "".join(text[start:end] for start, end in tokens) == re.sub(r"\s", "", text)
    assert not any(re.search(r"\s", text[start:end]) for start, end in tokens)
    starts, ends = {start for start, _ in tokens}, {end for _, end in tokens}
    assert all(entity.start in starts and entity.end in ends for entity in entities)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Don't stop, A_1!", ["Don", "'", "t", "stop", ",", "A_1", "!"]),
        ("e\u0301te\u0301 हिन्दी Łódź", ["e\u0301te\u0301", "हिन्दी", "Łódź"]),
        ("東京に🙂❤️", ["東京に", "🙂", "❤️"]),
        (" \n", []),
    ],
)
def test_tokens(text: str, expected: list[str]) -> None:
    assert [text[start:end] for start, end in tokens_of(text, [])] == expected


@given(st.lists(ROW, max_size=4))
def test_conll_is_read_back_by_seqeval(rows: list[TaggedRow]) -> None:
    from seqeval.metrics.sequence_labeling import get_entities

    rows = [row for row in rows if (row.text or "").strip()]
    sentences = [
        [line.split("\t") for line in block.split("\n")]
        for block in b"".join(conll(rows)).decode().split("\n\n")
        if block
    ]
    assert len(sentences) == len(rows)
    for row, sentence in zip(rows, sentences, strict=True):
        found = get_entities([tag for _, tag in sentence])
        assert [(kind, "".join(token for token, _ in sentence[first : last + 1])) for kind, first, last in found] == [
            (label.replace(" ", "_"), re.sub(r"\s", "", text)) for label, text in spans(row)
        ]


def test_an_entity_inside_a_token_cuts_it() -> None:
    row = TaggedRow(
        0, "東京に New  York's", [TaggedEntity(0, 2, "a", None, None), TaggedEntity(4, 13, "b", None, None)]
    )
    assert list(tagged_tokens(row)) == [
        *(("東京", "B-a"), ("に", "O"), ("New", "B-b"), ("York", "I-b"), ("'", "O"), ("s", "O")),
    ]


def brat_document(folder: Path, number: int) -> tuple[str, list[tuple[str, list[tuple[int, int]], str]]]:
    """Read a document as BRAT does: lines, columns, fragments joined by a space."""
    text = (folder / f"row-{number:07}.txt").read_bytes().decode()
    found = []
    for line in (folder / f"row-{number:07}.ann").read_bytes().decode().splitlines():
        name, place, surface = line.split("\t")
        kind, places = place.split(" ", 1)
        fragments = [(int(a), int(b)) for a, b in (part.split(" ") for part in places.split(";"))]
        assert re.fullmatch(r"T\d+", name)
        assert surface == " ".join(text[start:end] for start, end in fragments)
        found.append((kind, fragments, surface))
    return text, found


@settings(deadline=None)
@given(ROW)
def test_brat_is_read_back(tmp_path_factory: pytest.TempPathFactory, row: TaggedRow) -> None:
    folder = tmp_path_factory.mktemp("brat")
    write_brat([row], folder)
    text, found = brat_document(folder, 3)
    assert text == row.text
    assert [kind for kind, _, _ in found] == [e.label.replace(" ", "_") for e in row.entities or ()]
    for (_, fragments, _), entity in zip(found, row.entities or (), strict=True):
        assert (fragments[0][0], fragments[-1][1]) == (entity.start, entity.end)
    config = (folder / "annotation.conf").read_text("utf-8").split("\n")
    assert set(config[1 : config.index("")]) == {kind for kind, _, _ in found}


@settings(deadline=None)
@given(st.lists(ROW, max_size=3))
def test_spacy_reads_its_docbin_back(rows: list[TaggedRow]) -> None:
    import spacy
    from spacy.tokens import DocBin

    (content,) = doc_bin(rows)
    docs = list(DocBin().from_bytes(content).get_docs(spacy.blank("en").vocab))
    assert [doc.text for doc in docs] == [row.text for row in rows]
    for doc, row in zip(docs, rows, strict=True):
        assert [(ent.start_char, ent.end_char, ent.label_) for ent in doc.ents] == [
            (e.start, e.end, e.label) for e in row.entities or ()
        ]


@given(st.lists(ROW, min_size=1, max_size=3))
def test_displacy_and_label_studio_slice_as_python_does(rows: list[TaggedRow]) -> None:
    for document, task, row in zip(displacy(rows), label_studio(rows), rows, strict=True):
        assert [(e["label"], document["text"][e["start"] : e["end"]]) for e in document["ents"]] == spans(row)
        regions = [region["value"] for region in task["predictions"][0]["result"]]
        assert [(r["labels"][0], task["data"]["text"][r["start"] : r["end"]]) for r in regions] == spans(row)
        assert [r["text"] for r in regions] == [text for _, text in spans(row)]


def test_displacy_draws_it() -> None:
    from spacy import displacy as spacy_displacy

    entities = [TaggedEntity(0, 3, "person", None, 0.5), TaggedEntity(8, 11, "person", None, 1.0)]
    documents = list(displacy([TaggedRow(7, "Ana met\nBob", entities)]))
    html = spacy_displacy.render(documents, style="ent", manual=True, page=False, jupyter=False)
    assert html.count("<mark") == 2
    assert "row 7" in html


@pytest.fixture(scope="module")
def tagged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tag the sample, with rows that have no text, as Parquet and JSON Lines."""
    folder = tmp_path_factory.mktemp("tagged")
    lines = SAMPLE.read_text("utf-8").splitlines()[:30]
    lines = [*lines, '{"id": "none", "text": null}', '{"id": "empty", "text": ""}']
    (folder / "in.jsonl").write_text(
        "".join(re.sub('"id": (\\d+)', r'"id": "k\1"', line) + "\n" for line in lines), "utf-8"
    )
    tagger = Tagger.load(offset_unit="utf8")
    for name in ("t.parquet", "t.jsonl"):
        tag_files(tagger, TagJob([str(folder / "in.jsonl")], str(folder / name)))
    tagger.close()
    tag_files(Tagger.load(), TagJob([str(folder / "in.jsonl")], str(folder / "long.parquet"), layout="long", key="id"))
    tag_files(Tagger.load(), TagJob([str(folder / "in.jsonl")], str(folder / "wide.parquet"), layout="wide"))
    return folder / "t.parquet"


@pytest.fixture
def nerd_convert(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """Return a function that runs the command and returns exit code, stdout and stderr."""
    return runner("nerd-convert", main, monkeypatch, capfd)


def test_displacy_as_a_page(nerd_convert: Run, tmp_path: Path) -> None:
    source, page = tmp_path / "in.jsonl", tmp_path / "o.html"
    text = "<b>Ann & Bo</b> met\nBo"
    entities = [
        {"start": 3, "end": 6, "label": "per<son", "score": 0.9},
        {"start": 4, "end": 8, "label": "overlaps", "score": 0.9},
    ]
    source.write_text(json.dumps({"text": text, "entities": entities}) + "\n")
    assert nerd_convert(source, page, "--to", "displacy")[0] == 0
    found = page.read_text("utf-8")
    assert "&lt;b&gt;<mark style=" in found
    assert ">Ann<span>per&lt;son</span></mark> &amp; Bo&lt;/b&gt; met\nBo</div>" in found
    assert "overlaps" not in found
    assert "<script" not in found


def test_every_format_of_a_file_says_the_same(nerd_convert: Run, tagged: Path, tmp_path: Path) -> None:
    import spacy
    from spacy.tokens import DocBin

    rows = [row for row in tagged_rows(str(tagged)) if row.entities is not None]
    entities = sum(len(row.entities or ()) for row in rows)
    assert entities > 50
    said = f"31 rows, {entities} entities; left out: 1 row without text or entities\n"
    for kind, name in {
        "conll": "o.conll",
        "displacy": "o.jsonl.gz",
        "label-studio": "o.json",
        "brat": "o",
        "spacy": "o.spacy",
    }.items():
        code, out, err = nerd_convert(tagged, tmp_path / name, "--to", kind, "--level", "fine")
        assert (code, out, err) == (0, "", f"{tmp_path / name}: {said}")
    expected = [[e.fine_label for e in row.entities or ()] for row in rows]
    lines = (tmp_path / "o.conll").read_text("utf-8").splitlines()
    assert [line.split("\tB-")[1] for line in lines if "\tB-" in line] == [label for row in expected for label in row]
    with gzip.open(tmp_path / "o.jsonl.gz", "rt", encoding="utf-8") as file:
        assert [[e["label"] for e in json.loads(line)["ents"]] for line in file] == expected
    tasks = json.loads((tmp_path / "o.json").read_text("utf-8"))
    assert [[r["value"]["labels"][0] for r in t["predictions"][0]["result"]] for t in tasks] == expected
    assert len(list((tmp_path / "o").iterdir())) == 2 * 31 + 1
    assert [kind for kind, _, _ in brat_document(tmp_path / "o", 0)[1]] == [
        re.sub(r"[^\w-]", "_", label or "") for label in expected[0]
    ]
    docs = DocBin().from_disk(tmp_path / "o.spacy").get_docs(spacy.blank("xx").vocab)
    assert [[ent.label_ for ent in doc.ents] for doc in docs] == expected


@pytest.mark.parametrize("source", ["t.parquet", "t.jsonl"])
def test_long_rows_are_those_that_tagging_writes(nerd_convert: Run, tagged: Path, tmp_path: Path, source: str) -> None:
    expected = pq.read_table(tagged.with_name("long.parquet"))
    unit = ["--offset-unit", "utf8"] if source == "t.jsonl" else []
    for name in ("o.parquet", "o.jsonl"):
        code, _, err = nerd_convert(tagged.with_name(source), tmp_path / name, "--to", "long", "--key", "id", *unit)
        assert (code, f"{expected.num_rows} entities" in err) == (0, True)
    found = pq.read_table(tmp_path / "o.parquet")
    assert found.to_pylist() == expected.to_pylist()
    assert found.schema.metadata[b"nerd_onnx.entities.offset_unit"] == b"codepoint"
    lines = [json.loads(line) for line in (tmp_path / "o.jsonl").read_text("utf-8").splitlines()]
    assert [pytest.approx(row) for row in expected.to_pylist()] == lines


def test_limits_and_standard_output(nerd_convert: Run, tagged: Path) -> None:
    code, out, _ = nerd_convert(tagged, "-", "--to", "label-studio", "--limit", 2)
    assert (code, len(json.loads(out))) == (0, 2)
    assert nerd_convert(tagged, "-", "--to", "displacy", "--limit", 0)[1] == "[]\n"


def test_a_mistake_is_one_line_and_leaves_nothing(nerd_convert: Run, tagged: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("x")
    (tmp_path / "there.conll").write_text("x")
    overlapping = [[{"start": 0, "end": 3, "label": "p"}, {"start": 2, "end": 4, "label": "p"}]]
    pq.write_table(pa.table({"text": ["Anna"], "entities": overlapping}), tmp_path / "overlap.parquet")
    pq.write_table(
        pa.table({"text": ["A  \n"], "entities": [[{"start": 1, "end": 4, "label": "p"}]]}), tmp_path / "s.parquet"
    )
    before = sorted(path.name for path in tmp_path.rglob("*"))
    wrong: list[tuple[list[object], int, str]] = [
        ([tagged, tmp_path / "there.conll", "--to", "conll"], 1, "there.conll"),
        ([tagged, tagged, "--to", "displacy", "--overwrite"], 1, tagged.name),
        ([tagged, tmp_path / "full", "--to", "brat", "--overwrite"], 1, "full"),
        ([tagged, tmp_path / "there.conll", "--to", "brat"], 1, "there.conll"),
        ([tagged, "-", "--to", "brat"], 1, "BRAT"),
        ([tagged, tmp_path / "no" / "o", "--to", "brat"], 1, str(tmp_path / "no")),
        ([tagged, tmp_path / "o", "--to", "conll", "--key", "id"], 2, "--key"),
        ([tagged, tmp_path / "o.jsonl", "--to", "long", "--key", "x"], 1, "--key"),
        ([tagged, tmp_path / "o.txt", "--to", "long"], 1, ".parquet"),
        ([tmp_path / "none", tmp_path / "o", "--to", "conll"], 1, str(tmp_path / "none")),
        (
            [tagged.with_name("wide.parquet"), tmp_path / "o", "--to", "conll"],
            1,
            "--layout wide",
        ),
        *(
            (
                [tmp_path / "overlap.parquet", tmp_path / "o", "--to", kind],
                1,
                f"row 0: entities 0:3 and 2:4 overlap, which {name}",
            )
            for kind, name in (("conll", "CoNLL"), ("spacy", "spaCy"))
        ),
        *(
            ([tmp_path / "s.parquet", tmp_path / "o", "--to", kind], 1, "row 0: entity 1:4 ")
            for kind in ("conll", "spacy")
        ),
    ]
    for arguments, code, message in wrong:
        found, out, err = nerd_convert(*arguments)
        assert (found, out, err.count("\n")) == (code, "", 1), arguments
        assert message in err
        assert sorted(path.name for path in tmp_path.rglob("*")) == before
    assert (tmp_path / "full" / "mine").read_text() == "x"
    assert nerd_convert(tagged, tmp_path / "there.conll", "--to", "conll", "--overwrite")[0] == 0


def test_what_no_encoding_has_and_numbers_of_any_length(nerd_convert: Run, tmp_path: Path) -> None:
    line = '{"n": %s, "text": "a\\ud800 b", "entities": [{"start": 0, "end": 1, "label": "x\\udfff"}]}\n' % ("9" * 5000)
    (tmp_path / "in.jsonl").write_text(line)
    for kind, name in (("conll", "o.conll"), ("displacy", "o.json"), ("brat", "o"), ("long", "o.jsonl")):
        assert nerd_convert(tmp_path / "in.jsonl", tmp_path / name, "--to", kind)[0] == 0
    assert (tmp_path / "o.conll").read_text("utf-8") == "a\tB-x\ufffd\n\ufffd\tO\nb\tO\n\n"


def test_labels_that_are_not_valid_unicode(nerd_convert: Run, tmp_path: Path) -> None:
    entity = json.dumps([{"start": 0, "end": 1, "label": "x\ud800"}]).replace('"', '""')
    (tmp_path / "in.csv").write_text(f'text,entities\na,"{entity}"\n')
    assert nerd_convert(tmp_path / "in.csv", tmp_path / "o.conll", "--to", "conll")[0] == 0
    assert (tmp_path / "o.conll").read_text("utf-8") == "a\tB-x\ufffd\n\n"

    label = pa.array([b"\xff"]).view(pa.string())
    entities = pa.StructArray.from_arrays([pa.array([0]), pa.array([1]), label], ["start", "end", "label"])
    table = pa.table({"text": ["a"], "entities": pa.ListArray.from_arrays([0, 1], entities)})
    pq.write_table(table, tmp_path / "in.parquet")
    with fails(InputError, "not-utf8", row=0, column="entities"):
        list(tagged_rows(str(tmp_path / "in.parquet")))


def test_spacy_that_is_not_there_is_named(tagged: Path, tmp_path: Path) -> None:
    code = "import sys; sys.modules['spacy'] = None; from nerd_onnx.cli.convert import main; main()"
    command = [sys.executable, "-c", code, str(tagged), str(tmp_path / "o.spacy"), "--to", "spacy"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("nerd-convert: error: ")
    assert done.stderr.endswith("pip install 'nerd-onnx[spacy]'\n")


def test_entities_that_overlap_have_a_place_in_the_other_formats(tmp_path: Path) -> None:
    row = TaggedRow(0, "Anna", [TaggedEntity(0, 3, "p", None, None), TaggedEntity(2, 4, "p", None, None)], "here")
    assert len(next(displacy([row]))["ents"]) == 2
    assert len(next(label_studio([row]))["predictions"][0]["result"]) == 2
    write_brat([row], tmp_path)
    assert len(brat_document(tmp_path, 0)[1]) == 2
    with fails(InputError, "entities-overlap", start=2, end=3):
        list(conll([row]))


def test_brat_has_no_form_for_a_line_end(tmp_path: Path) -> None:
    row = TaggedRow(0, "a\n", [TaggedEntity(1, 2, "p", None, None)], "here")
    with fails(InputError, "entity-blank", start=1, end=2):
        write_brat([row], tmp_path)


@pytest.mark.parametrize("score", ["-0.1", "1.5", "99999999999999999999999"])
def test_a_score_that_is_none(tmp_path: Path, score: str) -> None:
    entity = f'{{"start": 0, "end": 4, "label": "person", "score": {score}}}'
    (tmp_path / "in.jsonl").write_text(f'{{"text": "Anna", "entities": [{entity}]}}\n', "utf-8")
    with fails(InputError, "bad-score", row=1):
        list(label_studio(tagged_rows(str(tmp_path / "in.jsonl"))))


@pytest.mark.parametrize("score", ["NaN", "Infinity", "1e400"])
def test_a_score_that_json_does_not_have_is_an_error(nerd_convert: Run, tmp_path: Path, score: str) -> None:
    entity = f'{{"start": 0, "end": 4, "label": "person", "score": {score}}}'
    rows = f'{{"text": "Rome", "entities": []}}\n{{"text": "Anna", "entities": [{entity}]}}\n'
    (tmp_path / "in.jsonl").write_text(rows, "utf-8")
    with fails(InputError, "bad-score", row=2):
        list(label_studio(tagged_rows(str(tmp_path / "in.jsonl"))))
    assert nerd_convert(tmp_path / "in.jsonl", tmp_path / "o.json", "--to", "label-studio")[0] == 1
    assert not (tmp_path / "o.json").exists()
    # The long layout has null there, as JSON Lines has for every number that is not finite.
    assert nerd_convert(tmp_path / "in.jsonl", tmp_path / "o.jsonl", "--to", "long")[0] == 0
    assert json.loads((tmp_path / "o.jsonl").read_text("utf-8"))["score"] is None
