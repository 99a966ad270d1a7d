"""The built-in demo: the same methods with small backbones, on drawn faces and stand-in inpainters.

    python launch.py

The CLIP and SAM encoders are small and have random weights here, which every table says; `xception_pretrained` has the
real ImageNet weights of a small network that ships in a package. The demo shows that the grid works, not how good a
method is.
"""

from __future__ import annotations

from grid.experiments import Experiment, register_experiment

demo = register_experiment(Experiment("demo", source="demo", small=True))
