"""Names that may be a folder or an id on the hub: mistyped ones are told at once, and the hub is asked once."""

from __future__ import annotations

import hashlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NoReturn

import huggingface_hub.constants
import huggingface_hub.file_download
import pytest

from nerd_export.cli.eval import main as nerd_eval
from nerd_export.cli.export import main as nerd_export
from nerd_export.cli.train import main as nerd_train
from nerd_export.models.names import as_checkpoint, bundle_named
from nerd_onnx.cli.tag import main as nerd_tag
from nerd_onnx.errors import ModelError, TrainingDataError
from nerd_onnx.inference.bundle import Bundle
from nerd_onnx.storage import hub
from nerd_onnx.storage.hub import is_hub_id, require_place
from nerd_onnx.tagger import Tagger
from tests.support.commands import runner
from tests.support.failures import fails
from tests.support.models import SAMPLE

PATHS = ("./no-such", "no/such/folder", "/no/such", "~/no-such", "../no-such", "no-such/", "my model", "a//b")


class _Hub(BaseHTTPRequestHandler):
    """Knows one model by name and another with the files of a folder, and remembers what it is asked."""

    asked: list[str]
    folder: Path
    commit = "0" * 40

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self.asked.append(self.path)
        self.wfile.write(self._answer())

    def _answer(self) -> bytes:
        """Send status and headers. :return: the body"""
        _, _, name = self.path.partition("/resolve/")
        code, sent = 200, {"X-Repo-Commit": self.commit}
        if self.path == "/api/models/us/tiny":
            body = json.dumps({"id": "us/tiny"}).encode()
        elif self.path.startswith("/api/models/us/bundle"):
            files = [{"rfilename": path.name} for path in self.folder.iterdir()]
            body = json.dumps({"id": "us/bundle", "sha": self.commit, "siblings": files}).encode()
        elif self.path.startswith("/us/bundle/") and (file := self.folder / name.partition("/")[2]).is_file():
            body = file.read_bytes()
            sent["ETag"] = hashlib.sha256(body).hexdigest()
        else:
            code, body = 404, json.dumps({"error": "not found"}).encode()
            sent["X-Error-Code"] = "EntryNotFound" if name else "RepoNotFound"
        self.send_response(code)
        for header, value in (*sent.items(), ("Content-Length", str(len(body)))):
            self.send_header(header, value)
        self.end_headers()
        return body

    def log_message(self, *_: object) -> None:
        """Log nothing."""


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[list[str]]:
    """Put a server in the hub's place. :return: the paths it is asked for"""
    _Hub.asked = []
    with ThreadingHTTPServer(("127.0.0.1", 0), _Hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        place = f"http://127.0.0.1:{server.server_port}"
        files = place + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", place)
        monkeypatch.setattr(huggingface_hub.file_download, "HUGGINGFACE_CO_URL_TEMPLATE", files)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        yield _Hub.asked
        server.shutdown()


def in_cache(folder: Path) -> None:
    """Make what a download leaves in the cache of the hub: a commit, and the branch main that leads to it."""
    (folder / "snapshots" / _Hub.commit).mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(_Hub.commit)


def test_what_can_be_an_id() -> None:
    assert all(map(is_hub_id, ("bert-base-uncased", "DFKI-SLT/few-nerd", "us/m_1.5")))
    assert not any(map(is_hub_id, PATHS))


def test_the_hub_is_asked_once_for_what_is_not_here(asked: list[str], tmp_path: Path) -> None:
    require_place(str(tmp_path), "model")
    for path in PATHS:
        with fails(ModelError, "missing-folder", file=path):
            require_place(path, "model")
    assert asked == []
    require_place("us/tiny", "model")
    with fails(ModelError, "not-on-hub", file="us/tyni"):
        require_place("us/tyni", "model", "--model")
    with fails(TrainingDataError, "not-on-hub", file="us/tiny"):
        require_place("us/tiny", "dataset")
    assert asked == ["/api/models/us/tiny", "/api/models/us/tyni", "/api/datasets/us/tiny"]


def test_a_download_that_was_cut_off_at_once_does_not_count(asked: list[str], tmp_path: Path) -> None:
    (tmp_path / "cache" / "models--us--tyni" / "blobs").mkdir(parents=True)
    with fails(ModelError, "not-on-hub", file="us/tyni"):
        require_place("us/tyni", "model")
    assert asked == ["/api/models/us/tyni"]


def test_an_id_that_the_hub_refuses_is_one_line(asked: list[str]) -> None:
    with fails(ModelError, "hub-failed", file="us/a--b"):
        require_place("us/a--b", "model")
    assert asked == []


@pytest.mark.usefixtures("asked")
def test_a_hub_that_does_not_answer_is_not_waited_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(hub, "_ASK_S", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        begin = time.monotonic()
        with fails(ModelError, "hub-failed", file="us/tiny"):
            require_place("us/tiny", "model")
        assert time.monotonic() - begin < 5
        in_cache(tmp_path / "cache" / "models--us--tiny")
        require_place("us/tiny", "model")  # it may be used without a network
        begin = time.monotonic()
        assert bundle_named("us/tiny") is None
        assert time.monotonic() - begin < 0.2  # nobody is asked
        with fails(ModelError, "hub-failed", file="us/other"):
            bundle_named("us/other")


def test_a_bundle_of_the_hub_is_taken_where_checkpoints_are(
    asked: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_bundle: Path
) -> None:
    _Hub.folder = tiny_bundle
    found = bundle_named("us/bundle")
    assert found is not None
    assert found.model_sha256 == Bundle.load(tiny_bundle).model_sha256
    assert found.model_file.is_relative_to(tmp_path / "cache")
    with as_checkpoint("us/bundle") as place:
        assert (Path(place) / "model.safetensors").is_file()
    (entities,) = Tagger.load("us/bundle").tag(["Anna saw Rome."])
    assert entities == Tagger.load(tiny_bundle).tag(["Anna saw Rome."])[0]
    asked.clear()
    with as_checkpoint("us/tiny") as place:
        assert place == "us/tiny"
    assert asked == ["/api/models/us/tiny"]
    assert bundle_named("tiny") is None
    assert bundle_named("./us/tiny") is None
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    again = bundle_named("us/bundle")  # without a network
    assert again is not None
    assert again.model_file == found.model_file


def test_a_data_set_of_the_cache_is_not_asked_for(
    asked: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "datasets"))
    (tmp_path / "datasets" / "us___few_nerd").mkdir(parents=True)  # as the datasets package names it
    require_place("us/FewNERD", "dataset")
    assert asked == []


@pytest.mark.parametrize(
    ("name", "main", "arguments"),
    [
        ("nerd-tag", nerd_tag, [SAMPLE, "o.jsonl", "--model", "WRONG"]),
        ("nerd-train", nerd_train, ["--output", "o", "--model", "WRONG"]),
        ("nerd-train", nerd_train, ["--output", "o", "--model", ".", "--teacher", "WRONG"]),
        ("nerd-train", nerd_train, ["--output", "o", "--model", ".", "--dataset", "WRONG"]),
        ("nerd-export", nerd_export, ["--output", "o", "--model", "WRONG"]),
        ("nerd-export", nerd_export, ["--output", "o", "--model", ".", "--average-with", "WRONG"]),
        ("nerd-export", nerd_export, ["--output", "o", "--model", ".", "--dataset", "WRONG"]),
        ("nerd-export", nerd_export, ["--check", "WRONG"]),
        ("nerd-eval", nerd_eval, ["data.jsonl", "--model", "WRONG"]),
    ],
)
@pytest.mark.parametrize(("wrong", "requests"), [("./no-such", 0), ("us/tyni", 1)])
def test_each_option_that_takes_either(
    name: str,
    main: Callable[[], NoReturn],
    arguments: list[object],
    wrong: str,
    requests: int,
    asked: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data.jsonl").write_text('{"tokens": ["a"], "ner_tags": ["O"]}\n')
    run = runner(name, main, monkeypatch, capfd)
    code, _, err = run(*(wrong if argument == "WRONG" else argument for argument in arguments))
    assert (code, err.count("\n"), len(asked)) == (1, 1, requests)
    assert err.startswith(f"{name}: error: ")
    assert f"{Path(wrong).name}: " in err
