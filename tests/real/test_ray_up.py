"""`ray up` on three hosts of the test's own, the demo's grid on them as a user would launch it, and `ray down`."""

from __future__ import annotations

import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from data.demo.recipe import DemoRecipe, make_demo
from grid import names
from grid.commit import git_state
from tests.cluster_lab.lab import ROOT, Lab, missing

WITHOUT = missing()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.long,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(bool(WITHOUT), reason=f"hosts cannot be made here: {WITHOUT}"),
]
METHODS = "residual_linear,clip_linear"

# Run on the head, in the environment that its shells have: one line a trial of an experiment, "status node share".
LIST_TRIALS = f"""
import sys
from mlflow.tracking import MlflowClient
client = MlflowClient()
(experiment,) = (e for e in client.search_experiments() if e.name == sys.argv[1])
for run in client.search_runs([experiment.experiment_id], "tags.`{names.ROLE}` = 'trial'"):
    artifacts = [artifact.path for artifact in client.list_artifacts(run.info.run_id)]
    assert {names.SCORES!r} in artifacts, artifacts
    print(run.info.status, run.data.tags["{names.NODE}"], run.data.tags["{names.GPU_SHARE}"])
"""


def write_cluster_file(lab: Lab) -> Path:
    """clusters/on-prem.yaml with what a person has to change in it, and nothing else."""
    config = yaml.safe_load((ROOT / "clusters" / "on-prem.yaml").read_text())
    head, *workers = lab.addresses.values()
    config["provider"] |= {"head_ip": head, "worker_ips": workers}
    config["auth"] = {"ssh_user": "root", "ssh_private_key": str(lab.key)}
    path = lab.folder / "cluster.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    folder = Path(tempfile.mkdtemp(prefix="lab"))  # not pytest's: Ray's sockets want a short path
    try:
        with Lab(folder, ("head", "one", "two")) as hosts:
            yield hosts
    finally:
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def cluster(lab: Lab) -> Path:
    """The cluster is up with all of its nodes."""
    file = write_cluster_file(lab)
    up = lab.laptop("clusters/up.sh", str(file), "-y", "--no-config-cache")
    assert up.returncode == 0, up.stdout + up.stderr
    wait_until(lambda: has_all_nodes(lab), "three nodes", seconds=300)
    return file


@pytest.fixture(scope="module")
def demo(lab: Lab) -> str:
    """`launch.py`'s first arguments: a small demo, in the folder that all hosts share."""
    shared = lab.folder / "shared"
    data = make_demo(shared, DemoRecipe(size=64, train=6, valid=4, test=4, version=1), workers=1)
    return f"demo1 --data {data} --runs {shared / 'runs'}"


def list_trials(lab: Lab, experiment: str) -> list[list[str]]:
    """[status, node, GPU share] of each trial that the head's MLflow has with its scores."""
    (lab.home("head") / "list.py").write_text(LIST_TRIALS)
    listed = lab.ssh("head", f"python list.py {experiment}")
    assert listed.returncode == 0, listed.stderr
    return sorted(line.split() for line in listed.stdout.splitlines())


def has_all_nodes(lab: Lab) -> bool:
    return "3 local.cluster.node" in lab.ssh("head", "ray status").stdout


