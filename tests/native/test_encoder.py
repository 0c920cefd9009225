"""The native encoder computes what it should, and the same bits with every instruction set that this processor has."""

from __future__ import annotations

import hashlib
import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nerd_onnx.errors import ModelError
from nerd_onnx.inference.arrays import Floats, Ints
from nerd_onnx.native.library import PORTABLE, Encoder, Library
from tests.support.encoders import RandomEncoder, Sizes, gelu
from tests.support.failures import fails

WIDE_HEADS = Sizes(layers=1, hidden=96, heads=1, intermediate=32, labels=17, positions=40)
SMALL = Sizes()
BASE = Sizes(layers=1, hidden=768, heads=12, intermediate=3072, labels=9, positions=70)
# What other encoders have that BERT has not.
ROBERTA = Sizes(padding=1, token_types=1)
ELECTRA = Sizes(hidden=96, heads=3, embedding=32)
MPNET = Sizes(hidden=64, heads=4, padding=1, token_types=1, relative=True)
KINDS = [SMALL, WIDE_HEADS, ROBERTA, ELECTRA, MPNET]

# SHA-256 of the logits of each encoder, 7 segments of 13 tokens. They must not depend on processor, compiler or system.
GOLDEN = {
    "small": (SMALL, False, "71701fc0101d24325f5aa9e1dcc7318c8457f651a4c69850c2dfab25928c9e5f"),
    "wide-heads": (WIDE_HEADS, False, "ee8718fdff10b09f5669ab6fd0bf6735284fa86c9a614c8f63db3b46e8ef8db7"),
    "largest-weights": (SMALL, True, "abd05aa6ed904c56f784069557160cdadc6c9fd901370c14aaa8a99c3d39e0f3"),
    "base": (BASE, False, "9b3b3e777443e29613793f4c318d40f7cad51478eb74e06fe743a28c964e9001"),
    "roberta": (ROBERTA, False, "c02e28dcfd7c741654604f29d5cac43476546775d99463bf0054a225930e5ce1"),
    "electra": (ELECTRA, False, "78a56a78d1d47c16ed60cecdfe3bb382577f1ff91c988cada437894136374293"),
    "mpnet": (MPNET, False, "c0ce3fdbb91cbeac2c8f2dd415506127f1dc1c6b8205382e76dd5c27d8936fea"),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_every_instruction_set_gives_the_committed_bits(library: Library, name: str) -> None:
    sizes, largest, expected = GOLDEN[name]
    encoder = RandomEncoder.make(sizes, seed=4, largest_weights=largest)
    ids, types = encoder.inputs(7, 13)

    found = {path: _digest(encoder.opened(library, path).logits(ids, types)) for path in library.paths}
    assert PORTABLE in found
    assert found == dict.fromkeys(library.paths, expected)


@pytest.mark.parametrize("path", ["", PORTABLE])
@pytest.mark.parametrize("sizes", KINDS)
def test_logits_are_those_of_numpy(library: Library, sizes: Sizes, path: str) -> None:
    encoder = RandomEncoder.make(sizes)
    ids, types = encoder.inputs(5, 23)
    expected = encoder.expected(ids, types)

    found = encoder.opened(library, path).logits(ids, types)

    # A value near the middle of two integers is rounded otherwise in double precision, which changes later values.
    assert found.shape == expected.shape
    assert np.abs(found - expected).mean() < 0.01 * expected.std()
    assert (found.argmax(-1) == expected.argmax(-1)).mean() > 0.98


@st.composite
def encoders(draw: st.DrawFn) -> tuple[RandomEncoder, Ints, Ints]:
    heads, width = draw(st.integers(1, 4)), draw(st.sampled_from([16, 32, 48]))
    sizes = Sizes(
        layers=draw(st.integers(1, 2)),
        hidden=heads * width * (1 if heads * width % 32 == 0 else 2),
        heads=heads,
        intermediate=32 * draw(st.integers(1, 5)),
        labels=draw(st.integers(1, 40)),
        token_types=draw(st.integers(1, 3)),
        embedding=draw(st.sampled_from([None, 32, 64, 160])),
        padding=draw(st.sampled_from([-1, 0, 1, 7])),
        relative=draw(st.booleans()),
    )
    encoder = RandomEncoder.make(sizes, draw(st.integers(0, 9)), largest_weights=draw(st.booleans()))
    return encoder, *encoder.inputs(
        draw(st.integers(1, 9)), draw(st.integers(1, sizes.longest)), draw(st.integers(0, 9))
    )


@given(encoders())
def test_any_sizes_give_the_same_bits(library: Library, case: tuple[RandomEncoder, Ints, Ints]) -> None:
    encoder, ids, types = case
    digests = {_digest(encoder.opened(library, path).logits(ids, types)) for path in library.paths}
    assert len(digests) == 1


@pytest.mark.parametrize("sizes", [SMALL, ROBERTA, ELECTRA, MPNET])
def test_a_segment_does_not_depend_on_its_batch(library: Library, sizes: Sizes) -> None:
    encoder = RandomEncoder.make(sizes)
    opened = encoder.opened(library)
    for tokens in (1, 5, 16, 33, 64, sizes.longest):
        ids, types = encoder.inputs(11, tokens)
        together = opened.logits(ids, types)
        order = np.random.default_rng(tokens).permutation(len(ids))
        assert (opened.logits(ids[order], types[order]) == together[order]).all()
        for i in range(len(ids)):
            assert (opened.logits(ids[i : i + 1], types[i : i + 1]) == together[i]).all()


def test_padding_has_a_position_of_its_own(library: Library) -> None:
    encoder = RandomEncoder.make(ROBERTA)
    ids = np.array([[5, 6, 7], [5, ROBERTA.padding, 7]])
    table = np.array(encoder.tensors[3])
    table[ROBERTA.padding], table[ROBERTA.padding + 2] = 0, 0
    changed = encoder.with_tensor(3, table)
    before, after = (each.opened(library).logits(ids, np.zeros_like(ids)) for each in (encoder, changed))
    assert (before != after).any(axis=(1, 2)).all()

    # The last token of the second segment is the second one that counts, the fourth row of the table.
    table = np.array(encoder.tensors[3])
    table[ROBERTA.padding + 3] = 0
    changed = encoder.with_tensor(3, table)
    after = changed.opened(library).logits(ids, np.zeros_like(ids))
    assert (before != after).any(axis=(1, 2)).tolist() == [True, False]


@pytest.mark.parametrize("sizes", [SMALL, MPNET])
def test_threads_share_a_network(library: Library, sizes: Sizes) -> None:
    encoder = RandomEncoder.make(sizes)
    opened = encoder.opened(library)
    cases = [encoder.inputs(3, tokens, tokens) for tokens in range(1, 60)] * 3
    alone = [opened.logits(*case) for case in cases]

    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda case: opened.logits(*case), cases))

    assert all((one == other).all() for one, other in zip(alone, together, strict=True))


