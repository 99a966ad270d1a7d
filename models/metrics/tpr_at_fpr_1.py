"""The share of fakes found where at most 1 % of the reals are called fake; fewer than 100 reals are too few for it."""

from __future__ import annotations

from models.metrics import register_metric
from models.metrics._low_fpr import tpr_at

tpr_at_fpr_1 = register_metric(tpr_at(1))
