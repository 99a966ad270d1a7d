"""`launch.py fetch-weights`, with servers of this machine in the place of the hubs."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import launch
from models.backbones import sam
from models.hubs import HubFile
from models.registry import detector_info

ROOT = Path(__file__).resolve().parents[2]
CONTENT = b"weights of SAM" * 1000
DIGEST = hashlib.sha256(CONTENT).hexdigest()
SAM = ["fetch-weights", "dolos", "--methods", "sam_linear"]


class Server:
    """Serves files over HTTP on loopback, and counts what it was asked for.

    Attributes:
        files: path -> content.
        cut: paths whose connection ends in the middle of the content.
        asked: (method, path), in order.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.cut: set[str] = set()
        self.claimed: dict[str, int] = {}  # sizes that HEAD tells, where they are not the true ones
        self.asked: list[tuple[str, str]] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                self.answer(body=False)

            def do_GET(self) -> None:
                self.answer(body=True)

            def answer(self, *, body: bool) -> None:
                server.asked.append((self.command, self.path))
                content = server.files.get(self.path)
                self.send_response(404 if content is None else 200)
                content = content or b""
                self.send_header("Content-Length", str(server.claimed.get(self.path, len(content))))
                self.send_header("X-Repo-Commit", "a" * 40)
                self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
                self.end_headers()
                if body:
                    self.wfile.write(content[: len(content) // 2] if self.path in server.cut else content)

            def log_message(self, *words: Any) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self._http.server_port}"
        threading.Thread(target=self._http.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Server]:
    served = Server()
    served.files[f"/sam/sam_vit_b_{DIGEST[:6]}.pth"] = CONTENT
    monkeypatch.setattr(sam, "URL", f"{served.address}/sam/")
    monkeypatch.setitem(sam.FILES, "vit_b", f"sam_vit_b_{DIGEST[:6]}.pth")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.delenv("TRANSFORMERS_OFFLINE", raising=False)
    yield served
    served.close()


def gets(server: Server) -> list[str]:
    return [path for method, path in server.asked if method == "GET"]


def checkpoint(folder: Path) -> Path:
    return folder / "torch" / "hub" / "checkpoints" / f"sam_vit_b_{DIGEST[:6]}.pth"


def test_a_file_is_fetched_once_and_listed(server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "my weights"
    assert launch.main([*SAM, "--to", str(folder)]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert checkpoint(folder).read_bytes() == CONTENT
    name = checkpoint(folder).relative_to(folder).as_posix()
    assert (folder / "checksums.sha256").read_text() == f"{DIGEST}  {name}\n"
    assert f"export HF_HUB_CACHE='{folder / 'huggingface'}'" in said.out
    assert f"export TORCH_HOME='{folder / 'torch'}'" in said.out
    assert "clusters/environment.sh" in said.out
    done = subprocess.run(
        ["sha256sum", "-c", "checksums.sha256"], cwd=folder, capture_output=True, text=True, check=True
    )
    assert done.stdout == f"{name}: OK\n"

    server.asked.clear()
    assert launch.main([*SAM, "--to", str(folder)]) == 0
    assert server.asked == []
    assert launch.main([*SAM, "--to", str(folder), "--check"]) == 0
    assert server.asked == []


def test_a_launch_finds_the_file_by_the_variable(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from models.backbones import published_files

    assert launch.main([*SAM, "--to", str(tmp_path / "weights"), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["files"] == [{"file": f"{server.address}/sam/sam_vit_b_{DIGEST[:6]}.pth", "methods": ["sam_linear"]}]
    assert list(report["checksums"].values()) == [DIGEST]
    (file,) = published_files("sam", "vit_b", "hub")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "elsewhere"))
    assert file.cached() is None
    for name, value in report["variables"].items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    server.asked.clear()
    assert file.fetch() == checkpoint(tmp_path / "weights")
    assert server.asked == []


@pytest.mark.parametrize("large", [True, False])
def test_without_links_the_server_is_asked_for_the_digest(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, large: bool
) -> None:
    """Where a disk has no links, Hugging Face's cache holds the file itself under its own name."""
    digest = DIGEST if large else "0" * 40  # a small file has a digest of git
    asked: list[str] = []

    def metadata(url: str, *, timeout: float) -> SimpleNamespace:
        asked.append(url)
        return SimpleNamespace(size=len(CONTENT), etag=digest)

    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", metadata)
    file = HubFile("a model", "owner/name@v1", ("model.safetensors",))
    path = tmp_path / "model.safetensors"
    path.write_bytes(CONTENT)
    assert file.digest(path) == (DIGEST if large else "")
    assert [url.endswith("/owner/name/resolve/v1/model.safetensors") for url in asked] == [True]
    (tmp_path / DIGEST).write_bytes(CONTENT)
    path.unlink()
    path.symlink_to(tmp_path / DIGEST)
    assert file.digest(path) == DIGEST
    assert len(asked) == 1


def test_a_connection_that_breaks_off_leaves_no_file(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = f"/sam/sam_vit_b_{DIGEST[:6]}.pth"
    server.cut.add(path)
    assert launch.main([*SAM, "--to", str(tmp_path)]) == 2
    assert f"connection ended after {len(CONTENT) // 2:,} of {len(CONTENT):,} bytes" in capsys.readouterr().out
    assert [entry for entry in tmp_path.rglob("*") if entry.is_file()] == []
    server.cut.clear()
    assert launch.main([*SAM, "--to", str(tmp_path)]) == 0
    assert checkpoint(tmp_path).read_bytes() == CONTENT


def test_another_content_is_refused(server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    server.files[f"/sam/sam_vit_b_{DIGEST[:6]}.pth"] = b"a web page"
    assert launch.main([*SAM, "--to", str(tmp_path)]) == 2
    assert "another hash than the published file" in capsys.readouterr().out
    assert [entry for entry in tmp_path.rglob("*") if entry.is_file()] == []


def test_too_little_space_is_said_before_anything_is_fetched(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.claimed[f"/sam/sam_vit_b_{DIGEST[:6]}.pth"] = 10**18
    assert launch.main([*SAM, "--to", str(tmp_path)]) == 2
    assert "the missing files take 1000000000.0 GB" in capsys.readouterr().out
    assert gets(server) == []


@pytest.mark.parametrize("variable", ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
def test_offline_mode_asks_no_server(
    server: Server, tmp_path: Path, variable: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(variable, "1")
    assert launch.main([*SAM, "--to", str(tmp_path)]) == 2
    assert f"unset {variable}" in capsys.readouterr().out
    assert server.asked == []


def test_check_names_each_kind_of_damage(server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = [*SAM, "--to", str(tmp_path), "--check", "--json"]

    def problems() -> list[str]:
        assert launch.main(command) == 2
        return list(json.loads(capsys.readouterr().out)["problems"])

    no_list, missing = problems()
    assert no_list.startswith("there is no checksums.sha256")
    assert missing.startswith(f"{server.address}/sam/sam_vit_b_{DIGEST[:6]}.pth is missing, for sam_linear")
    assert launch.main([*SAM, "--to", str(tmp_path)]) == 0
    capsys.readouterr()
    name = checkpoint(tmp_path).relative_to(tmp_path).as_posix()
    checkpoint(tmp_path).write_bytes(CONTENT[:-1] + b"?")
    assert problems() == [
        f"{name} has another content than checksums.sha256 says: delete it, and run the same without --check"
    ]
    checkpoint(tmp_path).with_name("further.pth").write_bytes(b"?")
    assert (
        problems()[1] == f"{name.replace(checkpoint(tmp_path).name, 'further.pth')} is not listed in checksums.sha256: "
        "run the same without --check"
    )
    checkpoint(tmp_path).with_name("further.pth").unlink()
    checkpoint(tmp_path).unlink()
    assert launch.main([*SAM, "--to", str(tmp_path)]) == 0  # the remedy ends well
    assert launch.main(command) == 0
    capsys.readouterr()
    checkpoint(tmp_path).unlink()
    assert problems()[0] == f"{name} is listed in checksums.sha256, and missing"
    (tmp_path / "checksums.sha256").write_text("no list")
    assert launch.main(command) == 2
    assert "is damaged at 'no list'" in capsys.readouterr().out


def test_methods_without_weights_need_nothing(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert launch.main(["fetch-weights", "demo", "--methods", "residual_linear,npr", "--to", str(tmp_path)]) == 0
    assert "no file of a hub is needed by residual_linear, npr" in capsys.readouterr().out
    assert not (tmp_path / "checksums.sha256").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--methods", "sam_linear", "--weights", "sam_linear=hub:tag"], "SAM's weights have no tags"),
        (["--methods", "sam_linear", "--set", "sam_linear.backbone=vit_x"], "SAM has no encoder 'vit_x'"),
        (["--methods", "clip_liner"], "did you mean 'clip_linear'"),
        (["--check"], "is no folder"),
    ],
)
def test_mistakes(
    server: Server, tmp_path: Path, words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert launch.main(["fetch-weights", "dolos", "--to", str(tmp_path / "new"), *words]) == 2
    assert said in capsys.readouterr().out
    assert not (tmp_path / "new").exists()


@pytest.mark.slow
@pytest.mark.long
def test_a_repository_of_hugging_face(server: Server, tmp_path: Path) -> None:
    """In a process of its own, because huggingface_hub reads its variables when it is imported."""
    content = b"tensors" * 100
    server.files["/timm/test_resnet.r160_in1k/resolve/main/model.safetensors"] = content
    environment = {**os.environ, "HF_ENDPOINT": server.address, "HF_HOME": str(tmp_path / "home")}
    command = [sys.executable, "launch.py", "fetch-weights", "demo", "--methods", "timm_linear", "--json"]
    command += [
        "--set",
        "timm_linear.backbone=test_resnet",
        "--weights",
        "timm_linear=hub",
        "--to",
        str(tmp_path / "w"),
    ]

    def run(*words: str) -> dict[str, Any]:
        done = subprocess.run([*command, *words], cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
        return dict(json.loads(done.stdout))

    sums = run()["checksums"]
    snapshot = f"huggingface/models--timm--test_resnet.r160_in1k/snapshots/{'a' * 40}/model.safetensors"
    assert sums[snapshot] == hashlib.sha256(content).hexdigest()
    reference = "huggingface/models--timm--test_resnet.r160_in1k/refs/main"
    assert sums == {
        snapshot: hashlib.sha256(content).hexdigest(), reference: hashlib.sha256(b"a" * 40).hexdigest()
    }  # fmt: skip
    assert not (tmp_path / "home" / "hub").exists()
    server.asked.clear()
    again = run("--check")
    assert (again["problems"], again["checksums"]) == ([], sums)
    assert server.asked == []


def test_every_method_with_weights_says_what_it_loads() -> None:
    import dataclasses

    from models.registry import list_detectors

    for name in list_detectors():
        info = detector_info(name)
        fields = {field.name for field in dataclasses.fields(info.config)}
        assert (info.pretrained is not None) == any(field.endswith("weights") for field in fields), name
        if info.pretrained is not None:
            loaded = {(backbone, weights) for _, backbone, weights in info.pretrained(info.config)}
            setting = "backbone_weights" if "backbone_weights" in fields else "weights"
            assert loaded == {(info.config.backbone, getattr(info.config, setting))}
