"""The built-in demo: the same methods with small backbones, on drawn faces and stand-in inpainters.

    python launch.py

The CLIP and SAM encoders are small and have random weights here, which every table says; `xception_pretrained` has the
real ImageNet weights of a small network that ships in a package. The demo shows that the grid works, not how good a
method is.

Networks see the pictures in their own size, 112 pixels: at 64, a map of Grad-CAM had 2 x 2 places.
"""

from __future__ import annotations

from grid.experiments import Experiment, register_experiment

demo = register_experiment(
    Experiment(
        "demo",
        source="demo",
        methods={
            "xception_scratch": {"size": 112, "epochs": 8, "batch_size": 16},
            "xception_pretrained": {"size": 112, "epochs": 3, "batch_size": 16},
            "clip_linear": {"size": 112},
            "sam_linear": {"size": 112},
            "residual_linear": {},
        },
        small=True,
    )
)
