"""NPR (Tan et al., CVPR 2024, arXiv 2312.10461): what a pixel differs by from its neighbour, as up-sampling leaves it.

The input is the picture minus itself at half the size and back, by nearest neighbour: of each 2 x 2 pixels, the
difference to the first. A small network, trained from scratch, sees that alone: a ResNet-50 that ends after its second
stage, whose first layer has 3 x 3 pixels.

After the authors' code (github.com/chuangchuangtan/NPR-DeepfakeDetection, `networks/resnet.py` at 5dffad0,
`networks/trainer.py` at 1960018; the command of the README): the difference times 2/3, Adam at 2e-4, times .8 after the
11th epoch and every 10 further ones, batches of 32, 50 epochs, squares of 224 pixels cut out at random, mirrored.

Different here: no resize to 256 pixels before the cut (theirs in training, not in their test); tiles in place of the
whole picture in the test; two outputs with cross-entropy, theirs has one; the epoch is chosen by the validation loss,
theirs is the last.
"""

from __future__ import annotations

from models.configs import NetworkConfig
from models.detector import BuildContext, Detector
from models.needs import resized_to
from models.registry import register_detector


@register_detector(
    "npr",
    config=NetworkConfig(
        backbone="resnet50",
        weights="random",
        epochs=50,
        learning_rate=2e-4,
        size=224,
        resize="native",
        flip=True,
    ),
    family="baselines",
    gpu_share=0.25,
    picture_needs=lambda config: resized_to(config.size),
    pretrained="timm",
    small={"backbone": "resnet18", "size": 64, "batch_size": 8, "epochs": 4, "learning_rate": 3e-3},
)
def build(config: NetworkConfig, context: BuildContext) -> Detector:
    """Differences of neighbouring pixels at native size, short ResNet trained from scratch (NPR)."""
    from models.npr import NprDetector

    return NprDetector(config, context)
