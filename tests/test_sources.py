"""`run=zoo:NAME` and `run=hub:USER/NAME`: what ships, and what is shared."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml

from lightning_wm import load_actor
from lightning_wm.errors import UserError
from lightning_wm.evaluate import main as evaluate
from lightning_wm.export import main as export
from lightning_wm.runs import sources
from lightning_wm.runs.hub import pull, push
from lightning_wm.runs.sources import locate, zoo

huggingface_hub = pytest.importorskip("huggingface_hub")


class Hub(ThreadingHTTPServer):
    """As much of the hub's protocol as one repository needs."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.up = True

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Answers(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *args: object) -> None:
        pass

    def answer(self, content: object, status: int = 200, headers: dict[str, str] | None = None) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def missing(self) -> None:
        self.answer({"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"})

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if not self.server.up:
            return self.answer({"error": "down"}, 503)
        for name, files in self.server.repositories.items():
            if path.startswith(f"/api/models/{name}/"):
                if "/tree/" in path:
                    tree = [
                        {"type": "file", "path": key, "size": len(body), "oid": oid(body)}
                        for key, body in files.items()
                    ]
                    return self.answer(tree)
                about = {"id": name, "sha": "a" * 40, "siblings": [{"rfilename": key} for key in files]}
                return self.answer({**about, "private": False, "tags": [], "downloads": 0})
            prefix = f"/{name}/resolve/{'a' * 40}/"
            if path.startswith(prefix) and path.removeprefix(prefix) in files:
                body = files[path.removeprefix(prefix)]
                return self.answer(body, headers={"ETag": f'"{oid(body)}"', "X-Repo-Commit": "a" * 40})
        return self.missing()

    do_HEAD = do_GET

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path == "/api/validate-yaml":
            return self.answer({"errors": [], "warnings": []})
        if self.path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked.get('organization', 'me')}/{asked['name']}"
            self.server.repositories.setdefault(name, {})
            return self.answer({"url": f"{self.server.address}/{name}"})
        name = "/".join(self.path.split("/")[3:5])
        if "/preupload/" in self.path:
            files = json.loads(body)["files"]
            told = {"uploadMode": "regular", "shouldIgnore": False}
            return self.answer({"files": [{"path": each["path"], **told} for each in files]})
        if "/commit/" in self.path:
            for line in body.decode().splitlines():
                entry = json.loads(line)
                if entry["key"] == "file":
                    content = base64.b64decode(entry["value"]["content"])
                    self.server.repositories[name][entry["value"]["path"]] = content
            return self.answer(
                {"commitUrl": f"{self.server.address}/{name}/commit/a", "commitOid": "a" * 40, "success": True}
            )
        return self.missing()


