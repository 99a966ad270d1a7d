"""A linear classifier on frozen features of any network of timm, after Ojha et al. (arXiv 2302.10174).

The default is DINOv2 with registers (Oquab et al., arXiv 2304.07193; Darcet et al., arXiv 2309.16588) at 518 pixels,
the size at which its weights were trained. DINOv3 (`vit_base_patch16_dinov3.lvd1689m`), the Perception Encoder
(`vit_pe_core_large_patch14_336.fb`) and convolutional networks are other values of `backbone`.

Features are timm's own input of the classifier: the class token, the mean or an attention pool over the positions, as
each network's authors chose.
"""

from __future__ import annotations

from models.configs import LinearConfig, starts_at_random
from models.detector import BuildContext, Detector
from models.needs import resized_to
from models.registry import register_detector
from models.sizes import frozen


@register_detector(
    "timm_linear",
    config=LinearConfig(backbone="vit_base_patch14_reg4_dinov2.lvd142m", weights="hub"),
    family="baselines",
    gpu_share=0.25,
    picture_needs=lambda config: resized_to(config.size),
    depends_on_seed=starts_at_random,
    pretrained="timm",
    footprint=frozen("timm"),
    small={"backbone": "test_vit", "weights": "random", "size": 64},
)
def build(config: LinearConfig, context: BuildContext) -> Detector:
    """DINOv2 or another encoder of timm, frozen; linear classifier."""
    from models.linear import probe_backbone

    return probe_backbone("timm", config, context)
