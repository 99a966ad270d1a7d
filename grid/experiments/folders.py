"""The published methods on folders of the wider field: `<generator>/0_real`, `<generator>/1_fake`.

python launch.py folders --data DIR
"""

from __future__ import annotations

from grid.experiments.dolos import METHODS, SEEDS, trials

__all__ = ["METHODS", "SEEDS", "SOURCE", "trials"]

SOURCE = "folders"
