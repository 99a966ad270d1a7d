"""The precision on a device, with stand-ins for GPUs."""

from __future__ import annotations

import pytest
import torch

from models.compute import Compute, compute_on

CARDS = {"T4": (7, 5), "A10G": (8, 6), "H100": (9, 0)}


@pytest.mark.parametrize(
    ("card", "precision", "dtype", "tf32", "key"),
    [
        ("T4", "full", torch.float32, False, ""),
        ("T4", "tf32", torch.float32, False, ""),  # it has no TF32
        ("T4", "mixed", torch.float16, False, "fp16"),  # torch emulates bfloat16 there
        ("A10G", "tf32", torch.float32, True, "tf32"),
        ("A10G", "mixed", torch.bfloat16, False, "bf16"),
        ("H100", "full", torch.float32, False, ""),
        ("H100", "tf32", torch.float32, True, "tf32"),
        ("H100", "mixed", torch.bfloat16, False, "bf16"),
    ],
)
def test_the_precision_of_a_card(
    monkeypatch: pytest.MonkeyPatch, card: str, precision: str, dtype: torch.dtype, tf32: bool, key: str
) -> None:
    capability = CARDS[card]
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *, including_emulation: capability >= (8, 0))
    compute = compute_on("cuda", precision)
    assert (compute.device, compute.dtype, compute.tf32) == (torch.device("cuda"), dtype, tf32)
    assert compute.key == key
    assert compute.is_mixed == (key in ("bf16", "fp16"))


@pytest.mark.parametrize("precision", ["full", "tf32", "mixed"])
def test_a_cpu_computes_in_32_bits(precision: str) -> None:
    compute = compute_on("cpu", precision)
    assert compute == Compute()
    assert compute.key == ""


@pytest.mark.parametrize(
    ("compute", "products", "convolutions"),
    [(Compute(), False, False), (Compute(tf32=True), True, True), (Compute(dtype=torch.bfloat16), False, True)],
)
def test_tf32_is_on_only_inside_and_only_where_allowed(compute: Compute, products: bool, convolutions: bool) -> None:
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    with compute.exactly(deterministic=True):
        assert torch.backends.cuda.matmul.allow_tf32 == products
        assert torch.backends.cudnn.allow_tf32 == convolutions
        assert torch.backends.cudnn.deterministic
    assert (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32) == before
    assert not torch.backends.cudnn.deterministic
