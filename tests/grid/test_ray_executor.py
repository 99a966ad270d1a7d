"""What the Ray executor decides by itself; Ray is started only in tests/real."""

from __future__ import annotations

import os
import shutil
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from ray._private.runtime_env.packaging import create_package
from ray.exceptions import NodeDiedError, OutOfMemoryError, RayTaskError
from ray.remote_function import RemoteFunction
from ray.tune.experiment import Trial

from grid import cluster, ray_executor
from grid.nodes import Demand, Node, check_feasible, num_gpus, slots, trial_demand
from grid.plan import Inputs, Work
from grid.preparing import prepare_input, survey_input
from grid.runner import DONE, FAILED, STARTED, TrialEvent
from grid.settings import ClusterError, InfeasibleError, RunSettings
from grid.spec import TrialSpec
from grid.tracking import Tracker
from models.detector import MemoryExhausted
from tests.grid.grids import work_of

Watch = Callable[[TrialEvent], None]


def out_of_memory() -> RuntimeError:
    """As Ray 2.60 raises it from `Tuner.fit`."""
    error = RuntimeError("Caught unexpected exception")
    error.__cause__ = OutOfMemoryError("a worker was killed")
    return error


@pytest.fixture
def executor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ray_executor.RayExecutor:
    monkeypatch.setattr(ray_executor.ray, "shutdown", lambda: None)
    monkeypatch.setattr(ray_executor, "connect", lambda **connection: None)
    uri = f"sqlite:///{tmp_path / 'none'}"
    settings = RunSettings(cache=tmp_path / "cache", runs=tmp_path / "runs", tracking_uri=uri)
    return ray_executor.RayExecutor(settings, Tracker(uri, "0", "0", {}))


@pytest.fixture
def trials() -> list[TrialSpec]:
    return [TrialSpec("detection", "residual_linear", (), ("a",), seed, "0" * 16) for seed in range(6)]


def test_when_memory_runs_out_the_rest_goes_on_with_half_as_many_at_once(
    executor: ray_executor.RayExecutor, trials: list[TrialSpec], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[list[str], int]] = []

    def tune(self: Any, work: Sequence[Work], folder: Path, at_once: int, watch: Watch) -> None:
        calls.append(([one.key for one in work], at_once))
        for one in work[: 5 if len(calls) == 1 else None]:
            watch(TrialEvent(one.key, STARTED))
        watch(TrialEvent(work[0].key, DONE))
        if len(calls) == 1:
            raise out_of_memory()
        for one in work[1:]:
            watch(TrialEvent(one.key, DONE))

    monkeypatch.setattr(ray_executor.RayExecutor, "_tune", tune)
    events: list[TrialEvent] = []
    executor.run(work_of(trials), events.append)
    keys = [trial.key for trial in trials]
    assert calls == [(keys, 0), (keys[1:], 2)]
    assert {event.key for event in events if event.kind == DONE} == set(keys)


def test_a_trial_that_is_too_large_alone_fails_and_the_others_go_on(
    executor: ray_executor.RayExecutor, trials: list[TrialSpec], monkeypatch: pytest.MonkeyPatch
) -> None:
    def tune(self: Any, work: Sequence[Work], folder: Path, at_once: int, watch: Watch) -> None:
        for one in work:
            watch(TrialEvent(one.key, STARTED))
            if one.spec == trials[1]:
                raise out_of_memory()
            watch(TrialEvent(one.key, DONE))

    monkeypatch.setattr(ray_executor.RayExecutor, "_tune", tune)
    events: list[TrialEvent] = []
    executor.run(work_of(trials), events.append)
    failed = [event for event in events if event.kind == FAILED]
    assert [event.key for event in failed] == [trials[1].key]
    assert "more memory than there is" in failed[0].error
    assert sum(event.kind == DONE for event in events) == 5


def test_another_error_of_ray_is_not_taken_for_memory(
    executor: ray_executor.RayExecutor, trials: list[TrialSpec], monkeypatch: pytest.MonkeyPatch
) -> None:
    def tune(self: Any, work: Sequence[Work], folder: Path, at_once: int, watch: Watch) -> None:
        watch(TrialEvent(work[0].key, STARTED))
        raise RuntimeError("something else")

    monkeypatch.setattr(ray_executor.RayExecutor, "_tune", tune)
    with pytest.raises(RuntimeError, match="something else"):
        executor.run(work_of(trials), lambda event: None)


