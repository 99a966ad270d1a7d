"""Handling of exhausted device memory: the same work in smaller pieces, or an error with a remedy."""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch

from models.detector import MemoryExhausted

log = logging.getLogger(__name__)


def fits(compute: Callable[[], None]) -> bool:
    """Call `compute`. Returns False if the device's memory ran out; then the call's memory is free again.

    Raises:
        Exception: any other error of `compute`.
    """
    try:
        compute()
    except RuntimeError as error:
        if not isinstance(error, torch.OutOfMemoryError) and "out of memory" not in str(error).lower():
            raise
    else:
        return True
    # Not inside the handler: there the error's traceback still holds the call's frames, which hold its tensors.
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    return False


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
            raise MemoryExhausted(
                "not even one image fits into the device's memory: give each trial more of a GPU (--gpus-per-trial), "
                "choose a smaller size or backbone, or compute on the CPU (--device cpu)"
            )
        else:
            batch_size = num_images // 2
            log.warning("memory ran out with %d images at once; continuing with %d", num_images, batch_size)
    return batch_size
