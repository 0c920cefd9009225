"""``--kernel auto`` takes the native encoder where it can, and nothing mixes its bits with those of onnxruntime."""

from __future__ import annotations

import json
import pickle
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from nerd_export.config import VerifyLimits
from nerd_export.conversion import native_section
from nerd_export.conversion.check_on_machine import check_bundle
from nerd_export.conversion.export import ExportRequest, export_bundle
from nerd_onnx.cli.tag import main
from nerd_onnx.engines.model_archive import WorkerModel
from nerd_onnx.engines.worker import FileTasks
from nerd_onnx.errors import ModelError, OptionError, OutputError
from nerd_onnx.inference import kernels
from nerd_onnx.inference.bundle import DEFAULT_FOLDER, Bundle
from nerd_onnx.inference.description import Description, sha256_of
from nerd_onnx.inference.encoding import EncodedBatch
from nerd_onnx.inference.kernels import chosen_kernel, native_support
from nerd_onnx.inference.native_network import NativeNetwork
from nerd_onnx.native.library import PORTABLE, Library
from nerd_onnx.tagger import Tagger
from nerd_onnx.tagging.run import tag_files
from tests.support.bundles import TEXTS, WIDE
from tests.support.commands import runner
from tests.support.failures import fails
from tests.support.models import SAMPLE
from tests.support.runs import interrupt, job, texts, write_parquet

ANY = VerifyLimits(min_entity_agreement=0, max_f1_drop=1)


@pytest.fixture
def installed(library: Library, monkeypatch: pytest.MonkeyPatch) -> Callable[[Library | None], Library]:
    """Return a function that installs a library, or removes it; at first the one that the tests compiled is there."""

    def install(found: Library | None) -> Library:
        monkeypatch.setattr(kernels, "installed", lambda: found)
        monkeypatch.setattr(native_section, "installed", lambda: found)
        return library

    install(library)
    if not library.is_fast:
        pytest.skip("this processor has plain C++ only")
    return install


def test_auto_is_native_where_it_is_there_and_fast(
    installed: Callable[[Library | None], Library], library: Library, tiny_bundle: Path
) -> None:
    assert chosen_kernel(Bundle.load(), "auto") == "native"
    assert chosen_kernel(Bundle.load(tiny_bundle), "auto") == "onnxruntime"  # it has no native section
    assert chosen_kernel(Bundle.load(), "portable") == "portable"
    assert native_support().endswith(PORTABLE)
    tagger = Tagger.load()
    assert (tagger.options.kernel, tagger.kernels) == ("native", "int8, native encoder 1")

    installed(replace(library, paths=(PORTABLE,)))
    assert chosen_kernel(Bundle.load(), "auto") == "onnxruntime"
    assert chosen_kernel(Bundle.load(), "native") == "native"
    assert native_support() == "portable (slow, so onnxruntime computes)"

    installed(None)
    assert chosen_kernel(Bundle.load(), "auto") == "onnxruntime"
    assert native_support() == "not installed, onnxruntime computes"


@pytest.mark.parametrize(
    ("kernel", "expected"),
    [("auto", "native, "), ("portable", "native, portable"), ("onnxruntime", "onnxruntime")],
)
@pytest.mark.usefixtures("installed")
def test_the_environment_chooses_the_kernel_of_the_command(
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
    kernel: str,
    expected: str,
) -> None:
    monkeypatch.setenv("NERD_KERNEL", kernel)
    output = tmp_path / "o.parquet"
    code, _, err = runner("nerd-tag", main, monkeypatch, capfd)(SAMPLE, output, "--limit", 2, "--json")
    summary = json.loads(err)

    assert code == 0
    assert summary["kernel"].startswith(expected)
    assert ("native encoder" in summary["kernels"]) == (kernel != "onnxruntime")
    recorded = pq.read_schema(output).metadata[b"nerd_onnx.entities.kernels"]
    assert recorded.decode() == summary["kernels"]


def test_a_copy_of_a_tagger_computes_the_same_bits_or_fails(
    installed: Callable[[Library | None], Library],
) -> None:
    native = pickle.dumps(Tagger.load())
    assert _unpickled(native).options.kernel == "native"

    installed(None)
    with fails(OptionError, "no-native-library", option="--kernel"):
        _unpickled(native)
    other = pickle.dumps(Tagger.load())

    installed(installed(None))
    assert _unpickled(other).kernel == "onnxruntime"


def _unpickled(content: bytes) -> Tagger:
    found = pickle.loads(content)  # noqa: S301 - this test wrote it
    assert isinstance(found, Tagger)
    return found


def test_a_worker_of_an_engine_without_the_library_fails_by_name(
    installed: Callable[[Library | None], Library], tmp_path: Path
) -> None:
    source, output = write_parquet(tmp_path / "in.parquet", texts(3)), tmp_path / "out.parquet"
    # Options of no other test: a process keeps its tagger, and other tests are workers in this process too.
    options = replace(Tagger.load().options, threads=1, batch_tokens=777)
    tasks = FileTasks(WorkerModel(), options, [job(source, output)])

    installed(None)
    error = tasks.run(0, bytes).error
    assert error is not None
    assert (error.reason, error.fields["option"]) == ("no-native-library", "--kernel")
    assert error.fields["host"]
    assert not output.exists()


