"""`python -m analysis explore` on the command line: one address, one way to end, mistakes in one line."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.cookiejar import CookieJar
from pathlib import Path

import pytest

from analysis.__main__ import main
from analysis.store import Store

ROOT = Path(__file__).resolve().parents[3]


@contextmanager
def started(*options: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "analysis", "explore", "--no-browser", *options]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def test_it_prints_one_address_and_ends_in_order(tracked: Store) -> None:
    with started("--port", "0", "--tracking-uri", tracked.tracking_uri) as process:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/\?token=[\w-]{43}", address)
        browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(CookieJar()))
        browser.open(address, timeout=60).close()
        with browser.open(address.partition("?")[0], timeout=60) as answer:
            assert b"<!doctype html>" in answer.read()
        with browser.open(address.partition("?")[0] + "api/grid", timeout=60) as answer:
            grid = json.load(answer)
        assert grid["experiment"] == "dolos"
        run = grid["attribution"][0]["runs"][0]["id"]  # whose points are then being computed
        with browser.open(address.partition("?")[0] + f"api/points/{run}", timeout=60) as answer:
            assert json.load(answer)["run"] == run
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
        assert (process.returncode, out, err) == (0, "", "")


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.0.1", "example.org", "::"])
def test_only_this_machine_may_be_listened_on(host: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["explore", "--host", host])
    assert end.value.code == 2
    assert f"--host {host}: only this machine itself" in capsys.readouterr().err


def test_a_taken_port_is_said_with_the_remedy(tracked: Store, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        assert main(["explore", "--no-browser", "--port", str(port), "--tracking-uri", tracked.tracking_uri]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert f"--port {port}: nothing can listen there" in said.err
    assert "--port 0 takes any free port" in said.err


def test_a_store_without_runs_is_said_with_the_remedy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explore", "--no-browser", "--tracking-uri", f"sqlite:///{tmp_path / 'none.db'}"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert "no MLflow store at" in said.err
    assert "`python launch.py` writes one" in said.err
    assert list(tmp_path.iterdir()) == []


def test_an_empty_store_is_said_with_the_remedy(store: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explore", "--no-browser", "--tracking-uri", store]) == 2
    assert "holds a grid" in capsys.readouterr().err


def test_help_is_quick_because_it_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom analysis.__main__ import main\n"
        "try: main(['explore', '--help'])\n"
        "except SystemExit as end: print('status', end.code)\n"
        "print('heavy', sorted({'torch', 'mlflow', 'pandas', 'sklearn', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "status 0\nheavy []" in done.stdout
