"""A Ray to run on: this machine's own or a cluster's, its nodes, and whether they are fit for a grid."""

from __future__ import annotations

import logging
import os
import platform
import re
import signal
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

# Read by Ray when it is imported: no usage statistics, no warning that frequent checkpoints are slow, no result files
# that nobody reads.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
os.environ.setdefault("TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S", "0")
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")

import ray
import yaml
from ray.exceptions import GetTimeoutError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from grid.nodes import Node
from grid.settings import ClusterError

ROOT = Path(__file__).resolve().parents[1]
CODE = ("launch.py", "grid", "models", "data", "analysis")  # what a worker needs of the checkout
# What may change a result, or keep a trial from starting, where a node has another version of it than the driver.
PACKAGES = (
    "mlflow", "numpy", "open_clip_torch", "pandas", "pillow", "pyarrow", "ray", "safetensors", "scikit-learn", "scipy",
    "segment-anything", "timm", "torch", "torchvision",
)  # fmt: skip


def find_cluster() -> str | None:
    """Address of the Ray that `ray up` keeps running on this machine; None where this is not the head of a cluster.

    A Ray that somebody started here in another way is not ours to fill.
    """
    current = Path(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()) / "ray" / "ray_current_cluster"
    if not _cluster_file().is_file() or not current.is_file():  # `ray stop` removes the latter
        return None
    return current.read_text().strip() or None


def _cluster_file() -> Path:
    return Path.home() / "ray_bootstrap_config.yaml"  # where `ray up` puts it


def excludes(root: Path) -> list[str]:
    """What is not sent to the workers, as patterns of a `.gitignore`: whatever is no code, wherever somebody put it.

    Ray refuses to send 512 MiB or more, and a corpus, a cache or weights may lie below the checkout.
    """
    others = [re.sub(r"([^\w./-])", r"\\\1", path.name) for path in root.iterdir() if path.name not in CODE]
    return ["?*.?*", "!*.py", "!*.json", *(f"/{name}" for name in sorted(others))]


def connect(*, address: str | None = None, num_gpus: int | None = None, num_cpus: int | None = None) -> None:
    """Start Ray on this machine, or join the cluster at `address`; the workers import this checkout's code, always.

    Args:
        address: of a running cluster ("auto" on its head); None: a Ray of our own on this machine.
        num_gpus: logical GPUs of a Ray of our own; None: what the machine has.
        num_cpus: likewise.

    Raises:
        ClusterError: nobody answers at `address`, or refuses.
    """
    own: dict[str, Any] = {}
    if address is None:
        own = {"num_gpus": num_gpus, "num_cpus": num_cpus, "include_dashboard": False}
    on_termination = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(
            address=address or "local",
            runtime_env={"working_dir": str(ROOT), "excludes": excludes(ROOT)},
            log_to_driver=False,
            logging_level=logging.ERROR,
            configure_logging=True,
            **own,
        )
    except (ConnectionError, RuntimeError, RayError, ValueError) as error:
        if address is None:
            raise
        hint = "Is it up (`ray status` on its head), and the address right? --local runs without Ray"
        if "runtime env" in str(error):  # a job that brings code of its own
            hint = "Leave --working-dir out of `ray job submit`: a launch sends the code of its own checkout"
        raise ClusterError(f"cannot join the Ray cluster at {address}: {error}\n{hint}") from error
    signal.signal(signal.SIGTERM, on_termination)  # Ray has put its own, which ends the process at once, in this place


@contextmanager
def session(**connection: Any) -> Iterator[None]:
    """`connect` for the duration of a block; a cluster's nodes must have the driver's packages."""
    connect(**connection)
    try:
        if connection.get("address"):
            check_versions()
        yield
    finally:
        ray.shutdown()


def check_versions(*, timeout: float = 180.0) -> None:
    """Raise `ClusterError`, naming nodes and packages, where a node differs from this process.

    Only packages: the code itself travels with the job. Nodes that join later come from the same set-up.
    """

    def report(packages: Sequence[str] = PACKAGES) -> dict[str, str]:  # sent by value: imports nothing of ours
        versions = {"Python": platform.python_version()}
        for package in packages:
            try:
                versions[package] = metadata.version(package)
            except metadata.PackageNotFoundError:
                continue
        return versions

    names, tasks = {}, {}
    for node in ray.nodes():
        if node["Alive"]:
            strategy = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            task: Any = ray.remote(report).options(num_cpus=0, max_retries=0, scheduling_strategy=strategy)
            names[node["NodeID"]] = (
                f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']}, {node['NodeID'][:8]})"
            )
            tasks[node["NodeID"]] = task.remote()
    deadline = time.monotonic() + timeout
    reports: dict[str, dict[str, str]] = {}
    problems = []
    for node_id, reported in tasks.items():
        try:
            reports[names[node_id]] = ray.get(reported, timeout=max(0.0, deadline - time.monotonic()))
        except (RayError, GetTimeoutError) as error:
            problems.append(f"{names[node_id]}: does not answer ({type(error).__name__})")
    problems += version_differences(report(), reports)
    if problems:
        raise ClusterError(
            "these nodes are not as this machine is:\n  " + "\n  ".join(problems) + "\n"
            "run `make setup` of this checkout on them (`ray up` does), or start from the machine that they agree with"
        )


def version_differences(driver: Mapping[str, str], nodes: Mapping[str, Mapping[str, str]]) -> list[str]:
    """One line a node that differs.

    Args:
        driver: package -> version; a package that is missing has no entry.
        nodes: name of a node -> the same of that node.
    """
    lines = []
    for name, versions in sorted(nodes.items()):
        differences = [
            f"{package} {versions.get(package, 'missing')} (here {driver.get(package, 'missing')})"
            for package in sorted({*driver, *versions}, key=str.lower)
            if versions.get(package) != driver.get(package)
        ]
        if differences:
            lines.append(f"{name}: {', '.join(differences)}")
    return lines


def describe_cluster() -> str:
    """What the Ray that is connected has at the moment, and what it may start on demand."""
    nodes = [node for node in ray.nodes() if node["Alive"]]
    total = ray.cluster_resources()
    on_demand = sum(node.number for node in _startable())
    more = f"; workers start on demand, up to {on_demand} in all" if on_demand else ""
    return f"{len(nodes)} nodes, {total.get('CPU', 0):g} CPU cores, {total.get('GPU', 0):g} GPUs{more}"


def cluster_nodes() -> list[Node]:
    """The nodes of the Ray that is connected, and those that it may start on demand."""
    there = [Node(node["Resources"], node.get("Labels", {})) for node in ray.nodes() if node["Alive"]]
    return there + _startable()


def _startable() -> list[Node]:
    """What this head's cluster may start when trials ask for it."""
    address = find_cluster()
    if address is None or address != ray.get_runtime_context().gcs_address:
        return []
    config = yaml.safe_load(_cluster_file().read_text())
    return [
        Node(
            kind["resources"],
            kind.get("labels", {}),
            number=int(kind.get("max_workers", config.get("max_workers", 0))),
            on_demand=True,
        )
        for name, kind in config.get("available_node_types", {}).items()
        if name != config.get("head_node_type") and kind.get("resources")
    ]
