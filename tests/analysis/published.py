"""The published figures, typed in: the four methods of the Dolos experiment (see docs and data/sources/dolos.py)."""

from __future__ import annotations

GENERATORS = ("lama", "ldm", "repaint", "pluralistic")

# method -> tested on -> accuracies by what was trained on, in the order of GENERATORS
DETECTION: dict[str, dict[str, tuple[float, ...]]] = {
    "xception_scratch": {
        "lama": (0.641, 0.493, 0.536, 0.517),
        "ldm": (0.569, 0.496, 0.511, 0.536),
        "repaint": (0.572, 0.487, 0.517, 0.531),
        "pluralistic": (0.667, 0.491, 0.580, 0.700),
    },
    "xception_pretrained": {
        "lama": (0.998, 0.310, 0.445, 0.626),
        "ldm": (0.410, 0.993, 0.906, 0.460),
        "repaint": (0.486, 0.636, 0.800, 0.531),
        "pluralistic": (0.613, 0.421, 0.586, 0.790),
    },
    "clip_linear": {
        "lama": (1.000, 0.535, 0.522, 0.675),
        "ldm": (0.600, 1.000, 0.901, 0.977),
        "repaint": (0.511, 0.620, 0.723, 0.615),
        "pluralistic": (0.765, 0.951, 0.880, 0.992),
    },
    "sam_linear": {
        "lama": (0.870, 0.420, 0.514, 0.588),
        "ldm": (0.349, 0.741, 0.552, 0.561),
        "repaint": (0.536, 0.543, 0.547, 0.575),
        "pluralistic": (0.647, 0.527, 0.543, 0.627),
    },
}

# method -> mean in-domain, mean cross-generator
MEANS = {
    "xception_scratch": (0.589, 0.541),
    "xception_pretrained": (0.895, 0.536),
    "clip_linear": (0.929, 0.713),
    "sam_linear": (0.696, 0.530),
}

# method -> class -> accuracy
ATTRIBUTION: dict[str, dict[str, float]] = {
    "xception_scratch": {"real": 0.5433, "lama": 0.7344, "ldm": 0.8311, "repaint": 0.0122, "pluralistic": 0.1311},
    "xception_pretrained": {"real": 0.8522, "lama": 0.9844, "ldm": 1.0, "repaint": 0.6688, "pluralistic": 0.53},
    "clip_linear": {"real": 0.6855, "lama": 0.9922, "ldm": 0.8855, "repaint": 0.5177, "pluralistic": 0.9311},
    "sam_linear": {"real": 0.1777, "lama": 0.9266, "ldm": 0.7855, "repaint": 0.2144, "pluralistic": 0.2055},
}
OVERALL = {"xception_scratch": 0.4504, "xception_pretrained": 0.8071, "clip_linear": 0.8024, "sam_linear": 0.4620}


def accuracy(method: str, *, tested_on: str, trained_on: str) -> float:
    """One published cell."""
    return DETECTION[method][tested_on][GENERATORS.index(trained_on)]
