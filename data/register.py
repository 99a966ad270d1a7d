"""Registers: one file per entry, looked up by name.

`models/register.py` is the same file: `models` and `data` must not import each other.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")


class Register(Generic[T]):
    """The entries of a package, one module per entry. The first look-up imports the modules.

    A module whose name begins with an underscore holds code that several entries share. It is not imported.

    Args:
        kind: what an entry is, for messages, such as "source".
        package: the package whose modules register themselves.
    """

    def __init__(self, kind: str, package: str) -> None:
        self._kind, self._package = kind, package
        self._entries: dict[str, T] = {}
        self._complete = False

    def add(self, name: str, entry: T) -> None:
        """Register an entry. Raises `ValueError` if the name is taken."""
        if name in self._entries:
            article = "an" if self._kind[0] in "aeiou" else "a"
            raise ValueError(f"{article} {self._kind} named {name!r} is registered already")
        self._entries[name] = entry

    def register(self, name: str) -> Callable[[T], T]:
        """Register the decorated function under `name`. Raises `ValueError` if the name is taken."""

        def decorate(entry: T) -> T:
            self.add(name, entry)
            return entry

        return decorate

    def names(self) -> list[str]:
        """All names, in alphabetical order."""
        if not self._complete:
            package = importlib.import_module(self._package)
            for module in pkgutil.iter_modules(package.__path__):
                if not module.name.startswith("_"):
                    importlib.import_module(f"{self._package}.{module.name}")
            self._complete = True
        return sorted(self._entries)

    def get(self, name: str) -> T:
        """Look an entry up. Raises `KeyError`, which lists all names and suggests a similar name."""
        if not self._complete or name not in self._entries:
            names = self.names()  # imports the modules
            if name not in self._entries:
                raise no_entry(self._kind, name, names)
        return self._entries[name]


def no_entry(kind: str, name: str, names: Sequence[str], *, near: str = "") -> KeyError:
    """The error of a failed look-up: it lists all names and suggests `near`, or else a similar name of the list."""
    hint = f" (did you mean {near!r}?)" if near else did_you_mean(name, names)
    return KeyError(f"no {kind} named {name!r}{hint}; there are: {', '.join(names)}")


def did_you_mean(name: str, names: Sequence[str]) -> str:
    """A similar name, to stand in a message behind an unknown one; "" if there is none."""
    begins = [other for other in names if len(name) > 2 and other.startswith(name)]
    near = begins or difflib.get_close_matches(name, names, n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""
