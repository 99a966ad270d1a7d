"""The published experiment: four methods and a weight-free fifth, each trained on every generator, tested on all.

    python launch.py dolos --data DIR

45 trials: the two Xceptions with seeds 0, 1 and 2; the others once, because their results do not depend on the seed.
Cost: docs/cost.md. Published: mean in-domain / cross-generator accuracy 0.589 / 0.541 (xception_scratch),
0.895 / 0.536 (xception_pretrained), 0.929 / 0.713 (clip_linear), 0.696 / 0.530 (sam_linear). One epoch, as published;
the publication gives neither learning rate nor batch size, so those are each method's defaults.
"""

from __future__ import annotations

from grid.experiments import Experiment, register_experiment

dolos = register_experiment(Experiment("dolos", source="dolos", seeds=(0, 1, 2)))
