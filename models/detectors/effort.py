"""Effort (Yan et al., ICML 2025, arXiv 2411.15633): the top directions of CLIP's attention weights are frozen.

Each square matrix of each attention (query, key, value, output) is split by its singular value decomposition. All
directions but the one with the smallest singular value are frozen. That one (its two vectors and its value) trains, and
so does a linear classifier on the class token of CLIP ViT-L/14, before its projection.

The loss is cross-entropy plus, as a mean over the matrices, how far all directions are from orthogonal and how far the
matrix's squared Frobenius norm has changed, with weight 1 (`lambda_reg`). In the authors' published training code these
two terms are commented out, in that of DeepfakeBench too: `--set effort.regularisation=0` trains so.

After the authors' code: `effort_detector.py` and `effort.yaml` of DeepfakeBench (github.com/SCLBD/DeepfakeBench at
d58e758 and 64366cf, by the same authors) and copies of their own repository (YZY-stack/Effort-AIGI-Detection, which
could not be read itself; NBaLogn/Effort-AIGI-Detection at 097f535 and 32cbfe7). Adam at 2e-4 (DeepfakeBench: 2e-5) with
an L2 penalty of 5e-4, batches of 32, 10 epochs, pictures mirrored.

Different here: pictures are not rotated, blurred, brightened or saved as JPEG, and are resized as for the other methods
(theirs bilinearly, by OpenCV).
"""

from __future__ import annotations

from pydantic.dataclasses import dataclass

from models.configs import Count, NetworkConfig, Penalty
from models.detector import BuildContext, Detector
from models.needs import resized_to
from models.registry import register_detector


@dataclass(frozen=True, kw_only=True)
class EffortConfig(NetworkConfig):
    """A timm transformer of which the last directions of the attention weights train.

    Attributes:
        rank: number of directions per matrix that train, those with the smallest singular values.
        regularisation: weight of the orthogonality and of the change of the norms.
    """

    rank: Count = 1
    regularisation: Penalty = 1.0


@register_detector(
    "effort",
    config=EffortConfig(
        backbone="vit_large_patch14_clip_quickgelu_224.openai",
        weights="hub",
        epochs=10,
        learning_rate=2e-4,
        weight_decay=5e-4,
        flip=True,
    ),
    family="baselines",
    gpu_share=0.5,
    picture_needs=lambda config: resized_to(config.size),
    pretrained="timm",
    small={"backbone": "test_vit", "weights": "random", "size": 64, "learning_rate": 5e-3},
)
def build(config: EffortConfig, context: BuildContext) -> Detector:
    """CLIP whose attention weights train in their last singular direction alone (Effort)."""
    from models.effort import EffortDetector

    return EffortDetector(config, context)
