"""What happens when a device's memory runs out: the same work in smaller pieces, or an error with a remedy."""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch

from models.detector import MemoryExhausted

log = logging.getLogger(__name__)


def fits(compute: Callable[[], None]) -> bool:
    """Call `compute`; False when the device's memory ran out, and then what the call had taken is free again.

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
    # only here: within the handler the error's traceback still holds the call's frames, and those hold its tensors
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    return False


def in_batches(compute: Callable[[slice], None], num_rows: int, batch_size: int) -> int:
    """Call `compute` on slices that cover all rows in order, with half as many rows each time that memory runs out.

    For inference, where a row's result does not depend on its batch but for rounding.

    Returns:
        the number of rows at once that fitted in the end: at most `batch_size`, at least 1.

    Raises:
        MemoryExhausted: one row alone does not fit.
    """
    start = 0
    while start < num_rows:
        part = slice(start, min(start + batch_size, num_rows))
        if fits(lambda part=part: compute(part)):  # type: ignore[misc]
            start = part.stop
        elif (taken := part.stop - part.start) == 1:
            raise MemoryExhausted(
                "not one image fits into the device's memory: give each trial more of a GPU (--gpus-per-trial), "
                "take a smaller size or backbone, or compute on the CPU (--device cpu)"
            )
        else:
            batch_size = taken // 2
            log.warning("memory ran out with %d images at once; going on with %d", taken, batch_size)
    return batch_size
