"""The share of fakes found where at most 5 % of the reals are called fake; fewer than 20 reals are too few for it."""

from __future__ import annotations

from models.metrics import register_metric
from models.metrics._low_fpr import tpr_at

tpr_at_fpr_5 = register_metric(tpr_at(5))