def wait_until(condition: Callable[[], bool], what: str, *, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"no sign of {what}"
        time.sleep(2)


def test_the_token_is_private_on_every_host(lab: Lab, cluster: Path) -> None:
    tokens = [lab.home(host) / ".ray" / "auth_token" for host in ("laptop", *lab.hosts)]
    assert [token.stat().st_mode & 0o777 for token in tokens] == [0o600] * 4
    assert len({token.read_text() for token in tokens}) == 1


def test_the_copy_on_the_head_knows_its_commit(lab: Lab, cluster: Path) -> None:
    known = git_state()
    if known is None:
        pytest.skip("this is no git checkout")
    (commit, _) = known
    told = lab.ssh("head", "cd inpaint-grid && python -c 'from grid.commit import git_state; print(git_state()[0])'")
    assert told.stdout.strip() == commit, told.stderr


def test_the_demo_runs_on_a_cluster_that_it_finds_by_itself(lab: Lab, cluster: Path, demo: str) -> None:
    done = lab.ssh("head", f"cd inpaint-grid && python launch.py {demo} --methods {METHODS}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Ray cluster at 10.77.0.1:6379: 3 nodes" in done.stdout
    assert "10/10  done" in done.stdout
    assert "MLflow UI: http://10.77.0.1:5000" in done.stdout
    assert not (lab.folder / "shared" / "runs" / "mlflow.db").exists()  # the results are on the head's server

    rows = list_trials(lab, "demo1")
    assert [status for status, _, _ in rows] == ["FINISHED"] * 10
    assert {share for _, _, share in rows} == {"0"}
    assert len({node for _, node, _ in rows}) >= 2
    assert {node for _, node, _ in rows} <= set(lab.hosts)

    report = lab.ssh("head", "cd inpaint-grid && python -m analysis --experiment demo1 --no-cam --out ~/report")
    assert report.returncode == 0, report.stdout + report.stderr
    assert any((lab.home("head") / "report").rglob("*.html"))


class Laptop:
    """What docs/cluster.md says to type on the laptop."""

    def __init__(self, lab: Lab, cluster: Path) -> None:
        self._lab, self._cluster = lab, cluster

    def exec(self, command: str) -> str:
        """What a command prints on the head."""
        done = self._lab.laptop("ray", "exec", str(self._cluster), command)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def submit(self, options: str) -> str:
        """Id of the job."""
        (job,) = set(re.findall(r"raysubmit_\w+", self.exec(f"inpaint-grid/clusters/submit.sh {options}")))
        return job

    def status(self, options: str) -> str:
        """What the grid's --status prints, without colours; a refusal before the job has come so far."""
        printed = self.exec(f"cd inpaint-grid && python launch.py {options} --status || true")
        return re.sub(r"\x1b\[[0-9;]*m", "", printed)


def test_a_grid_that_is_submitted_from_the_laptop_runs_to_its_end(lab: Lab, cluster: Path, demo: str) -> None:
    laptop = Laptop(lab, cluster)
    options = f"{demo} --experiment-name submitted --methods residual_linear --seeds 1"
    job = laptop.submit(options)
    log = laptop.exec(f"ray job logs --follow {job}")  # until the job has ended
    assert "5 trials, 0 finished before, 5 to run" in log
    assert "Ray cluster at 10.77.0.1:6379: 3 nodes" in log
    assert "5/5  done" in log
    assert f"Job '{job}' succeeded" in laptop.exec(f"ray job status {job}")
    assert "5 finished of 5" in laptop.status(options)
    assert [status for status, _, _ in list_trials(lab, "submitted")] == ["FINISHED"] * 5


def test_a_submitted_grid_that_is_stopped_leaves_a_state_to_go_on_from(lab: Lab, cluster: Path, demo: str) -> None:
    laptop = Laptop(lab, cluster)
    endless = "--methods xception_scratch --set xception_scratch.epochs=1000000"
    options = f"{demo} --experiment-name stopped --tasks attribution {endless}"
    job = laptop.submit(options)
    wait_until(lambda: "1 running of 1" in laptop.status(options), "a running trial", seconds=180)
    laptop.exec(f"ray job stop {job}")
    assert f"Job '{job}' was stopped" in laptop.exec(f"ray job status {job}")
    assert "interrupted; the same command goes on from here" in laptop.exec(f"ray job logs {job}")
    assert "1 interrupted of 1" in laptop.status(options)


def test_mlflow_answers_those_who_know_the_token_and_nobody_else(lab: Lab, cluster: Path) -> None:
    url = "http://10.77.0.1:5000/api/2.0/mlflow/experiments/get?experiment_id=0"
    ask = f"curl --silent --output /dev/null --write-out %{{http_code}} {url}"
    assert lab.ssh("one", ask).stdout == "401"
    assert lab.ssh("one", f"{ask} --user admin:wrong").stdout == "401"
    assert lab.ssh("one", f"{ask} --user $MLFLOW_TRACKING_USERNAME:$MLFLOW_TRACKING_PASSWORD").stdout == "200"


def test_the_dashboard_is_on_the_heads_loopback_only_and_mlflow_there_too(lab: Lab, cluster: Path) -> None:
    ask = "curl --silent --output /dev/null --max-time 20 http://{}"
    assert lab.ssh("head", ask.format("127.0.0.1:8265")).returncode == 0
    assert lab.ssh("one", ask.format("10.77.0.1:8265")).returncode == 7  # nobody listens
    forwarded = (
        "curl --silent --fail --user admin:$MLFLOW_TRACKING_PASSWORD http://localhost:5000/"  # by `ray attach -p`
    )
    assert lab.ssh("head", forwarded).returncode == 0


def test_ray_refuses_those_who_do_not_know_the_token(lab: Lab, cluster: Path) -> None:
    stranger = lab.ssh("one", "RAY_AUTH_MODE=disabled HOME=/tmp ray status --address 10.77.0.1:6379")
    assert stranger.returncode != 0


def test_records_outlive_a_restart_of_the_head(lab: Lab, cluster: Path) -> None:
    before = list_trials(lab, "demo1")
    assert before
    again = lab.laptop("ray", "up", "-y", "--no-config-cache", str(cluster))
    assert again.returncode == 0, again.stdout + again.stderr
    assert list_trials(lab, "demo1") == before
    wait_until(lambda: has_all_nodes(lab), "three nodes", seconds=300)


def test_ray_down_leaves_nothing_behind(lab: Lab, cluster: Path) -> None:
    down = lab.laptop("ray", "down", "-y", str(cluster))
    assert down.returncode == 0, down.stdout + down.stderr

    def left() -> list[str]:
        own = ("unshare ", "sshd:")  # the hosts' own
        return [line for host in lab.hosts for line in lab.processes(host) if line and not line.startswith(own)]

    wait_until(lambda: not left(), f"an end of {left()}", seconds=300)  # workers miss their head after a minute
