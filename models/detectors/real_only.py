"""How far the residual statistics of a picture lie from those of real photographs. It sees no fake and no edit.

The score is the squared Mahalanobis distance from the real training photographs, each statistic scaled to a deviation
of 1, with the covariance of Ledoit and Wolf (2004, Journal of Multivariate Analysis 88). It is no log-odds: it says
"unusual", not how likely a fake is.
"""

from __future__ import annotations

from pydantic import Field
from pydantic.dataclasses import dataclass

from models.detector import BuildContext, Detector
from models.needs import PictureNeeds
from models.registry import register_detector
from models.residuals import MIN_SIDE


@dataclass(frozen=True)
class Config:
    """Attributes:
    quantile: share of the real validation photographs that lie below the threshold.
    """

    quantile: float = Field(default=0.95, gt=0, lt=1)


@register_detector(
    "real_only",
    config=Config(),
    family="no-generator",
    gpu_share=0.0,
    needs_fakes=False,
    log_odds=False,
    picture_needs=lambda config: PictureNeeds(min_side=MIN_SIDE),
    depends_on_seed=lambda config: False,
)
def build(config: Config, context: BuildContext) -> Detector:
    """Distance of the residual statistics (SRM) from those of real photographs; sees no fake."""
    from models.real_distance import RealDistance
    from models.residuals import ResidualEncoder

    return RealDistance(ResidualEncoder(), context.classes, quantile=config.quantile, weights_note="weight-free")
