"""Connects to Ray, on this machine or on a cluster; checks the nodes' packages and lists the nodes."""

from __future__ import annotations

import logging
import os
import platform
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib import metadata
from pathlib import Path
from typing import Any

# Ray reads these when it is imported: no usage statistics, no warning that frequent checkpoints are slow, no result
# files.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
os.environ.setdefault("TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S", "0")
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
# Trials that wait at once: more than one, so that none waits behind one with another demand, and clusters grow quickly.
os.environ.setdefault("TUNE_MAX_PENDING_TRIALS_PG", "200")

import ray
import yaml
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from grid.commit import CODE
from grid.devices import REMEDY
from grid.nodes import Node
from grid.private import check_token_is_private, keep_token_private, read_own
from grid.settings import ClusterError

ROOT = Path(__file__).resolve().parents[1]
ANSWER_SECONDS = 180.0  # for all nodes to report their packages
# Another version of one of these on a node could change a result, or keep a trial from starting.
PACKAGES = (
    "mlflow", "numpy", "open_clip_torch", "pandas", "pillow", "pyarrow", "ray", "safetensors", "scikit-learn", "scipy",
    "segment-anything", "timm", "torch", "torchvision",
)  # fmt: skip


def find_cluster() -> str | None:
    """Address of the cluster that `ray up` started with this machine as its head; None if there is none.

    A Ray that was started in another way does not count: it may have another purpose.

    Raises:
        ClusterError: the file in which Ray tells the address may be somebody else's; who stands in it gets the token.
    """
    if not _cluster_file().is_file():
        return None
    current = Path(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()) / "ray" / "ray_current_cluster"
    return (read_own(current) or "").strip() or None  # `ray stop` removes the file


def _cluster_file() -> Path:
    return Path.home() / "ray_bootstrap_config.yaml"  # where `ray up` puts it


def excludes(root: Path) -> list[str]:
    """Patterns, as in `.gitignore`, of files that are not sent to the workers: everything except code.

    Ray refuses to send 512 MiB or more, and a corpus, a cache or weights may lie in the checkout.
    """
    others = [re.sub(r"([^\w./-])", r"\\\1", path.name) for path in root.iterdir() if path.name not in CODE]
    return ["?*.?*", "!*.py", "!*.json", *(f"/{name}" for name in sorted(others))]


def connect(*, address: str | None = None, num_gpus: int | None = None, num_cpus: int | None = None) -> None:
    """Start Ray on this machine, or join a cluster. Workers always import the code of this checkout.

    Args:
        address: of a running cluster ("auto" on its head); None: start a local Ray.
        num_gpus: number of (logical) GPUs of the local Ray; None: those of the machine.
        num_cpus: number of CPU cores of the local Ray; None: those of the machine.

    Raises:
        ClusterError: the cluster does not answer, or refuses; or others can read its token.
    """
    if address is None:
        keep_token_private()
    else:
        check_token_is_private()
    local: dict[str, Any] = (
        {"num_gpus": num_gpus, "num_cpus": num_cpus, "include_dashboard": False} if address is None else {}
    )
    on_termination = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(
            address=address or "local",
            runtime_env={"working_dir": str(ROOT), "excludes": excludes(ROOT)},
            log_to_driver=False,
            logging_level=logging.ERROR,
            configure_logging=True,
            **local,
        )
    except (ConnectionError, RuntimeError, RayError, ValueError) as error:
        if address is None:
            raise
        hint = "Is it up (`ray status` on its head), and the address right? --local runs without Ray"
        if "runtime env" in str(error):  # this process is a Ray job with its own code
            hint = "Leave --working-dir out of `ray job submit`: a launch sends the code of its own checkout"
        raise ClusterError(f"cannot join the Ray cluster at {address}: {error}\n{hint}") from error
    signal.signal(signal.SIGTERM, on_termination)  # Ray's handler would end the process at once


@contextmanager
def session(*, check_gpus: bool = True, **connection: Any) -> Iterator[None]:
    """`connect` for the duration of a block, and `check_nodes` if it is a cluster."""
    connect(**connection)
    try:
        if connection.get("address"):
            check_nodes(gpus=check_gpus)
        yield
    finally:
        ray.shutdown()


