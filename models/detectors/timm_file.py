"""Any detector that is a network of timm with its classifier, as a file of weights; nothing trains.

    --methods timm_file --set timm_file.backbone=resnet50 --weights timm_file=detector.pth

The file is a state dict with timm's names, as timm's trainer and this project's `xception_scratch` and
`xception_pretrained` (`model.pt`) save it. It is read as tensors, so that nothing in it can run. A file that holds a
program (TorchScript, torch.export) would cover every architecture, but opening one can run what is in it, and this
project opens no such file. The classifier has one output, the log-odds of fake, or two: `fake` says which of them is
"fake".

Pictures are prepared as timm's configuration of the network says; `size` and `resize` change that.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field
from pydantic.dataclasses import dataclass

from models.configs import EncoderConfig
from models.detector import BuildContext, Detector
from models.needs import resized_to
from models.registry import register_detector


@dataclass(frozen=True, kw_only=True)
class TimmFileConfig(EncoderConfig):
    """A trained network of timm.

    Attributes:
        fake: which of two outputs is "fake", from 0.
    """

    fake: Annotated[int, Field(ge=0, le=1)] = 1


def complete(config: dict[str, Any]) -> dict[str, Any]:
    """Nothing is added. Raises `ValueError` if the network or its file is not named."""
    if not config["backbone"] or str(config["weights"]).startswith("hub"):
        raise ValueError(
            "METHOD is a detector of yours: name its network, --set METHOD.backbone=NAME, and its file, --weights "
            "METHOD=FILE"
        )
    return config


@register_detector(
    "timm_file",
    config=TimmFileConfig(),
    gpu_share=0.25,
    picture_needs=lambda config: resized_to(config.size),
    depends_on_seed=lambda config: False,
    pretrained="timm",
    small={"backbone": "test_vit2", "weights": "random", "size": 64},
    complete=complete,
    test_only=True,
)
def build(config: TimmFileConfig, context: BuildContext) -> Detector:
    """A trained network of timm from a file; nothing trains."""
    from models.backbones.timm import classifier_names
    from models.encoding import frozen_encoder
    from models.ready import ReadyDetector

    encoder = frozen_encoder("timm", config, context)
    names = classifier_names(config.backbone)
    return ReadyDetector(encoder, config.weights, context, names=names, fake=config.fake, resize=config.resize)
