"""Arrays in `.npy` files that may be damaged."""

from __future__ import annotations

import tokenize
from pathlib import Path
from typing import Any, Literal

import numpy as np

# What NumPy raises for a header that is cut or changed. It reads the header as Python's syntax.
_DAMAGE = (ValueError, EOFError, SyntaxError, tokenize.TokenError, TypeError, KeyError, OverflowError, MemoryError)


def load_array(file: Path, *, mmap_mode: Literal["r"] | None = None) -> np.ndarray[Any, Any]:
    """Read the array of a `.npy` file, and run no code that may be in it.

    Args:
        file: the file.
        mmap_mode: "r": map the file into memory, read-only; None: read it.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is damaged, holds Python objects, or is another kind of file.
    """
    try:
        with file.open("rb") as opened:
            if opened.read(6) != b"\x93NUMPY":  # NumPy would also read archives and pickles
                raise ValueError("it is no .npy file")
        array: np.ndarray[Any, Any] = np.load(file, mmap_mode=mmap_mode, allow_pickle=False)
    except _DAMAGE as error:
        raise ValueError(f"{file.name} is damaged: {error}") from error
    return array
