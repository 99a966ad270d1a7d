"""The token of Ray, and files that any user of the machine could have written."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
import ray

from grid import cluster
from grid.private import check_token_is_private, keep_token_private, read_own
from grid.settings import ClusterError


@pytest.fixture
def token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the token of this test's own home is; nothing is there yet."""
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path / ".ray" / "auth_token"


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_token_is_made_for_its_user_alone_and_stays_what_it_is(token: Path) -> None:
    keep_token_private()
    made = token.read_text()
    assert len(made) == 64
    assert mode(token) == 0o600
    keep_token_private()
    assert token.read_text() == made
    assert [path.name for path in token.parent.iterdir()] == ["auth_token"]


def test_a_token_that_others_could_read_is_closed_to_them_with_a_warning(
    token: Path, caplog: pytest.LogCaptureFixture
) -> None:
    token.parent.mkdir()
    token.write_text("abc")
    token.chmod(0o644)  # as Ray makes it
    keep_token_private()
    assert (mode(token), token.read_text()) == (0o600, "abc")
    assert f"others could read {token}" in caplog.text


@pytest.mark.parametrize("variable", [{"RAY_AUTH_TOKEN": "abc"}, {"RAY_AUTH_MODE": "disabled"}])
def test_without_a_file_none_is_made(token: Path, variable: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in variable.items():
        monkeypatch.setenv(name, value)
    keep_token_private()
    check_token_is_private()
    assert not token.exists()


def test_the_file_may_be_elsewhere(token: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / "other"
    other.write_text("abc")
    other.chmod(0o640)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(other))
    with pytest.raises(ClusterError, match=f"chmod 600 {other}"):
        check_token_is_private()


def test_a_home_that_cannot_be_written_is_told(token: Path) -> None:
    token.parent.write_text("a file where the folder would be")
    with pytest.raises(ClusterError, match="cannot be kept private"):
        keep_token_private()


def test_no_cluster_is_joined_with_a_token_that_others_can_read(token: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    joined = []
    monkeypatch.setattr(ray, "init", lambda **options: joined.append(options["address"]))
    keep_token_private()
    cluster.connect(address="10.0.0.1:6379")
    token.chmod(0o644)
    with pytest.raises(ClusterError, match=f"others can read {token}.*: chmod 600 {token}"):
        cluster.connect(address="10.0.0.1:6379")
    assert joined == ["10.0.0.1:6379"]


def test_a_ray_of_ones_own_has_a_token_that_nobody_else_can_read(token: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    modes = []
    monkeypatch.setattr(ray, "init", lambda **options: modes.append(mode(token)))
    cluster.connect()
    assert modes == [0o600]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")
@pytest.mark.parametrize("kind", ["token", "address"])
def test_what_belongs_to_another_user_is_not_trusted(token: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    keep_token_private()
    os.chown(token, 12345, 12345)
    with pytest.raises(ClusterError, match="another user"):
        check_token_is_private() if kind == "token" else read_own(token)


def test_a_link_or_a_pipe_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("10.6.6.6:6379")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "pipe"):
        with pytest.raises(ClusterError, match=f"{tmp_path / name} .*not trusted.*remove it"):
            read_own(tmp_path / name)
    assert read_own(tmp_path / "real") == "10.6.6.6:6379"
    assert read_own(tmp_path / "none") is None
