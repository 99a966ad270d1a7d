"""Where and how exactly a detector computes: the device, and the precision on it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch

_TF32_CAPABILITY = (8, 0)  # NVIDIA Ampere; older GPUs have no TF32


@dataclass(frozen=True)
class Compute:
    """A device, and the precision of what a network computes there.

    Attributes:
        device: the torch device.
        dtype: float32; or the 16-bit type of autocast, which keeps 32 bits where torch considers 16 unsafe.
        tf32: whether products of 32-bit numbers round their factors to TF32, which keeps 10 bits of the mantissa.
    """

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    dtype: torch.dtype = torch.float32
    tf32: bool = False

    @property
    def is_mixed(self) -> bool:
        """Whether autocast computes in 16 bits."""
        return self.dtype is not torch.float32

    @property
    def key(self) -> str:
        """Names what changes the third digit of a feature: "bf16", "fp16", "tf32", or "" for full precision."""
        names = {torch.bfloat16: "bf16", torch.float16: "fp16"}
        return names.get(self.dtype, "tf32" if self.tf32 else "")

    def autocast(self) -> torch.autocast:
        """The context of a forward pass."""
        return torch.autocast(self.device.type, dtype=self.dtype if self.is_mixed else None, enabled=self.is_mixed)

    @contextmanager
    def exactly(self, *, deterministic: bool = False) -> Iterator[None]:
        """Compute with TF32 only where this precision allows it: torch's default rounds convolutions on newer GPUs.

        Args:
            deterministic: use only deterministic algorithms of cuDNN.
        """
        before = torch.backends.cuda.matmul.allow_tf32
        torch.backends.cuda.matmul.allow_tf32 = self.tf32
        try:
            with torch.backends.cudnn.flags(
                enabled=True, deterministic=deterministic, allow_tf32=self.tf32 or self.is_mixed
            ):
                yield
        finally:
            torch.backends.cuda.matmul.allow_tf32 = before


def compute_on(device: str | torch.device, precision: str) -> Compute:
    """How to compute on a device with a method's setting `precision`; see `models.configs`.

    A CPU always computes in 32 bits. "mixed" is bfloat16 where the GPU has it (not where torch emulates it, as on a
    T4), else float16. "tf32" is full precision on a GPU without TF32.
    """
    device = torch.device(device)
    if device.type != "cuda" or precision == "full":
        return Compute(device)
    if precision == "tf32":
        return Compute(device, tf32=torch.cuda.get_device_capability(device) >= _TF32_CAPABILITY)
    has_bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
    return Compute(device, torch.bfloat16 if has_bf16 else torch.float16)
