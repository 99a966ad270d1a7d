"""cluster.yaml against Ray's own schema, and what that schema does not look at."""

from __future__ import annotations

from pathlib import Path

import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

ROOT = Path(__file__).resolve().parents[1]


def test_ray_accepts_the_cluster_file() -> None:
    config = yaml.safe_load((ROOT / "cluster.yaml").read_text())
    validate_config(prepare_config(config))


def test_what_the_schema_misses_is_there() -> None:
    config = yaml.safe_load((ROOT / "cluster.yaml").read_text())
    assert config["cluster_name"]
    assert config["auth"]["ssh_user"]
    assert config["provider"]["region"]
    for node_type in config["available_node_types"].values():
        assert node_type["node_config"]["InstanceType"]
    for source in config["file_mounts"].values():
        assert (ROOT / source).exists()
    worker = config["available_node_types"]["gpu_worker"]
    assert worker["min_workers"] == 0
    assert worker["resources"]["GPU"] > 1
    assert worker["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