def check_nodes(*, gpus: bool) -> None:
    """Raise `ClusterError` for nodes with other versions of packages than this process; the message lists them.

    The code itself travels with the job. Nodes that join later have the same set-up as those that are there.

    Args:
        gpus: refuse nodes with a GPU that torch cannot use too: trials would end there, one after another.
    """

    def report(packages: Sequence[str] = PACKAGES) -> dict[str, str]:  # pickled by value: the node imports no code
        versions = {"Python": platform.python_version()}
        for package in packages:
            with suppress(metadata.PackageNotFoundError):
                versions[package] = metadata.version(package)
        return versions

    def gpu_problem() -> str:
        # In a process of its own, which sees all GPUs, unlike this task, and leaves no memory of them in its worker.
        visible = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
        code = "from grid.devices import has_card, torch_problem; print((has_card() and torch_problem()) or '')"
        result = subprocess.run(
            [sys.executable, "-c", code],
            env=visible,
            capture_output=True,
            check=False,
            encoding="utf-8",
            errors="replace",
        )
        return (result.stdout if result.returncode == 0 else result.stderr).strip().rpartition("\n")[2]

    tasks, gpu_tasks = dict[str, Any](), dict[str, Any]()
    for node in ray.nodes():
        if node["Alive"]:
            name = f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']}, {node['NodeID'][:8]})"
            tasks[name] = _on_node(node["NodeID"], report)
            if gpus and node["Resources"].get("GPU"):
                gpu_tasks[name] = _on_node(node["NodeID"], gpu_problem)
    deadline = time.monotonic() + ANSWER_SECONDS
    problems: list[str] = []

    def answers(asked: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
        for name, task in asked.items():
            try:
                yield name, ray.get(task, timeout=max(0.0, deadline - time.monotonic()))
            except RayError as error:
                problems.append(f"{name}: does not answer ({type(error).__name__})")

    problems += version_differences(report(), dict(answers(tasks)))
    if problems:
        raise ClusterError(
            "these nodes differ from this machine:\n  " + "\n  ".join(problems) + "\n"
            "run `make setup` of this checkout on them (`ray up` does), or launch from a machine that is like them"
        )
    problems += [f"{name}: {problem}" for name, problem in answers(gpu_tasks) if problem]
    if problems:
        raise ClusterError(
            "these nodes have a GPU, and torch cannot use it:\n  " + "\n  ".join(problems) + f"\n{REMEDY}"
        )


def _on_node(node_id: str, function: Callable[[], Any]) -> Any:
    """Start a task on one node, which takes none of its resources."""
    strategy = NodeAffinitySchedulingStrategy(node_id, soft=False)
    task: Any = ray.remote(function)
    return task.options(num_cpus=0, max_retries=0, scheduling_strategy=strategy).remote()


def version_differences(driver: Mapping[str, str], nodes: Mapping[str, Mapping[str, str]]) -> list[str]:
    """One line per node that differs from the driver. Versions are by package, without packages that are missing."""
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
    """The resources of the connected Ray, and the number of nodes that it may start on demand."""
    nodes = [node for node in ray.nodes() if node["Alive"]]
    total = ray.cluster_resources()
    on_demand = sum(node.number for node in _startable())
    more = f"; workers start on demand, up to {on_demand} in all" if on_demand else ""
    return f"{len(nodes)} nodes, {total.get('CPU', 0):g} CPU cores, {total.get('GPU', 0):g} GPUs{more}"


def cluster_nodes() -> list[Node]:
    """The nodes of the connected Ray, and those that it may start on demand."""
    return [Node(node["Resources"], node.get("Labels", {})) for node in ray.nodes() if node["Alive"]] + _startable()


def _startable() -> list[Node]:
    """The nodes that this head's cluster may start when trials ask for them."""
    address = find_cluster()
    if address is None or address != ray.get_runtime_context().gcs_address:
        return []
    config = yaml.safe_load(_cluster_file().read_text(encoding="utf-8"))
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