def test_a_thread_that_flushes_subnormal_numbers_gets_the_same_bits(library: Library) -> None:
    torch = pytest.importorskip("torch")
    sizes = Sizes(hidden=32, intermediate=32, heads=1)
    encoder = RandomEncoder.make(sizes)
    tiny = np.full((sizes.hidden, sizes.labels), 1e-39, np.float32)
    encoder = encoder.with_tensor(len(encoder.tensors) - 2, tiny)
    encoder = encoder.with_tensor(len(encoder.tensors) - 1, np.zeros(sizes.labels, np.float32))
    opened, (ids, types) = encoder.opened(library), encoder.inputs(2, 7)
    expected = opened.logits(ids, types)
    assert (expected != 0).any()
    assert (np.abs(expected) < 1e-37).all()

    assert torch.set_flush_denormal(True)
    try:
        found = opened.logits(ids, types)
        still_flushes = (torch.tensor([1e-39]) * 1).item() == 0
    finally:
        torch.set_flush_denormal(False)

    assert (found == expected).all()
    assert still_flushes


@pytest.mark.parametrize("sequences", [0, 1])
def test_an_empty_batch_has_no_logits(library: Library, sequences: int) -> None:
    encoder = RandomEncoder.make(SMALL)
    ids, types = encoder.inputs(sequences, 3)
    assert encoder.opened(library).logits(ids, types).shape == (sequences, 3, SMALL.labels)


