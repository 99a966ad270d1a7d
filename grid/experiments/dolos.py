"""The published experiment: four methods and a weight-free fifth, each trained on every generator, tested on all.

    python launch.py dolos --data DIR

Cost and expected result: `docs/reproducing.md`. One epoch, as published; the publication gives neither learning rate
nor batch size, so those are each method's defaults.
"""

from __future__ import annotations

from grid.spec import cross_generator_trials as trials

__all__ = ["METHODS", "SEEDS", "SOURCE", "trials"]

SOURCE = "dolos"
SEEDS = (0,)
METHODS: dict[str, dict[str, str | int | float | bool]] = {
    "xception_scratch": {},
    "xception_pretrained": {},
    "clip_linear": {},
    "sam_linear": {},
    "residual_linear": {},
}
