"""Faults of a machine, in one line with the remedy, and what is left of an error that nobody expected."""

from __future__ import annotations

import errno
import logging
import os
import re
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from data.addresses import without_passwords

log = logging.getLogger(__name__)

FOLDERS = "--runs and --cache"
GOES_ON = "the same command goes on from the last checkpoints"

_WRITE_PROTECTED = ("readonly database", "unable to open database file")  # what SQLite says


class FaultError(RuntimeError):
    """The machine failed, not the trial: a full disk, a deleted cache, a locked store. One line, with the remedy."""


def in_one_line(error: BaseException) -> str:
    """What an error says, on one line, without SQL statements and passwords."""
    said = str(error).partition("\n[SQL:")[0].partition("\n(Background on this error")[0]
    said = re.sub(r"\(raised as a result of [^)]*\)", "", said)  # SQLAlchemy's words on its own workings
    return without_passwords(" ".join(said.split()))[:2000] or type(error).__name__


def fault(error: BaseException, *, cache: Path | None = None, where: str = FOLDERS) -> str | None:
    """One line about the fault of a machine that caused an error, with the remedy; None for any other error.

    Args:
        error: with its causes.
        cache: the grid's cache, which may be deleted while the grid runs.
        where: options that choose the folders; "": none do.
    """
    again = GOES_ON if where else "then give the same command again"
    for cause in _causes(error):
        said, number = in_one_line(cause), cause.errno if isinstance(cause, OSError) else None
        if isinstance(cause, FaultError):
            return said
        if number in (errno.ENOSPC, errno.EDQUOT) or "disk is full" in said:
            choice = f"where {where} are" if where else "there"
            return f"a disk is full: {said}. Make space {choice}; {again}"
        if number == errno.EROFS or any(words in said for words in _WRITE_PROTECTED):
            choice = f" ({where} choose the folders)" if where else ""
            return f"a folder cannot be written to any more: {said}. Make it writable again{choice}; {again}"
        if number in (errno.EACCES, errno.EPERM):
            return f"permission is denied: {said}. Give this user the permission; {again}"
        if message := locked_store(cause, then=again):
            return message
        if cache is not None and isinstance(cause, FileNotFoundError) and not _is_whole(cache, cause):
            return (
                f"the cache {cache}, or a part of it, was deleted while the grid ran: {said}. "
                "The same command makes it again, and goes on from the last checkpoints"
            )
    return None


def locked_store(
    error: BaseException, *, store: str = "", then: str = "then give the same command again"
) -> str | None:
    """The one message about an MLflow store that another program has locked; None for any other error.

    Args:
        error: without its causes.
        store: its file or address, without a password; "": not known.
        then: what to do after that program has ended.
    """
    said = in_one_line(error)
    if "locked" not in said or "database" not in said:
        return None
    place = f" {store}" if store else ""
    return f"another program has locked the MLflow store{place}: {said}. End that program; {then}"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error, what caused it, and so on; not what `raise ... from None` says is no cause."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _is_whole(cache: Path, error: FileNotFoundError) -> bool:
    """Whether the missing file is not one of the cache, and the cache is there."""
    missing = Path(os.fsdecode(error.filename)).absolute() if error.filename else None
    return cache.exists() and (missing is None or not missing.is_relative_to(cache.absolute()))


def keep_traceback(error: BaseException) -> str:
    """Write the traceback of an error that nobody expected to a new file in the temporary folder.

    Returns:
        one line for the user: what happened, and where the traceback is. Where no file can be written, the traceback
        follows in further lines.
    """
    text = without_passwords("".join(traceback.format_exception(error)))
    said = f"an error that this program does not expect: {type(error).__name__}: {in_one_line(error)}"
    with suppress(OSError):
        number, name = tempfile.mkstemp(prefix="inpaint-grid-", suffix=".log")  # which only this user can read
        os.close(number)
        Path(name).write_text(text, encoding="utf-8", errors="replace")
        return f"{said}. The traceback is in {name}"
    return f"{said}\n{text}"


@contextmanager
def only_warned(what: str) -> Iterator[None]:
    """Turn an error into a warning that begins with `what`: around what only shows results that are kept elsewhere."""
    try:
        yield
    except Exception as error:  # no trial or grid is lost for it, whatever it is
        log.warning("%s: %s: %s", what, type(error).__name__, error)
