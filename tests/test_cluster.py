"""The cluster files: Ray's own schema, what that schema does not look at, and what it knows nothing of."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

ROOT = Path(__file__).resolve().parents[1]
CLOUDS = ["cluster.yaml", "clusters/gcp.yaml"]
LAUNCHED = [*CLOUDS, "clusters/on-prem.yaml"]  # by `ray up`
PAGES = [*LAUNCHED, "clusters/kuberay.yaml", "clusters/slurm.sh"]
SCRIPTS = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "clusters").glob("*.sh"))


def read(name: str) -> dict[str, Any]:
    return yaml.safe_load((ROOT / name).read_text())


@pytest.mark.parametrize("name", LAUNCHED)
def test_ray_accepts_the_cluster_file(name: str) -> None:
    validate_config(prepare_config(read(name)))


@pytest.mark.parametrize("name", LAUNCHED)
def test_every_cluster_is_set_up_and_started_alike(name: str) -> None:
    config = read(name)
    assert config["cluster_name"]
    assert config["auth"]["ssh_user"]
    assert config["file_mounts"] == {"~/inpaint-grid": ".", "~/.ray/auth_token": "~/.ray/auth_token"}
    assert set(config["rsync_exclude"]) >= {".git", ".venv", "runs"}
    assert config["setup_commands"][-2:] == read("cluster.yaml")["setup_commands"][-2:]
    assert any("make setup" in command for command in config["setup_commands"])
    stop, start, services = config["head_start_ray_commands"]
    assert stop == "ray stop"
    assert "--dashboard-host=127.0.0.1" in start
    assert (ROOT / services.removeprefix("~/inpaint-grid/")).is_file()
    assert config["worker_start_ray_commands"][:2] == ["ray stop", "ray start --address=$RAY_HEAD_IP:6379"]


@pytest.mark.parametrize("name", CLOUDS)
def test_gpu_workers_come_from_zero_and_are_spot(name: str) -> None:
    config = read(name)
    assert config["provider"]["region"]
    worker = config["available_node_types"]["gpu_worker"]
    assert worker["min_workers"] == 0
    assert worker["max_workers"] == config["max_workers"] > 0
    assert worker["resources"]["GPU"] > 1
    assert re.search(r"spot", str(worker["node_config"]), re.IGNORECASE)
    assert config["available_node_types"][config["head_node_type"]]["resources"] == {"CPU": 0}


def test_on_aws_every_machine_has_a_type() -> None:
    assert all(kind["node_config"]["InstanceType"] for kind in read("cluster.yaml")["available_node_types"].values())


def test_on_google_every_machine_has_a_type_and_a_disk_to_boot_from() -> None:
    for kind in read("clusters/gcp.yaml")["available_node_types"].values():
        assert kind["node_config"]["machineType"]
        (disk,) = kind["node_config"]["disks"]
        assert disk["boot"]
        assert disk["initializeParams"]["sourceImage"]


def test_with_machines_of_ones_own_all_workers_are_started() -> None:
    _, start, _ = read("clusters/on-prem.yaml")["head_start_ray_commands"]
    assert start.startswith("RAY_enable_autoscaler_v2=0 ")  # version 2 leaves one of them out


def test_on_kubernetes_everybody_has_the_same_image_and_the_token() -> None:
    cluster = read("clusters/kuberay.yaml")
    assert (cluster["apiVersion"], cluster["kind"]) == ("ray.io/v1", "RayCluster")
    spec, name = cluster["spec"], cluster["metadata"]["name"]
    assert spec["authOptions"] == {"mode": "token"}
    head = spec["headGroupSpec"]["template"]["spec"]
    (workers,) = spec["workerGroupSpecs"]
    assert workers["minReplicas"] <= workers["replicas"] <= workers["maxReplicas"]
    containers = [*head["containers"], *workers["template"]["spec"]["containers"]]
    assert [container["name"] for container in containers] == ["ray-head", "mlflow", "ray-worker"]
    assert len({container["image"] for container in containers}) == 1
    for container in containers:
        (token,) = (entry for entry in container["env"] if "valueFrom" in entry)
        assert token["valueFrom"]["secretKeyRef"] == {"name": name, "key": "auth_token"}
        assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in head["volumes"]}
    mlflow = containers[1]
    assert (ROOT / mlflow["command"][0]).is_file()
    server = next(entry["value"] for entry in containers[0]["env"] if entry["name"] == "MLFLOW_TRACKING_URI")
    assert server.removeprefix("http://") in next(
        entry["value"] for entry in mlflow["env"] if entry["name"] == "MLFLOW_HOSTS"
    )


def test_the_versions_of_ray_agree() -> None:
    (locked,) = re.findall(r"^ray(?:\[.*\])?==(\S+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    assert read("clusters/kuberay.yaml")["spec"]["rayVersion"] == locked


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_script_is_one_for_bash(name: str) -> None:
    done = subprocess.run(["bash", "-n", str(ROOT / name)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", [name for name in SCRIPTS if "environment" not in name])
def test_every_script_that_is_run_can_be(name: str) -> None:
    assert (ROOT / name).stat().st_mode & 0o100


@pytest.mark.parametrize("name", PAGES)
def test_a_cluster_file_is_a_page_and_says_what_to_change(name: str) -> None:
    lines = (ROOT / name).read_text().splitlines()
    assert len(lines) <= 80
    assert any("# change" in line for line in lines)
    assert all("# change" in line for line in lines if "change-me" in line)
