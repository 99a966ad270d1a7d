"""The cluster files: Ray's own schema, what that schema does not look at, and what it knows nothing of."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray._private.label_utils import parse_node_labels_string
from ray.autoscaler._private.kuberay.autoscaling_config import _node_type_from_group_spec
from ray.autoscaler._private.util import prepare_config, validate_config

from grid.nodes import Node

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
    assert config["setup_commands"][0] == "chmod 600 ~/.ray/auth_token"  # a copy has the mode of the original
    prepared = prepare_config(read(name))
    assert prepared["head_setup_commands"] == prepared["worker_setup_commands"] == config["setup_commands"]
    stop, *_, start, services = config["head_start_ray_commands"]
    assert stop == "ray stop"
    assert "--dashboard-host=127.0.0.1" in start
    assert (ROOT / services.rpartition("~/inpaint-grid/")[2]).is_file()
    stop, *_, start = [command for command in config["worker_start_ray_commands"] if "leave_with_head" not in command]
    assert stop == "ray stop"
    assert start.split(" --labels")[0] == "ray start --address=$RAY_HEAD_IP:6379"


@pytest.mark.parametrize("name", CLOUDS)
def test_what_a_stopped_machine_that_returns_needs_is_done_at_each_start(name: str) -> None:
    """Ray sets up a stopped head that returns no second time."""
    config = read(name)
    _, mount, *_ = config["head_start_ray_commands"]
    assert "/shared" in mount
    assert config["worker_start_ray_commands"][1] == mount
    assert not any("/shared" in command for command in config["setup_commands"])
    assert "MLFLOW_BACKUP=/shared/" in config["head_start_ray_commands"][-1]


@pytest.mark.parametrize("name", CLOUDS)
@pytest.mark.parametrize("mounted", [True, False])
def test_the_shared_folder_is_mounted_once(name: str, mounted: bool, tmp_path: Path) -> None:
    """The command as it is, with stand-ins: what `sudo` is asked for."""
    for program, script in {"sudo": 'echo "$*"', "mountpoint": f"exit {0 if mounted else 32}"}.items():
        (tmp_path / program).write_text(f"#!/bin/bash\n{script}\n")
        (tmp_path / program).chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    command = read(name)["head_start_ray_commands"][1]
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, env=environment, check=True)
    words = [line.split()[0] for line in done.stdout.splitlines()]
    assert words == (["mkdir", "chown"] if mounted else ["mkdir", "mount", "chown"])


@pytest.mark.parametrize("name", CLOUDS)
def test_packages_of_the_system_wait_for_a_machine_that_updates_itself(name: str, tmp_path: Path) -> None:
    """`apt-get update` waits for no lock, and `apt-get install` by an option only."""
    update, install = [command for command in read(name)["setup_commands"] if "apt-get" in command]
    assert "DPkg::Lock::Timeout=" in install
    tries = tmp_path / "tries"
    (tmp_path / "sudo").write_text(f"#!/bin/bash\necho x >>{tries}; [ $(wc -l <{tries}) = 3 ]\n")
    (tmp_path / "sleep").write_text("#!/bin/bash\n")
    for program in ("sudo", "sleep"):
        (tmp_path / program).chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    assert subprocess.run(["bash", "-c", update], env=environment, timeout=60).returncode == 0
    assert tries.read_text() == "x\n" * 3


def test_on_aws_ray_makes_nothing_of_its_own_in_the_account() -> None:
    config = read("cluster.yaml")
    assert config["provider"]["availability_zone"]
    assert config["auth"]["ssh_private_key"]
    kinds = [kind["node_config"] for kind in config["available_node_types"].values()]
    for kind in kinds:
        assert kind["KeyName"]
        assert kind["SecurityGroupIds"]
        assert kind["MetadataOptions"] == {"HttpTokens": "required"}
        assert [disk["Ebs"]["Encrypted"] for disk in kind["BlockDeviceMappings"]] == [True]
    assert ["IamInstanceProfile" in kind for kind in kinds] == [True, False]


def test_on_google_the_head_has_an_account_of_its_own_and_workers_have_none() -> None:
    kinds = [kind["node_config"] for kind in read("clusters/gcp.yaml")["available_node_types"].values()]
    assert all(kind["networkInterfaces"][0]["subnetwork"] for kind in kinds)
    assert ["serviceAccounts" in kind for kind in kinds] == [True, False]


def test_the_head_on_aws_may_do_what_starting_machines_needs_and_nothing_else() -> None:
    policy = json.loads((ROOT / "clusters" / "aws_policy.json").read_text())
    allowed = {action for rule in policy["Statement"] for action in rule["Action"]}
    assert allowed == {
        "ec2:CreateTags", "ec2:DescribeInstanceStatus", "ec2:DescribeInstances", "ec2:RunInstances",
        "ec2:StartInstances", "ec2:StopInstances", "ec2:TerminateInstances",
    }  # fmt: skip
    (own,) = (rule for rule in policy["Statement"] if "ec2:TerminateInstances" in rule["Action"])
    name = read("cluster.yaml")["cluster_name"]
    assert own["Condition"] == {"StringEquals": {"ec2:ResourceTag/ray-cluster-name": name}}


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


@pytest.mark.parametrize(("name", "gpu"), [("cluster.yaml", "A10G"), ("clusters/gcp.yaml", "L4")])
def test_machines_that_are_started_on_demand_declare_their_gpus(name: str, gpu: str) -> None:
    kind = read(name)["available_node_types"]["gpu_worker"]
    node = Node(kind["resources"], kind["labels"])
    assert str(node) == f"48 CPU, 4 GPU ({gpu}, 24 GB each), 140 GB of memory"


def test_on_kubernetes_the_autoscaler_reads_what_the_gpus_are() -> None:
    workers = read("clusters/kuberay.yaml")["spec"]["workerGroupSpecs"][0]
    kind = _node_type_from_group_spec(workers, is_head=False)
    node = Node(kind["resources"], kind["labels"])
    assert (str(node), node.gpu_memory) == ("40 CPU, 4 GPU (A10G, 24 GB each), 193 GB of memory", 24)


@pytest.mark.parametrize(
    ("printed", "labels"),
    [("23028", "gpu-memory-gb=24"), ("40960\n15360\n81920", "gpu-memory-gb=16"), ("", ""), ("No devices", "")],
    ids=["A10G", "the smallest", "none", "no answer"],
)
def test_machines_of_ones_own_read_what_their_gpus_have(printed: str, labels: str, tmp_path: Path) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/bash\nprintf '%b' '{printed}'\n")
    program.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run([ROOT / "clusters" / "gpu_labels.sh"], capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stdout.strip()) == (0, labels)
    assert parse_node_labels_string(done.stdout.strip()) == dict([labels.split("=")] if labels else [])


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


@pytest.mark.parametrize("name", CLOUDS)
def test_a_file_with_placeholders_which_ray_accepts_says_what_refuses_them(name: str) -> None:
    assert "change-me" in (ROOT / name).read_text()
    validate_config(prepare_config(read(name)))
    assert "# up.sh refuses a file in which a `change-me` is left; `ray up` alone does not" in (ROOT / name).read_text()


@pytest.mark.parametrize("name", PAGES)
def test_a_cluster_file_is_a_page_and_says_what_to_change(name: str) -> None:
    lines = (ROOT / name).read_text().splitlines()
    assert len(lines) <= 80
    assert any("# change" in line for line in lines)
    assert all("# change" in line for line in lines if "change-me" in line.partition("#")[0])
