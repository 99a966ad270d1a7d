"""RINE (Koutlis and Papadopoulos, ECCV 2024, arXiv 2402.19091): the class tokens of all blocks of a frozen CLIP.

Each token is projected, multiplied with trainable importances (a softmax over the blocks, for each dimension) and
summed; a second projection and a small classifier follow. The loss is cross-entropy plus a supervised contrastive loss
(Khosla et al., arXiv 2004.11362) on the second projection.

After the authors' code (github.com/mever-team/rine, commit 325a1c9), which says more than the paper:

- "Output of a block" is the output of the block's second norm (`src/models.py`), not of the block.
- Two projections of 2 layers, 1024 wide; weight 0.2 of the contrastive loss; batches of 128: their model of four
  classes (`get_our_trained_model` in `src/utils.py`, file names in `results/`).
- Adam at 1e-3; over 15 epochs, a tenth of it from epoch 6 and a hundredth from epoch 11 (`scripts/best.py`). The best
  epoch is kept. Their best models have one epoch, of 144,000 images: about as many steps as 8 epochs of 18,000.

Different here: features are stored, so training pictures are not augmented (theirs are blurred, saved as JPEG, cropped
and mirrored at random). Pictures are prepared as for `clip_linear`; theirs are cut to 224 pixels without a resize.
Their losses are sums over a batch, these are means: the same to Adam, but for a last batch that is smaller. With more
than two classes the cross-entropy is that of all classes.
"""

from __future__ import annotations

from pydantic.dataclasses import dataclass

from models.configs import ClipPreparation, Count, EncoderConfig, Penalty, TrainingConfig
from models.detector import BuildContext, Detector
from models.needs import resized_to
from models.preparations import complete_clip
from models.registry import register_detector


@dataclass(frozen=True, kw_only=True)
class RineConfig(ClipPreparation, EncoderConfig, TrainingConfig):
    """A frozen CLIP, and how the network on its blocks trains.

    Attributes:
        width: of both projections.
        layers: of each projection.
        contrastive: weight of the contrastive loss of a batch, beside the sum of the batch's cross-entropies.
    """

    width: Count = 1024
    layers: Count = 2
    contrastive: Penalty = 0.2


@register_detector(
    "rine",
    config=RineConfig(backbone="ViT-L-14-quickgelu", weights="hub:openai", epochs=15, batch_size=128),
    family="baselines",
    gpu_share=0.25,
    picture_needs=lambda config: resized_to(config.size),
    pretrained="open_clip_blocks",
    small={
        "backbone": "demo-vit-64",
        "weights": "random",
        "width": 128,
        "layers": 1,
        "epochs": 60,
        "batch_size": 32,
        "learning_rate": 3e-3,
    },
    complete=complete_clip,
)
def build(config: RineConfig, context: BuildContext) -> Detector:
    """Outputs of all blocks of a frozen CLIP with trained importances (RINE)."""
    from models.rine import RineDetector

    return RineDetector(config, context)
