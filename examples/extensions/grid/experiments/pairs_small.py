"""The small forms of three methods on the corpus of pairs.

python launch.py pairs_small --data DIR
"""

from __future__ import annotations

from grid.experiments import Experiment, register_experiment

METHODS = ("patch_network", "mean_distance", "residual_linear")

pairs_small = register_experiment(
    Experiment("pairs_small", source="pairs", methods={name: {} for name in METHODS}, small=True)
)
