"""Nothing in these tests may reach a network, whether or not there is one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import socket

    import huggingface_hub

    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError("[Errno -2] Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *args, **kwargs: None)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))


@pytest.fixture
def photograph() -> np.ndarray:
    """Uint8 (120, 200, 3): a picture with structure, wider than high."""
    rows, columns = np.mgrid[:120, :200]
    picture = np.stack([rows * 2, columns, (rows * columns) % 251], axis=-1)
    return np.clip(picture, 0, 255).astype(np.uint8)
