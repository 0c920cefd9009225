"""Learning from a teacher, from weighted sentences, and with words whose tag is unknown."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from nerd_export.cli.train import main
from nerd_export.config import Precision, TrainConfig
from nerd_export.data.checks import Sentence
from nerd_export.data.examples import Example, write_examples
from nerd_export.data.training_data import TrainingData
from nerd_export.training.features import IGNORED, Features, encode
from nerd_export.training.loss import Collator, Mix, mixed_loss, with_extras
from nerd_export.training.teacher import SoftLabels, fingerprint, soft_labels
from nerd_export.training.trainer import train
from nerd_onnx.errors import NerdError, OutputError
from nerd_onnx.inference.labels import LabelSet
from tests.support.commands import runner
from tests.support.failures import fails
from tests.support.models import FINE_LABELS, make_checkpoint, sample_texts

LABELS = LabelSet(FINE_LABELS)
IDS = {name: i for i, name in enumerate(FINE_LABELS)}
TEXTS = [text[:240] for text in sample_texts()]  # short enough for the tiny models
SENTENCES = [Sentence(tuple(text.split()), ("O",) * len(text.split())) for text in TEXTS[:12]]


def batch(seed: int = 0) -> tuple[Any, Any]:
    torch.manual_seed(seed)
    logits, labels = torch.randn(3, 7, 5, dtype=torch.float64), torch.randint(0, 5, (3, 7))
    labels[0, 4:] = IGNORED
    return logits.float(), labels


def test_the_loss_is_torchs_where_nothing_is_mixed() -> None:
    logits, labels = batch()
    expected = cross_entropy(logits.reshape(-1, 5), labels.reshape(-1), ignore_index=IGNORED)
    assert mixed_loss(logits, labels, None, None, Mix(0.5, 2.0)) == pytest.approx(float(expected))
    ones = torch.ones(3)
    assert mixed_loss(logits, labels, ones, None, Mix(0.5, 2.0)) == pytest.approx(float(expected))


def test_a_sure_teacher_says_what_labels_say() -> None:
    logits, labels = batch()
    sure = torch.zeros(3, 7, 5)
    for row, column in (labels != IGNORED).nonzero().tolist():
        sure[row, column, labels[row, column]] = 1
    plain = float(mixed_loss(logits, labels, None, None, Mix(0.0, 1.0)))
    for share in (0.0, 0.3, 1.0):
        mixed = mixed_loss(logits, labels, None, sure, Mix(share, 1.0))
        assert float(mixed) == pytest.approx(plain, rel=1e-6)


def test_a_sentence_without_weight_teaches_nothing_and_an_unknown_word_only_what_the_teacher_knows() -> None:
    logits, labels = batch()
    soft = torch.softmax(torch.randn(3, 7, 5), -1)
    soft[1, 2] = 0  # of this word the teacher knows nothing
    labels[1, 2] = labels[2, 3] = IGNORED
    logits.requires_grad_()
    weight = torch.tensor([0.0, 1.0, 0.5])
    mixed_loss(logits, labels, weight, soft, Mix(0.4, 2.0)).backward()
    moved = logits.grad.abs().sum(-1) > 0
    assert not moved[0].any()
    assert not moved[1, 2]
    assert moved[2].all()
    assert int(moved.sum()) == 13


def test_coarse_types_count_by_the_sums_of_their_fine_ones() -> None:
    logits, labels = batch()
    classes = [0, 1, 1, 2, 2]
    summed = torch.stack(
        [logits.softmax(-1)[..., [i for i, c in enumerate(classes) if c == k]].sum(-1) for k in range(3)]
    )
    known = labels != IGNORED
    right = torch.tensor(classes)[labels.where(known, 0)]
    of_right = summed.gather(0, right[None])[0]
    fine = float(mixed_loss(logits, labels, None, None, Mix()))
    coarse = float(-of_right.log()[known].mean())
    for share in (0.0, 0.3, 1.0):
        mixed = float(mixed_loss(logits, labels, None, None, Mix(coarse_share=share, class_of_label=classes)))
        assert mixed == pytest.approx((1 - share) * fine + share * coarse, rel=1e-5)


def test_a_loss_of_coarse_types_alone_leaves_fine_ones_of_one_type_as_they_are() -> None:
    logits, labels = batch()
    logits = logits.requires_grad_()
    mixed_loss(logits, labels, None, None, Mix(coarse_share=1.0, class_of_label=[0, 1, 1, 2, 2])).backward()
    shares = logits.detach().softmax(-1)
    assert logits.grad.isfinite().all()
    assert not logits.grad[labels == IGNORED].any()
    torch.testing.assert_close(logits.grad[..., 1] * shares[..., 2], logits.grad[..., 2] * shares[..., 1])


@pytest.mark.slow
@pytest.mark.parametrize("family", ["bert", "mpnet", "roberta", "xlm-roberta"])
def test_a_teacher_with_another_tokenizer_answers_word_by_word(
    family: str, checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    import transformers

    student = transformers.AutoTokenizer.from_pretrained(checkpoint("bert"))
    teacher = make_checkpoint(tmp_path / "teacher", family, tuple(reversed(FINE_LABELS)), seed=3)
    examples = [Example.of_words(s) for s in SENTENCES] + [Example.of_unlabelled(t) for t in TEXTS[12:16]]
    features = encode(examples, student, IDS, 60, every_pretoken=True)
    asked: list[str] = []
    found = soft_labels([str(teacher)], examples, features, LABELS, temperature=2.0, folder=tmp_path, note=asked.append)
    model = transformers.AutoModelForTokenClassification.from_pretrained(teacher).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(teacher)
    covered = 0
    for i, example in enumerate(examples):
        encoded = tokenizer(example.text, return_offsets_mapping=True, return_tensors="pt", truncation=False)
        offsets = encoded.pop("offset_mapping")[0].tolist()
        accepted = {k: encoded[k] for k in ("input_ids", "attention_mask")}
        with torch.inference_mode():
            alone = (model(**accepted).logits[0] / 2.0).softmax(-1).flip(-1).numpy()
        assert len(found.of(i)) == len(features.starts[i])
        for start, answer in zip(features.starts[i], found.of(i), strict=True):
            pieces = [p for p, (a, b) in enumerate(offsets) if a <= start < b]
            np.testing.assert_allclose(answer, alone[pieces[0]] if pieces else 0.0, atol=2e-3)
            covered += bool(pieces)
    assert covered > 0.97 * found.first[-1]
    again = soft_labels(["gone"], examples, features, LABELS, temperature=2.0, folder=tmp_path, note=asked.append)
    np.testing.assert_array_equal(again.table, found.table)  # a resumed run does not ask twice
    assert len(asked) == 1
    fewer = encode(examples[:3], student, IDS, 60, every_pretoken=True)
    with fails(OutputError, "other-examples"):
        soft_labels(["gone"], examples[:3], fewer, LABELS, temperature=2.0, folder=tmp_path, note=asked.append)


def test_several_teachers_give_the_mean_of_those_that_have_the_word(
    checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    import transformers

    student = transformers.AutoTokenizer.from_pretrained(checkpoint("bert"))
    examples = [Example.of_words(s) for s in SENTENCES[:4]] + [Example.of_unlabelled(TEXTS[12])]
    features = encode(examples, student, IDS, 60, every_pretoken=True)
    names = [
        str(make_checkpoint(tmp_path / family, family, labels, seed=seed))
        for family, labels, seed in (("xlm-roberta", FINE_LABELS, 3), ("bert", tuple(reversed(FINE_LABELS)), 4))
    ]
    described = tmp_path / "bert" / "tokenizer_config.json"
    reads_less = json.loads(described.read_text()) | {"model_max_length": 12}
    described.write_text(json.dumps(reads_less))

    def asked(*teachers: str) -> SoftLabels:
        folder = tmp_path / f"work-{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        return soft_labels(teachers, examples, features, LABELS, temperature=1.0, folder=folder, note=notes.append)

    notes: list[str] = []
    alone = [np.asarray(asked(name).table, dtype=np.float32) for name in names]
    known = np.stack([table.any(axis=-1) for table in alone])
    for teachers, weights in ((names, (1, 1)), (names[::-1], (1, 1)), ([names[0], *names], (2, 1))):
        share = known * np.array(weights)[:, None]
        expected = sum(s[:, None] * table for s, table in zip(share, alone, strict=True)) / share.sum(axis=0)[:, None]
        np.testing.assert_allclose(asked(*teachers).table, expected, atol=1e-3)
    assert [note.partition(" 5 texts")[0] for note in notes] == ["the teacher labels"] * 2 + [
        "2 teachers label",
        "2 teachers label",
        "3 teachers label",
    ]
    assert known.any(axis=0).all()
    assert not known.all()


def test_a_teacher_of_other_labels_is_refused(checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint("bert"))
    examples = [Example.of_words(SENTENCES[0])]
    features = encode(examples, tokenizer, IDS, 60, every_pretoken=True)
    other = LabelSet((*FINE_LABELS, "product-car"))
    teacher = make_checkpoint(tmp_path / "teacher", "bert", FINE_LABELS)
    with fails(NerdError, "other-labels", option="--teacher", found="product-car"):
        soft_labels([str(teacher)], examples, features, other, temperature=1.0, folder=tmp_path, note=print)
    # A path and not a plain name: that could be on the hub, which is asked again and again where there is no network.
    gone = str(tmp_path / "gone")
    with fails(NerdError, "cannot-load", option="--teacher", file=gone):
        soft_labels([gone], examples, features, LABELS, temperature=1.0, folder=tmp_path, note=print)
    assert [path.name for path in tmp_path.iterdir()] == ["teacher"]


@pytest.mark.parametrize("side", ["right", "left"])
def test_batches_put_each_answer_on_its_word(side: str, checkpoint: Callable[..., Path]) -> None:
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint("bert"), padding_side=side)
    examples = [Example.of_words(s) for s in SENTENCES[:5]]
    features = encode(examples, tokenizer, IDS, 60, every_pretoken=True)
    first = np.concatenate([[0], np.cumsum([len(p) for p in features.places])])
    table = np.tile(np.arange(1, first[-1] + 1, dtype=np.float16)[:, None], (1, len(IDS)))
    soft = SoftLabels(table, first)
    dataset = with_extras(features, [1.0, 0.5, 1.0, 1.0, 1.0], soft)
    made = Collator(tokenizer, soft)([dataset[i] for i in (3, 1)])
    assert made["weight"].tolist() == [1.0, 0.5]
    for row, example in enumerate((3, 1)):
        answered = made["soft"][row, :, 0]
        assert answered[answered > 0].tolist() == list(range(first[example] + 1, first[example + 1] + 1))
        assert ((answered > 0) == (made["labels"][row] != IGNORED)).all()


def _distance(folder: Path, teacher: Path, texts: list[str]) -> float:
    """Return the distance of a model's probabilities from another's, on the same tokens."""
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(teacher)
    models = [transformers.AutoModelForTokenClassification.from_pretrained(f).eval() for f in (folder, teacher)]
    apart = []
    for text in texts:
        encoded = tokenizer(text, return_tensors="pt", truncation=False, return_token_type_ids=False)
        with torch.inference_mode():
            mine, theirs = (model(**encoded).logits.softmax(-1) for model in models)
        apart.append(float((mine - theirs).abs().sum(-1).mean()))
    return sum(apart) / len(apart)


@pytest.mark.slow
def test_a_student_comes_near_its_teacher_on_text_without_any_label(
    checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    teacher = make_checkpoint(tmp_path / "teacher", "bert", FINE_LABELS, seed=5)
    sentence = Sentence(("Ada", "met", "Rome"), ("person-actor", "person-other", "location-GPE"), frozenset({0, 1, 2}))
    known = Sentence(("the", "island", "war"), ("O", "location-island", "O"))
    data = TrainingData([sentence], [known], LABELS, "a", "b", TEXTS[:60], "texts")
    config = TrainConfig(
        model=str(checkpoint("bert")),
        level="fine",
        teachers=(str(teacher),),
        soft_share=1.0,
        epochs=6,
        learning_rate=3e-3,
        max_tokens=100,
    )
    train(config, data, tmp_path / "run", resume=False, overwrite=False, note=lambda _: None)
    held_out = TEXTS[60:80]
    before, after = (_distance(f, teacher, held_out) for f in (checkpoint("bert"), tmp_path / "run"))
    assert after < 0.8 * before


def test_the_command_reads_partial_files_and_names_mistakes(
    checkpoint: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    rows = [
        {"tokens": ["Ada", "met", "Bob", "in", "Rome"], "fine_ner_tags": tags, "tier": tier}
        for tags, tier in (
            (["person-other", "O", "person-actor", "O", "location-GPE"], "A"),
            ([None, "O", None, "O", "location-island"], "P"),
        )
    ]
    for name, kept in (("whole", rows[:1]), ("partial", rows[1:])):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in kept))
    common = ["--model", checkpoint("bert"), "--train-file", tmp_path / "whole.jsonl", "--level", "fine"]
    common += ["--train-file", tmp_path / "partial.jsonl", "--validation-file", tmp_path / "whole.jsonl"]
    common += ["--epochs", 1, "--output", tmp_path / "run", "--overwrite"]

    nerd_train = runner("nerd-train", main, monkeypatch, capfd)

    for arguments, message in (
        ((), "partial.jsonl, line 1: tag 0 missing"),
        (("--tier-weight", "P"), "TIER=WEIGHT"),
        (("--tier-weight", "P=-1"), "TIER=WEIGHT"),
        (("--null-tags", "unknown", "--tier-weight", "Q=1"), "--tier-weight: "),
        (("--unlabelled", tmp_path / "whole.jsonl"), "--unlabelled "),
        (("--level", "coarse", "--coarse-share", "0.3"), "--coarse-share "),
        (("--forms", "2"), "--forms "),
        (("--null-tags", "unknown", "--teacher", tmp_path / "gone"), f"{tmp_path / 'gone'}: "),
    ):
        code, _, err = nerd_train(*common, *arguments)
        assert code in (1, 2)
        assert message in err
        assert "Traceback" not in err
    code, _, err = nerd_train(
        *common,
        *("--null-tags", "unknown", "--tier-weight", "P=0.5", "--nameless-share", 0.5, "--plain-share", 0.5),
        *("--forms", 3, "--coarse-share", 0.3),
    )
    assert code == 0, err
    recipe = json.loads((tmp_path / "run" / "training.json").read_text())["recipe"]
    assert (recipe["forms"], recipe["coarse_share"]) == (3, 0.3)
    assert (recipe["null_tags"], recipe["tier_weights"], recipe["plain_share"]) == ("unknown", {"P": 0.5}, 0.5)


def test_features_leave_unknown_words_without_a_label(checkpoint: Callable[..., Path]) -> None:
    import transformers

    sentence = Sentence(("Ada", "met", "Bob"), ("O", "O", "person-other"), frozenset({0}))
    tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint("bert"))
    features: Features = encode(write_examples([sentence], TrainConfig()), tokenizer, IDS, 20, every_pretoken=True)
    labels = np.array(features.dataset[0]["labels"])
    assert labels[features.places[0]].tolist() == [IGNORED, IDS["O"], IDS["person-other"]]
    assert features.starts[0] == [0, 4, 8]
    assert features.lost == 0


def test_no_batch_of_the_teacher_is_larger_than_it_may_be(
    checkpoint: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import transformers

    teacher = make_checkpoint(tmp_path / "teacher", "bert", FINE_LABELS, seed=3)
    examples = [Example.of_unlabelled(text) for text in [".", *TEXTS[:40], ".", "the war"]]
    tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint("bert"))
    features = encode(examples, tokenizer, IDS, 60, every_pretoken=True)
    shapes: list[tuple[int, int]] = []
    forward = transformers.BertForTokenClassification.forward

    def seen(self: Any, input_ids: Any = None, **arguments: Any) -> Any:
        shapes.append(tuple(input_ids.shape))
        return forward(self, input_ids, **arguments)

    monkeypatch.setattr(transformers.BertForTokenClassification, "forward", seen)
    monkeypatch.setattr("nerd_export.training.teacher._BATCH_TOKENS", 600)
    soft_labels(
        [str(teacher)],
        examples,
        features,
        LABELS,
        temperature=1.0,
        precision="fp32",
        folder=tmp_path,
        note=lambda _: None,
    )
    assert sum(rows for rows, _ in shapes) == len(examples)
    assert len(shapes) > 3
    assert all(rows * tokens <= 600 for rows, tokens in shapes)


def test_a_teacher_in_bfloat16_says_about_the_same(checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    import transformers

    teacher = make_checkpoint(tmp_path / "teacher", "bert", FINE_LABELS, seed=3)
    tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint("bert"))
    examples = [Example.of_unlabelled(text) for text in TEXTS[:20]]
    features = encode(examples, tokenizer, IDS, 60, every_pretoken=True)
    tables = []
    for precision in get_args(Precision):
        (tmp_path / precision).mkdir()
        found = soft_labels(
            *([str(teacher)], examples, features, LABELS),
            temperature=1.0,
            precision=precision,
            folder=tmp_path / precision,
            note=lambda _: None,
        )
        tables.append(np.asarray(found.table, dtype=np.float32))
    fp32, bf16 = tables
    assert not np.array_equal(fp32, bf16)
    np.testing.assert_allclose(fp32, bf16, atol=0.02)


def test_another_teacher_is_noticed(tmp_path: Path) -> None:
    teacher = make_checkpoint(tmp_path / "teacher", "bert", FINE_LABELS)
    before = fingerprint(str(teacher))
    assert fingerprint(str(teacher)) == before
    config = json.loads((teacher / "config.json").read_text())
    config["id2label"]["1"], config["id2label"]["2"] = config["id2label"]["2"], config["id2label"]["1"]
    (teacher / "config.json").write_text(json.dumps(config))
    assert fingerprint(str(teacher)) != before