def oid(body: bytes) -> str:
    return hashlib.sha1(body).hexdigest()


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    import huggingface_hub.constants as constants

    server = Hub()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setattr(constants, "ENDPOINT", server.address)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.address + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_TOKEN", "hf_nobody")
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(scope="module")
def model(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("shared") / "model"
    assert export([f"run={trained}", f"out={out}", "licence=mit"]) == 0
    return out


def test_there_and_back(hub: Hub, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    film = tmp_path / "final.mp4"
    film.write_bytes(b"moving pictures")
    assert push(model, "me/quick", film).endswith("me/quick")
    assert hub.repositories["me/quick"]["episode.mp4"] == b"moving pictures"
    hub.repositories["me/quick"]["extra.py"] = b"raise SystemExit"
    assert evaluate(["run=hub:me/quick", "episodes=1"]) == 0
    folder = tmp_path / "runs" / "hub-me--quick"
    assert (folder / "model.safetensors").read_bytes() == (model / "model.safetensors").read_bytes()
    assert not (folder / "extra.py").exists()
    assert len(list((folder / "evaluations").glob("*.json"))) == 1
    hub.up = False  # what was fetched before is enough
    load_actor("hub:me/quick")


def test_a_name_with_dashes_is_not_another_one_s(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    hub.repositories["me/walker-walk"] = {"config.yaml": b"one", "model.safetensors": b"one"}
    hub.repositories["me-walker/walk"] = {"config.yaml": b"other", "model.safetensors": b"other"}
    assert (locate("hub:me/walker-walk").folder / "config.yaml").read_bytes() == b"one"
    hub.up = False
    with pytest.raises(UserError, match="the hub cannot be reached or refuses"):
        locate("hub:me-walker/walk")


def test_a_pull_is_whole_or_what_was_there_before(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, first = tmp_path / "quick", {"config.yaml": b"1", "model.safetensors": b"1", "evaluation.json": b"1"}
    hub.repositories["me/quick"] = first
    pull("me/quick", folder)
    (folder / "evaluations").mkdir()
    hub.repositories["me/quick"] = {"config.yaml": b"2", "model.safetensors": b"2"}
    fetch = huggingface_hub.snapshot_download

    def cut(name: str, local_dir: Path, **rest: object) -> None:
        fetch(name, local_dir=local_dir, allow_patterns=["config.yaml"])
        raise ConnectionError("cut")

    with monkeypatch.context() as patch:
        patch.setattr(huggingface_hub, "snapshot_download", cut)
        assert pull("me/quick", folder) == folder
    assert {name: (folder / name).read_bytes() for name in first} == first
    pull("me/quick", folder)
    assert (folder / "model.safetensors").read_bytes() == b"2"
    assert sorted(path.name for path in folder.iterdir()) == ["config.yaml", "evaluations", "model.safetensors"]
    assert [path.name for path in tmp_path.iterdir()] == ["quick"]


def test_export_pushes(hub: Hub, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert export([f"run={trained}", f"out={tmp_path / 'm'}", "licence=mit", "push=hub:me/other"]) == 0
    assert f"{hub.address}/me/other" in capsys.readouterr().out
    header = yaml.safe_load(hub.repositories["me/other"]["README.md"].decode().split("---")[1])
    assert header["license"] == "mit"
    (result,) = header["model-index"][0]["results"]
    assert result["dataset"]["name"] == "dmc/cartpole_swingup"
    assert result["metrics"][0]["type"] == "mean_reward"


def test_what_the_hub_does_not_have(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"run=hub:me/none: there is no such model.*HF_TOKEN"):
        pull("me/none", tmp_path / "none")
    with pytest.raises(UserError, match="expected hub:USER/NAME"):
        pull("none", tmp_path / "none")
    hub.repositories["me/empty"] = {"README.md": b"nothing"}
    with pytest.raises(UserError, match=r"holds no config\.yaml and model\.safetensors"):
        pull("me/empty", tmp_path / "empty")


def test_a_hub_that_cannot_be_reached(hub: Hub, model: Path, tmp_path: Path) -> None:
    hub.up = False
    with pytest.raises(UserError, match="the hub cannot be reached or refuses"):
        pull("me/quick", tmp_path / "quick")


def test_a_name_that_the_zoo_has_not(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "walker_walk").mkdir()
    (tmp_path / "walker_walk" / "config.yaml").touch()
    monkeypatch.setattr(sources, "ZOO", tmp_path)
    assert zoo() == ["walker_walk"]
    with pytest.raises(UserError, match=r"run=zoo:walker_wlak: no such model ships.*type run=zoo:walker_walk"):
        locate("zoo:walker_wlak")
    assert locate("zoo:walker_walk").run.path == Path("runs/zoo-walker_walk")


def test_what_the_zoo_has_plays_and_writes_beside_the_users_runs(
    model: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sources, "ZOO", model.parent)
    assert evaluate(["run=zoo:model", "episodes=1"]) == 0
    assert len(list((tmp_path / "runs" / "zoo-model" / "evaluations").glob("*.json"))) == 1
    assert not (model / "evaluations").exists()
