"""The first version of the built-in demo, for results that were published with it: pictures of 64 pixels.

    python launch.py demo1

Its 25 trials have the keys and the values that they had when it was the only demo.
"""

from __future__ import annotations

from grid.experiments import Experiment, register_experiment

demo1 = register_experiment(Experiment("demo1", source="demo1", small=True))
