"""One score per patch (Chai et al., ECCV 2020, arXiv 2008.10588): an Xception that ends after its second block.

Each place of its last feature map sees a patch of the picture alone, and a 1 x 1 convolution scores it: the map.

`supervision=image`: every patch has the label of its picture, and a picture's probabilities are the mean over its
patches. After the authors' code (github.com/chail/patch-forensics at e676e41: `models/networks/customnet.py`,
`netutils.py`, `patch_discriminator_model.py`): Adam at 1e-3, batches of 32, mirrored, initial weights of deviation .02
(Xavier). Theirs trains up to 1000 epochs and stops 20 epochs after the best accuracy of the patches; here the number is
that of the Dolos paper (arXiv 2311.04584), whose baseline has the same network.

`supervision=mask`: a patch is fake where more than half of its cell is inside the mask, and real elsewhere, as in the
Dolos paper's full supervision (github.com/bit-ml/dolos, `train_full_supervision.py` at 1123fbe; 50 epochs, batches of
16, nearest pixel of the mask). Real pictures train too; theirs has fakes alone. The score of a picture is the mean of
the highest tenth of its patches, because an edit is a part of the picture.

Different here: squares of 256 pixels at native size (theirs: resized to 299); the epoch is chosen by the validation
loss of pictures (theirs: of patches). What fills a picture up that is smaller than the square has patches like any.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from models.configs import NetworkConfig
from models.detector import BuildContext, Detector
from models.needs import PictureNeeds, resized_to
from models.registry import register_detector

MIN_SIDE = 16  # pixels; below it the map of a picture has no cell


@dataclass(frozen=True, kw_only=True)
class PatchHeadConfig(NetworkConfig):
    """An Xception that is cut off, and scores patches.

    Attributes:
        supervision: what labels a patch: the "image", or the "mask".
        blocks: how many blocks of the network stay.
    """

    supervision: Literal["image", "mask"] = "image"
    blocks: Annotated[int, Field(ge=1, le=11)] = 2


@register_detector(
    "patch_head",
    config=PatchHeadConfig(
        backbone="legacy_xception",
        weights="random",
        epochs=50,
        size=256,
        resize="native",
        flip=True,
    ),
    family="baselines",
    gpu_share=0.25,
    picture_needs=lambda config: PictureNeeds(min_side=MIN_SIDE, max_ratio=resized_to(config.size).max_ratio),
    pretrained="timm",
    small={"size": 64, "blocks": 1, "batch_size": 16, "epochs": 4, "learning_rate": 1e-2},
    reads_masks=lambda config: config.supervision == "mask",
)
def build(config: PatchHeadConfig, context: BuildContext) -> Detector:
    """One score per patch at native size, short Xception trained from scratch; has maps."""
    from models.patch_head import PatchHeadDetector

    return PatchHeadDetector(config, context)
