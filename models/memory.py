"""Handling of exhausted device memory: the same work in smaller pieces, or an error with a remedy."""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch
from torch import nn

from models.detector import MemoryExhausted

log = logging.getLogger(__name__)

# What CUDA's libraries say when they get no memory for themselves. torch.OutOfMemoryError is torch's own allocator.
_SIGNS = ("out of memory", "unable to find an engine", "cudnn_status_alloc_failed", "cublas_status_alloc_failed")
_AMBIGUOUS = "cublas_status_not_initialized"  # also said when a driver is broken
_SHORT = 1 << 30  # bytes; with less free memory on the card, `_AMBIGUOUS` counts as exhaustion
REMEDY = (
    "give each trial more of a GPU (--gpus-per-trial), choose a smaller size or backbone, or compute on the CPU "
    "(--device cpu)"
)


def fits(compute: Callable[[], None]) -> bool:
    """Call `compute`. Returns False if the device's memory ran out; then the call's memory is free again.

    Raises:
        Exception: any other error of `compute`.
    """
    try:
        compute()
    except RuntimeError as error:
        if not is_exhaustion(error):
            raise
    else:
        return True
    # Not inside the handler: there the error's traceback still holds the call's frames, which hold its tensors.
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    return False


def is_exhaustion(error: RuntimeError) -> bool:
    """Whether the error says that the device's memory ran out, in torch's words or in those of CUDA's libraries."""
    text = str(error).lower()
    if isinstance(error, torch.OutOfMemoryError) or any(sign in text for sign in _SIGNS):
        return True
    return _AMBIGUOUS in text and torch.cuda.is_available() and torch.cuda.mem_get_info()[0] < _SHORT


def in_batches(compute: Callable[[slice], None], num_rows: int, batch_size: int) -> int:
    """Call `compute` on slices that cover all rows in order. Whenever memory runs out, slices become half as long.

    For inference, where a row's result depends on its batch only by rounding.

    Returns:
        the final number of rows per slice: at most `batch_size`, at least 1.

    Raises:
        MemoryExhausted: not even one row fits.
    """
    start = 0
    while start < num_rows:
        part = slice(start, min(start + batch_size, num_rows))
        if fits(lambda part=part: compute(part)):  # type: ignore[misc]
            start = part.stop
        elif (num_images := part.stop - part.start) == 1:
            raise MemoryExhausted(f"not even one image fits into the device's memory: {REMEDY}")
        else:
            batch_size = num_images // 2
            log.warning("memory ran out with %d images at once; continuing with %d", num_images, batch_size)
    return batch_size


def move(network: nn.Module, device: torch.device) -> None:
    """Move a network to a device. Not inside `torch.inference_mode`: then no gradient could pass through the network.

    Raises:
        MemoryExhausted: the network does not fit into the device's memory.
    """

    def compute() -> None:
        network.to(device)

    if not fits(compute):
        raise MemoryExhausted(f"the network's weights do not fit into the device's memory: {REMEDY}")
