"""A short ResNet on differences of neighbouring pixels; see `models.detectors.npr`."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from models.training import NetworkDetector

FACTOR = 2 / 3  # of the differences: `networks/resnet.py` of the authors
DECAY, DECAY_EPOCHS = 0.8, 10  # of the learning rate: `networks/trainer.py` and `--delr_freq` of the README


class NprDetector(NetworkDetector):
    """See `models.detectors.npr`."""

    def adapt(self, network: Any) -> None:
        """Cut the network off after its second stage, with a first layer of 3 x 3 pixels; initial weights as theirs.

        Raises:
            ValueError: the network is no ResNet of timm with a plain first layer, or the square has an odd side.
        """
        from timm.models.resnet import ResNet

        if not isinstance(network, ResNet) or not isinstance(network.conv1, nn.Conv2d):
            raise ValueError("this method cuts a ResNet of timm off: name resnet50, resnet34 or resnet18")
        if self.preprocessing.size % 2:
            raise ValueError(f"size must be even, as pixels are taken 2 by 2; got {self.preprocessing.size}")
        cut: Any = network  # timm's types say less than its code
        cut.conv1 = nn.Conv2d(3, network.conv1.out_channels, kernel_size=3, stride=2, padding=1, bias=False)
        cut.num_features = cut.head_hidden_size = cut.layer3[0].conv1.in_channels
        cut.layer3, cut.layer4 = nn.Identity(), nn.Identity()
        cut.fc = nn.Linear(cut.num_features, cut.num_classes)
        if self.config.weights != "random":
            return
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, nn.BatchNorm2d):
                nn.init.ones_(module.weight)  # timm begins with zeros at the end of a block

    def prepared(self, rows: torch.Tensor, mirrored: torch.Tensor | None = None) -> torch.Tensor:
        """See `TrainedDetector`."""
        return FACTOR * differences(super().prepared(rows, mirrored))

    def learning_rate(self, epoch: int, step: int, num_steps: int) -> float:
        """See `TrainedDetector`."""
        return self.config.learning_rate * DECAY ** max(0, (epoch - 2) // DECAY_EPOCHS)

    def cam_target(self) -> None:
        """Nothing: the network does not see the picture itself."""
        return


def differences(x: torch.Tensor) -> torch.Tensor:
    """(N, C, H, W) with even H and W -> the same minus the first of each 2 x 2 pixels."""
    return x - x[..., ::2, ::2].repeat_interleave(2, dim=-1).repeat_interleave(2, dim=-2)
