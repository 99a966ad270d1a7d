"""The built-in demo: the same methods with small backbones, on drawn faces and stand-in inpainters.

    python launch.py

The CLIP and SAM encoders are small and have random weights here, which every table says; `xception_pretrained` has the
real ImageNet weights of a small network that ships in a package. The demo shows that the grid works, not how good a
method is.
"""

from __future__ import annotations

from grid.spec import cross_generator_trials as trials

__all__ = ["METHODS", "SEEDS", "SOURCE", "trials"]

SOURCE = "demo"
SEEDS = (0,)
METHODS: dict[str, dict[str, str | int | float | bool]] = {
    "xception_scratch": {"backbone": "test_resnet", "size": 64, "epochs": 12, "flip": True},
    "xception_pretrained": {
        "backbone": "tf_efficientnet_lite0",
        "weights": "package:efficientnet-lite0",
        "size": 64,
        "epochs": 4,
        "learning_rate": 1e-3,
        "flip": True,
    },
    "clip_linear": {"backbone": "demo-vit-64", "weights": "random"},
    "sam_linear": {"backbone": "demo", "weights": "random"},
    "residual_linear": {},
}
