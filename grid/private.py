"""Ray's token, which only its user may read, and files of the machine that any user could have put there."""

from __future__ import annotations

import logging
import os
import secrets
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

from grid.settings import ClusterError

log = logging.getLogger(__name__)


def token_file() -> Path | None:
    """The file that Ray reads its token from; None where it takes the token from a variable, or none at all."""
    if os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_MODE", "token").lower() != "token":
        return None
    return Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")


def keep_token_private() -> None:
    """For a Ray of this machine: make the token where there is none, and close it to others, with a warning.

    Ray itself makes the file with the mode that the umask leaves, which mostly lets everybody read it.

    Raises:
        ClusterError: the file cannot be made or closed.
    """
    path = token_file()
    if path is None:
        return
    try:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            number, name = tempfile.mkstemp(dir=path.parent)  # mode 0600
            with os.fdopen(number, "w") as file:
                file.write(secrets.token_hex(32))
            with suppress(FileExistsError):  # another launch was faster
                os.link(name, path)
            Path(name).unlink()
        if stat.S_IMODE(path.stat().st_mode) & 0o077:
            path.chmod(0o600)
            log.warning("others could read %s, the key to your Ray; the file is closed to them now", path)
    except OSError as error:
        raise ClusterError(f"{path}, the key to your Ray, cannot be kept private: {error}") from error


def check_token_is_private() -> None:
    """Raise `ClusterError` if others can read the token: whoever has it can run programs on the whole cluster."""
    path = token_file()
    if path is None or not path.is_file():
        return
    facts = path.stat()
    if facts.st_uid not in (os.getuid(), 0):
        raise ClusterError(f"{path}, the key to the cluster, belongs to another user: remove it, and make a new one")
    if stat.S_IMODE(facts.st_mode) & 0o077:
        raise ClusterError(f"others can read {path}, the key to the cluster: chmod 600 {path}")


def read_own(path: Path) -> str | None:
    """The text of a file in a folder that all users may write to; None where there is no file.

    Raises:
        ClusterError: the file is a link or of another kind, or belongs to a user who is neither this one nor root.
    """
    try:
        number = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    except OSError as error:  # a link, or a file that this user may not read
        raise ClusterError(f"{path} is not trusted ({error.strerror}): remove it, and start Ray again") from error
    with os.fdopen(number) as file:
        facts = os.fstat(number)
        if not stat.S_ISREG(facts.st_mode) or facts.st_uid not in (os.getuid(), 0):
            raise ClusterError(
                f"{path} belongs to another user, who could have put any address there, so it is not trusted: "
                "remove it, and start Ray again"
            )
        return file.read()
