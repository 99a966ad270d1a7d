"""Only the layer normalisations of CLIP train, and features lie on a sphere: GenD (Yermakov et al., arXiv 2508.06248).

The predecessor (arXiv 2503.19683) has the same network. Everything but the gains and biases of the layer normalisations
and the new classifier is frozen; the class token is divided by its length, and a linear classifier follows. The loss is
cross-entropy, plus 0.5 times the uniformity of the features, plus 0.1 times their alignment inside each class (Wang and
Isola, arXiv 2005.10242).

After the authors' code (github.com/yermandy/GenD, commit b26c2b2): `wacv-LN+L2+UnAl` in `src/exp/wacv_rebuttal.py` with
the defaults of `src/config.py`. Adam (AdamW without decay) at 3e-4, lowered to 1e-6 along a cosine that starts again
every 10 epochs; 30 epochs; CLIP ViT-L/14 of OpenAI, before its projection. PE and DINOv3 are values of `backbone`, as
there. The first version of arXiv 2508.06248 also augmented features in their space; the later code does not.

Different here: batches of 128, not 512, so that several trials share a GPU; the epoch is chosen by the validation loss,
not by the average precision of videos; pictures are mirrored, but not rotated, blurred, recoloured or saved as JPEG.
"""

from __future__ import annotations

from pydantic.dataclasses import dataclass

from models.configs import NetworkConfig, Penalty
from models.detector import BuildContext, Detector
from models.needs import resized_to
from models.registry import register_detector


@dataclass(frozen=True, kw_only=True)
class LnTunedConfig(NetworkConfig):
    """A timm transformer of which the layer normalisations train.

    Attributes:
        uniformity: weight of the uniformity of the features.
        alignment: weight of the alignment of features of one class.
    """

    uniformity: Penalty = 0.5
    alignment: Penalty = 0.1


@register_detector(
    "ln_tuned",
    config=LnTunedConfig(
        backbone="vit_large_patch14_clip_quickgelu_224.openai",
        weights="hub",
        epochs=30,
        batch_size=128,
        learning_rate=3e-4,
        flip=True,
    ),
    family="baselines",
    gpu_share=0.5,
    picture_needs=lambda config: resized_to(config.size),
    pretrained="timm",
    small={"backbone": "test_vit", "weights": "random", "size": 64, "epochs": 10, "learning_rate": 5e-3},
)
def build(config: LnTunedConfig, context: BuildContext) -> Detector:
    """CLIP whose layer normalisations alone train, features on a sphere (GenD)."""
    from models.ln_tuned import LnTunedDetector

    return LnTunedDetector(config, context)