def test_a_run_is_resumed_with_the_same_bits_only(
    installed: Callable[[Library | None], Library], tmp_path: Path
) -> None:
    source, output = write_parquet(tmp_path / "in.parquet", texts(8), 4), tmp_path / "o.parquet"
    native = Tagger.load(threads=2)
    interrupt(native, job(source, output, chunk_rows=1), 5)

    installed(None)
    with fails(OutputError, "run-changed", file=output) as caught:
        tag_files(Tagger.load(), job(source, output, chunk_rows=1, resume=True))
    assert str(caught.value.fields["changed"]).startswith("bits of --kernel (was int8, native encoder 1, is int8")

    installed(installed(None))
    portable = Tagger.load(kernel="portable", threads=2)
    report = tag_files(portable, job(source, output, chunk_rows=1, resume=True))
    assert (report.rows, report.resumed_rows) == (8, 5)
    tag_files(native, job(source, tmp_path / "whole.parquet", chunk_rows=1))
    assert output.read_bytes() == (tmp_path / "whole.parquet").read_bytes()
    assert sum(map(len, pq.read_table(output)["entities"].to_pylist())) > 3


def _exported(checkpoint: Path, folder: Path, kernel: str) -> Description:
    """Export a checkpoint, which must be compared with a kernel, and return what the bundle says of itself."""
    said: list[str] = []
    export_bundle(ExportRequest(str(checkpoint), folder, texts=TEXTS[:20], limits=WIDE), said.append)
    assert any(line.startswith(f"comparing {kernel} with PyTorch") for line in said)
    return Description.read(folder)


@pytest.mark.slow
def test_an_export_is_judged_with_the_bits_that_its_users_get(
    installed: Callable[[Library | None], Library],
    checkpoint: Callable[..., Path],
    tmp_path: Path,
) -> None:
    found = _exported(checkpoint("bert-wide"), tmp_path / "b", "native")
    assert found.native is not None
    assert found.verification is not None
    assert found.verification["kernels"] == "int8, native encoder 1"
    assert "native encoder computed" in (tmp_path / "b" / "README.md").read_text("utf-8")
    assert check_bundle(Bundle.load(tmp_path / "b"), {}, ANY).entities_changed == 0

    # Where the native encoder is not installed, other bits compute, and entities near a tie may differ.
    library = installed(None)
    there = check_bundle(Bundle.load(tmp_path / "b"), {}, ANY)
    assert (there.entities_changed, there.faults) == (None, ())

    installed(library)
    _record_one_more_entity(tmp_path / "b")
    here = check_bundle(Bundle.load(tmp_path / "b"), {}, ANY)
    assert here.entities_changed == 1
    assert len(here.faults) == 1


@pytest.mark.slow
def test_an_export_without_the_library_has_the_same_graph_and_no_section(
    installed: Callable[[Library | None], Library],
    checkpoint: Callable[..., Path],
    tmp_path: Path,
) -> None:
    _exported(checkpoint("bert-wide"), tmp_path / "native", "native")
    installed(None)
    found = _exported(checkpoint("bert-wide"), tmp_path / "plain", "onnxruntime")

    assert found.native is None
    assert found.verification is not None
    assert found.verification["kernels"] == Bundle.load(tmp_path / "plain").kernels
    assert "bundle" not in json.loads((tmp_path / "plain" / "expected.json").read_text("utf-8"))
    assert (tmp_path / "plain" / "model.onnx").read_bytes() == (tmp_path / "native" / "model.onnx").read_bytes()


def _record_one_more_entity(bundle: Path) -> None:
    """Add an entity that the bundle does not find to those that it found at export."""
    expected = json.loads((bundle / "expected.json").read_text("utf-8"))
    expected["bundle"].append([0, 0, 1_000, 0, 0])
    (bundle / "expected.json").write_text(json.dumps(expected), "utf-8")

    description = json.loads((bundle / "nerd.json").read_text("utf-8"))
    description["files"]["expected.json"]["sha256"] = sha256_of(bundle / "expected.json")
    (bundle / "nerd.json").write_text(json.dumps(description), "utf-8")


@pytest.mark.slow
def test_a_stopped_network_ends_its_calls_and_is_used_again(library: Library) -> None:
    layout = Description.read(DEFAULT_FOLDER).native
    assert layout is not None
    network = NativeNetwork(DEFAULT_FOLDER / "model.onnx", layout, library, PORTABLE)
    ended: list[BaseException] = []

    def long_call() -> None:
        try:
            network.logits(EncodedBatch(np.full((4000, 64), 7)))  # half an hour
        except ModelError as err:
            ended.append(err)

    thread = threading.Thread(target=long_call, daemon=True)
    thread.start()
    time.sleep(0.1)
    network.stop()
    thread.join(30)
    assert [err.reason for err in ended if isinstance(err, ModelError)] == ["cannot-run"]
    assert network.logits(EncodedBatch(np.array([[101, 7, 102]]))).shape == (1, 3, 67)


def test_batches_of_several_calls_have_the_same_bits(library: Library) -> None:
    layout = Description.read(DEFAULT_FOLDER).native
    assert layout is not None
    network = NativeNetwork(DEFAULT_FOLDER / "model.onnx", layout, library)
    ids = np.arange(50 * 16).reshape(50, 16) * 7919 % 30000
    together = network.logits(EncodedBatch(ids))
    alone = [network.logits(EncodedBatch(ids[i : i + 1])) for i in range(50)]
    assert together.tobytes() == np.concatenate(alone).tobytes()
    assert network.logits(EncodedBatch(ids[:0])).shape == (0, 16, 67)
