"""A convolutional decoder of the patch tokens of a frozen CLIP, which learns from masks, after DeCLIP.

The published row is ViT-L/14, `layer20` counted from 0 of 24 blocks (so `depth` 0.875), decoder `conv-20`: four stages
of five 5 x 5 convolutions with batch normalisation and ReLU, of 512, 256, 128 and 64 channels, each followed by a
doubling, then one convolution to a logit per pixel of 256 x 256 (arXiv 2409.08849; github.com/bit-ml/DeCLIP at
1b6120f). Weights from N(0, 0.02), AdamW at 1e-3 without decay, batches of 64, binary cross-entropy; the learning rate
is divided by ten after five epochs without progress, until it is below 1e-6; pictures are squashed to 224 x 224.

It differs from the published code in these points. Real pictures are trained on, too, as pictures of which nothing is
fake: the row must answer for real pictures. The kept epoch is that of the best validation loss, not IoU. There are at
most `epochs` epochs. Weights of batch normalisation begin at 1. Colour and compression are not augmented, as in the
published main row. The published 73.9 / 34.7 % IoU (in-domain / out-of-domain) join the features of a ResNet-50, which
this row does not have.
"""

from __future__ import annotations

from models.configs import MaskDecoderConfig
from models.detector import BuildContext, Detector
from models.needs import resized_to
from models.preparations import complete_for
from models.registry import register_detector


@register_detector(
    "mask_decoder",
    config=MaskDecoderConfig(),
    family="baselines",
    gpu_share=0.5,
    picture_needs=lambda config: resized_to(config.size),
    pretrained=lambda config: ((config.family, config.backbone, config.weights),),
    small={
        "backbone": "demo-vit-64", "weights": "random", "channels": "16", "convolutions": 1, "epochs": 8,
        "batch_size": 8, "learning_rate": 0.01,
    },
    complete=lambda config: complete_for(config, config["family"]),
    reads_masks=True,
)  # fmt: skip
def build(config: MaskDecoderConfig, context: BuildContext) -> Detector:
    """Patch tokens of a frozen CLIP, convolutional decoder (DeCLIP); learns from masks, has maps."""
    from models.token_decoder import DecoderDetector

    return DecoderDetector(config, context)