@pytest.mark.parametrize("path", ["", PORTABLE])
def test_functions_are_those_of_the_standard_library(library: Library, path: str) -> None:
    values = np.concatenate([np.linspace(-20, 20, 40_000), [0, -0.0, 1e-40, -1e-40, 1e30, -1e30] + [5.25, -5.25] * 5])
    values = values.astype(np.float32)
    found = library.computed("gelu", values, path)
    exact = gelu(values.astype(np.float64))
    assert np.abs(found - exact)[np.abs(values) < 6].max() < 2e-6
    assert np.abs(found - exact).max() <= 2e-7 * np.abs(values).max()

    powers = np.linspace(-87, 0, 1 << 16).astype(np.float32)
    assert np.abs(library.computed("exponential", powers, path) / np.exp(powers.astype(np.float64)) - 1).max() < 1.5e-7
    assert library.computed("exponential", np.full(16, -math.inf, np.float32), path).max() < 1.7e-38


@pytest.mark.parametrize(
    ("place", "value"), [(0, -1), (0, SMALL.vocabulary), (0, 2**40), (1, -1), (1, SMALL.token_types)]
)
def test_an_id_outside_its_table_is_an_error(library: Library, place: int, value: int) -> None:
    encoder = RandomEncoder.make(SMALL)
    inputs = encoder.inputs(2, 5)
    inputs[place][1, 4] = value
    with fails(ModelError, "cannot-run", tokens=5):
        encoder.opened(library).logits(*inputs)


@pytest.mark.parametrize("sizes", [SMALL, ROBERTA, MPNET])
def test_segments_of_a_wrong_length_or_shape_are_errors(library: Library, sizes: Sizes) -> None:
    encoder = RandomEncoder.make(sizes)
    opened = encoder.opened(library)
    for sequences, tokens in ((1, 0), (1, sizes.longest + 1)):
        _refused(opened, *encoder.inputs(sequences, tokens))
    ids, types = encoder.inputs(2, 5)
    _refused(opened, ids, types[:1])
    _refused(opened, ids[0], types[0])


def _refused(opened: Encoder, ids: Ints, types: Ints) -> None:
    with pytest.raises(ModelError) as caught:
        opened.logits(ids, types)
    assert caught.value.reason == "cannot-run"


def test_a_network_that_does_not_fit_is_refused(library: Library) -> None:
    encoder = RandomEncoder.make(SMALL)
    weight = 6  # of the first queries
    over = np.full((SMALL.hidden, SMALL.hidden), 65, np.int8)
    cases = [
        encoder.with_tensor(0, np.zeros(3, np.int8)),
        encoder.with_tensor(2, None),
        encoder.with_tensor(weight, over),
        RandomEncoder(SMALL, encoder.tensors[:-1]),
        RandomEncoder(SMALL, [*encoder.tensors, None]),
        RandomEncoder(Sizes(hidden=48), encoder.tensors),
        RandomEncoder(Sizes(heads=3), encoder.tensors),
        RandomEncoder(Sizes(layers=0), encoder.tensors),
        RandomEncoder(Sizes(layers=65), encoder.tensors),
        RandomEncoder(Sizes(vocabulary=2**30), encoder.tensors),
        RandomEncoder(Sizes(padding=1), RandomEncoder.make(MPNET).tensors),
        RandomEncoder(Sizes(relative=True), encoder.tensors),
        RandomEncoder(Sizes(embedding=32), encoder.tensors),
        RandomEncoder(replace(ELECTRA, embedding=None), RandomEncoder.make(ELECTRA).tensors),
        RandomEncoder.make(Sizes(embedding=16)),
        RandomEncoder(Sizes(padding=-2), encoder.tensors),
        RandomEncoder(Sizes(padding=SMALL.positions - 1), encoder.tensors),
    ]
    for case in cases:
        with pytest.raises(ModelError) as caught:
            case.opened(library)
        assert caught.value.reason == "cannot-load"


def test_an_instruction_set_that_is_not_here_is_refused(library: Library) -> None:
    with fails(ModelError, "cannot-load"):
        RandomEncoder.make(SMALL).opened(library, "sse9")


def _digest(logits: Floats) -> str:
    return hashlib.sha256(logits.tobytes()).hexdigest()