def test_an_epoch_that_is_new_starts_the_count_of_failures_anew(
    executor: ray_executor.RayExecutor, trials: list[TrialSpec], monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = []

    class Tuner:
        """Tells the call-backs that a worker died before each of these epochs."""

        def __init__(self, *arguments: Any, run_config: Any, **more: Any) -> None:
            (self.watcher,) = run_config.callbacks

        def fit(self) -> None:
            trial: Any = SimpleNamespace(
                config={"trial": {"key": trials[0].key}}, run_metadata=SimpleNamespace(num_failures=0), last_result={}
            )
            for epoch in (1, 1, 2, 1, 2, 3):
                trial.run_metadata.num_failures += 1
                self.watcher.on_trial_result(0, [], trial, {"epoch": epoch})
                counts.append(trial.run_metadata.num_failures)

    no_images = SimpleNamespace(table=pd.DataFrame(columns=["generator", "split", "label"]))
    monkeypatch.setattr(ray_executor.Manifest, "load", lambda folder: no_images)
    monkeypatch.setattr(ray_executor, "Tuner", Tuner)
    monkeypatch.setattr(cluster, "find_cluster", lambda: None)
    monkeypatch.setattr(ray_executor.ray, "nodes", list)
    executor.run(work_of(trials[:1]), lambda event: None)
    assert counts == [0, 1, 0, 1, 2, 0]


# The cluster ---------------------------------------------------------------------------------------------------------

HERE = {"Python": "3.11.7", "ray": "2.60.0", "timm": "1.0.31", "torch": "2.15.0"}


def test_trials_begin_in_their_order_and_one_that_is_tried_again_goes_to_the_end() -> None:
    first, second, third = (Trial("trial", stub=True) for _ in range(3))
    scheduler, controller = ray_executor._InTurn(), SimpleNamespace()
    for trial in (first, second, third):
        scheduler.on_trial_add(controller, trial)
    assert scheduler.choose_trial_to_run(controller) is first
    assert scheduler.choose_trial_to_run(controller) is first  # until Tune has begun it
    first.set_status(Trial.RUNNING)
    assert scheduler.choose_trial_to_run(controller) is second
    second.set_status(Trial.TERMINATED)
    first.set_status(Trial.ERROR)  # and tried again, as Tune does it
    scheduler.on_trial_error(controller, first)
    first.set_status(Trial.PENDING)
    scheduler.on_trial_add(controller, first)
    assert scheduler.choose_trial_to_run(controller) is third
    third.set_status(Trial.ERROR)
    scheduler.on_trial_error(controller, third)
    assert scheduler.choose_trial_to_run(controller) is first
    first.set_status(Trial.TERMINATED)
    assert scheduler.choose_trial_to_run(controller) is None


def test_nodes_as_the_driver_have_no_differences() -> None:
    assert cluster.version_differences(HERE, {"one": dict(HERE), "two": dict(HERE)}) == []


def test_a_node_that_differs_is_named_with_every_package_that_does() -> None:
    other = HERE | {"torch": "2.14.0", "Python": "3.12.1"}
    (line,) = cluster.version_differences(HERE, {"one": HERE, "two": other})
    assert line == "two: Python 3.12.1 (here 3.11.7), torch 2.14.0 (here 2.15.0)"


def test_a_package_that_only_one_of_both_has_is_a_difference() -> None:
    less = {name: version for name, version in HERE.items() if name != "timm"}
    assert cluster.version_differences(HERE, {"one": less}) == ["one: timm missing (here 1.0.31)"]
    assert cluster.version_differences(less, {"one": HERE}) == ["one: timm 1.0.31 (here missing)"]


def test_nodes_are_named_in_order() -> None:
    other = HERE | {"ray": "2.59.0"}
    lines = cluster.version_differences(HERE, {"b": other, "a": other})
    assert [line[0] for line in lines] == ["a", "b"]


@pytest.fixture
def head(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """This machine as the head of a cluster that `ray up` has brought up: the folder that is home and holds Ray's."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    (tmp_path / "ray_bootstrap_config.yaml").write_text("{}")
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "ray_current_cluster").write_text("10.0.0.1:6379\n")
    return tmp_path


def test_on_a_head_its_cluster_is_found(head: Path) -> None:
    assert cluster.find_cluster() == "10.0.0.1:6379"


@pytest.mark.parametrize("gone", ["ray_bootstrap_config.yaml", "ray/ray_current_cluster"])
def test_a_ray_that_is_down_or_somebody_elses_is_not_taken_for_it(head: Path, gone: str) -> None:
    (head / gone).unlink()
    assert cluster.find_cluster() is None


def test_an_address_that_another_user_could_have_written_is_not_trusted(head: Path) -> None:
    address = head / "ray" / "ray_current_cluster"
    address.rename(head / "elsewhere")
    address.symlink_to(head / "elsewhere")
    with pytest.raises(ClusterError, match=f"{address} is not trusted"):
        cluster.find_cluster()


class FakeRay:
    """A connected Ray whose only node is the head of a cluster that scales from zero."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, address: str) -> None:
        self.gcs_address = address
        node = {"Alive": True, "Resources": {"memory": 1e9}}
        monkeypatch.setattr(ray_executor.ray, "nodes", lambda: [node])
        monkeypatch.setattr(ray_executor.ray, "cluster_resources", lambda: node["Resources"])
        monkeypatch.setattr(ray_executor.ray, "get_runtime_context", lambda: self)


def write_cluster_file(head: Path) -> None:
    shutil.copy(Path(cluster.ROOT) / "cluster.yaml", head / "ray_bootstrap_config.yaml")


def test_what_the_cluster_can_start_counts_though_no_worker_is_there_yet(
    head: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    FakeRay(monkeypatch, "10.0.0.1:6379")
    write_cluster_file(head)
    nodes = cluster.cluster_nodes()
    assert num_gpus(nodes) == 16
    assert "workers start on demand, up to 4 in all" in cluster.describe_cluster()
    settings = RunSettings(
        cache=head, runs=head, tracking_uri="", accelerator="A10G", gpu_memory=6, memory_per_trial=30
    )
    demand = trial_demand("clip_linear", settings, nodes)
    assert demand.labels == {"gpu-memory-gb": "in(24)"}
    check_feasible({"clip_linear": demand}, nodes)
    assert slots(demand, nodes) == 16
    with pytest.raises(InfeasibleError, match=r"4 × 48 CPU, 4 GPU \(A10G, 24 GB each\).*, started on demand"):
        check_feasible({"clip_linear": Demand({"CPU": 1, "GPU": 5})}, nodes)


def test_another_cluster_than_this_heads_can_start_nothing_for_us(head: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    FakeRay(monkeypatch, "10.9.9.9:6379")
    write_cluster_file(head)
    nodes = cluster.cluster_nodes()
    assert num_gpus(nodes) == 0
    with pytest.raises(InfeasibleError):
        check_feasible({"clip_linear": Demand({"CPU": 1, "GPU": 0.25})}, nodes)


# Ends ----------------------------------------------------------------------------------------------------------------


def test_only_what_is_done_loses_its_checkpoints(
    executor: ray_executor.RayExecutor, trials: list[TrialSpec], monkeypatch: pytest.MonkeyPatch
) -> None:
    def tune(self: Any, work: Sequence[Work], folder: Path, at_once: int, watch: Watch) -> None:
        for one in work:
            (folder / one.key / "checkpoint_000000").mkdir(parents=True)
            watch(TrialEvent(one.key, STARTED))
        watch(TrialEvent(work[0].key, DONE))
        watch(TrialEvent(work[1].key, FAILED, error="no"))  # the others are interrupted

    monkeypatch.setattr(ray_executor.RayExecutor, "_tune", tune)
    executor.run(work_of(trials), lambda event: None)
    left = {path.parent.name for path in executor.settings.checkpoints("0").glob("*/*/checkpoint_*")}
    assert left == {trial.key for trial in trials[1:]}


# Code ----------------------------------------------------------------------------------------------------------------


def test_workers_get_the_code_and_nothing_else_whatever_lies_in_the_checkout(tmp_path: Path) -> None:
    code = ["launch.py", "grid/plan.py", "grid/experiments/demo.py", "models/architectures/small.json"]
    others = [
        ".venv/lib/torch.py", "runs-b/cache/rows.npy", "dolos/celebahq/real/test/0.png", "data/dolos/real/0.png",
        "models/clip.safetensors", "sam [vit b].pth", "!odd/x.py", "tests/test_plan.py", "README.md",
    ]  # fmt: skip
    for name in (*code, *others):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("1")
    package = tmp_path.parent / f"{tmp_path.name}.zip"
    create_package(str(tmp_path), package, excludes=cluster.excludes(tmp_path), include_gitignore=True)
    with zipfile.ZipFile(package) as sent:
        assert {name for name in sent.namelist() if not name.endswith("/")} == set(code)


def test_every_module_of_this_checkout_is_sent(tmp_path: Path) -> None:
    create_package(
        str(cluster.ROOT), tmp_path / "x.zip", excludes=cluster.excludes(cluster.ROOT), include_gitignore=True
    )
    with zipfile.ZipFile(tmp_path / "x.zip") as sent:
        names = set(sent.namelist())
    wanted = {path for package in ("grid", "models", "data") for path in (cluster.ROOT / package).rglob("*.py")}
    assert {path.relative_to(cluster.ROOT).as_posix() for path in wanted} <= names
    assert "models/architectures/demo-vit-64.json" in names


# Preparing -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("num_images", "share", "num_gpus", "slots", "expected"),
    [
        (0, 0.25, 2, 8, (0, 0.25)),
        (1, 0.25, 2, 8, (1, 1.0)),
        (256, 0.25, 2, 8, (2, 1.0)),  # one on each GPU, where Ray would put both on the first
        (257, 0.25, 2, 8, (3, 0.5)),
        (10**6, 0.25, 2, 8, (8, 0.25)),
        (10**6, 0.25, 8, 16, (16, 0.5)),  # the cores allow no more
        (10**6, 0.2, 1, 5, (5, 0.2)),
        (10**6, 2.0, 8, 4, (4, 2.0)),
        (10**6, 0.0, 8, 64, (64, 0.0)),
        (10**6, 0.0, 0, 2, (2, 0.0)),
    ],
)
def test_what_is_missing_is_spread_over_all_gpus(
    num_images: int, share: float, num_gpus: float, slots: int, expected: tuple[int, float]
) -> None:
    assert ray_executor.spread(num_images, share=share, num_gpus=num_gpus, slots=slots) == expected


def test_asking_what_could_be_started_starts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray starts itself, unasked, when some of its functions are called first."""
    monkeypatch.setattr(cluster, "find_cluster", lambda: None)
    monkeypatch.setattr(ray_executor.ray, "nodes", lambda: [{"Alive": True, "Resources": {"CPU": 2.0}}])
    assert cluster.cluster_nodes() == [Node({"CPU": 2.0})]
    assert not ray_executor.ray.is_initialized()


@pytest.mark.parametrize(("share", "tasks"), [(0.25, 1), (1.0, 1), (0.0, 0)])
def test_the_worker_of_a_task_that_had_a_gpu_ends_with_it(
    executor: ray_executor.RayExecutor,
    trials: list[TrialSpec],
    monkeypatch: pytest.MonkeyPatch,
    share: float,
    tasks: int,
) -> None:
    started: list[RemoteFunction] = []
    monkeypatch.setattr(RemoteFunction, "_remote", lambda self, *arguments, **options: started.append(self))
    executor._task(survey_input, Inputs(trials[0]), executor.settings, Demand({"CPU": 1, "GPU": share}))
    assert [task._max_calls for task in started] == [tasks]  # 0: as many as there are


def test_a_node_that_does_not_see_the_cache_is_named(
    executor: ray_executor.RayExecutor, trials: list[TrialSpec]
) -> None:
    inputs, settings = Inputs(trials[0]), executor.settings
    message = rf"{os.uname().nodename} does not see {settings.cache}: give --runs"
    with pytest.raises(ValueError, match=message):
        survey_input(inputs, settings, 0.0)
    with pytest.raises(ValueError, match=message):
        prepare_input(inputs, settings, 0.0, lambda done, total: None)


@pytest.mark.parametrize(
    ("error", "raised", "message"),
    [
        (RayTaskError("survey_input", "a traceback", ValueError("a file has changed")), ValueError, "^a file has"),
        (RayTaskError("survey_input", "a traceback", MemoryExhausted("not one")), MemoryExhausted, "^not one$"),
        (RayTaskError("survey_input", "a traceback", KeyError("x")), RayTaskError, "a traceback"),
        (
            NodeDiedError("the node is gone\nand more"),
            ClusterError,
            r"^clip: its images .* goes on .*node is gone.*\)$",
        ),
    ],
)
def test_what_ends_a_preparing_task_is_told_without_rays_words(
    monkeypatch: pytest.MonkeyPatch, error: Exception, raised: type[Exception], message: str
) -> None:
    def get(task: object) -> None:
        raise error

    monkeypatch.setattr(ray_executor.ray, "get", get)
    with pytest.raises(raised, match=message):
        ray_executor.task_result(None, "clip")
