"""The scripts of clusters/, run in bash with stand-ins for the programs of a cluster."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TOKEN = "0123456789abcdef"


class Machine:
    """A home, a folder of Ray's, and a folder of stand-ins that comes first on the path."""

    def __init__(self, folder: Path) -> None:
        self.home, self.tmp, self.programs = folder / "home", folder / "tmp", folder / "bin"
        for path in (self.home / ".ray", self.tmp / "ray", self.programs):
            path.mkdir(parents=True)
        self.token = self.home / ".ray" / "auth_token"
        self.token.write_text(TOKEN)
        self.token.chmod(0o600)
        self.ray = self.tmp / "ray" / "ray_current_cluster"
        self.said = folder / "said.txt"  # what stand-ins were called with
        self.environment = {
            "HOME": str(self.home),
            "PATH": f"{self.programs}:{os.environ['PATH']}",
            "RAY_TMPDIR": str(self.tmp),
            "SAID": str(self.said),
        }

    def program(self, name: str, script: str = "") -> None:
        """A stand-in, which notes how it was called before it does anything."""
        path = self.programs / name
        path.write_text(f'#!/bin/bash\necho "{name} $*" >>"$SAID"\n{script}\n')
        path.chmod(0o755)

    def start(self, *command: str | Path, **variables: str) -> subprocess.Popen[str]:
        """Start a program from the checkout; its output can be read."""
        return subprocess.Popen(
            [str(part) for part in command],
            cwd=ROOT,
            env=self.environment | variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *command: str | Path, **variables: str) -> tuple[int, str]:
        """Status and output of a program that is run from the checkout."""
        process = self.start(*command, **variables)
        output, _ = process.communicate(timeout=60)
        return process.returncode, output

    def bash(self, script: str, **variables: str) -> tuple[int, str]:
        """Status and output of a few lines that have the functions of clusters/."""
        sourced = ". clusters/private.sh; . clusters/slurm_parts.sh\n"
        return self.run("bash", "-c", f"set -eu\n{sourced}{script}", **variables)

    def calls(self) -> list[str]:
        return self.said.read_text().splitlines() if self.said.exists() else []


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# The token -----------------------------------------------------------------------------------------------------------


def test_a_token_that_nobody_else_can_read_is_printed(machine: Machine) -> None:
    assert machine.bash("private_token") == (0, TOKEN)


@pytest.mark.parametrize("bits", [0o644, 0o640, 0o602])
def test_a_token_that_others_can_read_is_refused_with_the_remedy(machine: Machine, bits: int) -> None:
    machine.token.chmod(bits)
    code, output = machine.bash("private_token; echo went on")
    assert code == 1
    assert output == f"others can read {machine.token}, the key to the cluster: chmod 600 {machine.token}\n"
    machine.token.chmod(0o600)
    assert machine.bash("private_token") == (0, TOKEN)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")
def test_a_token_of_another_user_is_refused(machine: Machine) -> None:
    os.chown(machine.token, 12345, 12345)
    machine.program("id", "echo 54321")  # not root, whose files everybody trusts, and not the owner
    code, output = machine.bash("private_token")
    assert (code, "belongs to another user" in output) == (1, True)


def test_a_token_is_made_for_its_user_alone_and_once(machine: Machine) -> None:
    machine.token.unlink()
    machine.program("ray", f"echo new-{TOKEN} >{machine.token}")
    assert machine.bash("umask 022; make_token; private_token; umask") == (0, f"new-{TOKEN}\n0022\n")
    assert mode(machine.token) == 0o600
    assert machine.bash("make_token")[0] == 0
    assert machine.calls() == ["ray get-auth-token --generate"]


@pytest.mark.parametrize("script", ["up.sh", "mlflow_server.sh", "slurm.sh", "head_services.sh", "submit.sh"])
def test_no_script_goes_on_with_a_token_that_others_can_read(machine: Machine, script: str, tmp_path: Path) -> None:
    machine.token.chmod(0o644)
    machine.ray.write_text("10.0.0.1:6379")
    for name in ("ray", "mlflow", "srun", "python", "curl", "setsid"):
        machine.program(name)
    file = tmp_path / "mine.yaml"
    file.touch()
    code, output = machine.run(ROOT / "clusters" / script, file if script == "up.sh" else tmp_path / "folder")
    assert code == (3 if script == "mlflow_server.sh" else 1), output
    assert f"chmod 600 {machine.token}" in output
    assert machine.calls() == []


# Where Ray runs ------------------------------------------------------------------------------------------------------


def test_the_environment_of_a_node_has_the_address_and_the_password(machine: Machine) -> None:
    machine.ray.write_text("10.0.0.1:6379")
    script = ". clusters/environment.sh; echo $MLFLOW_TRACKING_URI $MLFLOW_TRACKING_USERNAME $MLFLOW_TRACKING_PASSWORD"
    assert machine.bash(script) == (0, f"http://10.0.0.1:5000 admin {TOKEN}\n")


@pytest.mark.parametrize("kind", ["a link", "a folder", "of another user"])
def test_an_address_that_another_user_could_have_written_is_not_trusted(
    machine: Machine, kind: str, tmp_path: Path
) -> None:
    (tmp_path / "elsewhere").write_text("10.6.6.6:6379")
    if kind == "a link":
        machine.ray.symlink_to(tmp_path / "elsewhere")
    elif kind == "a folder":
        machine.ray.mkdir()
    else:
        machine.ray.write_text("10.6.6.6:6379")
        machine.program("stat", "echo 54321")
    code, output = machine.bash('. clusters/environment.sh; echo "uri: ${MLFLOW_TRACKING_URI:-none}"')
    assert code == 0
    assert (
        output
        == f"{machine.ray} is not this user's own file, so it is not trusted: remove it, and start Ray again\n"
        + ("uri: none\n")
    )
    for name in ("mlflow", "curl", "setsid"):
        machine.program(name)
    code, output = machine.run(ROOT / "clusters" / "head_services.sh")
    assert (code, "is not trusted" in output) == (1, True)
    assert not {"mlflow", "curl", "setsid"} & {call.split()[0] for call in machine.calls()}


def test_without_a_ray_there_is_no_address_and_no_complaint(machine: Machine) -> None:
    assert machine.bash('. clusters/environment.sh; echo "${MLFLOW_TRACKING_URI:-none}"') == (0, "none\n")


# MLflow --------------------------------------------------------------------------------------------------------------

SERVER = ROOT / "clusters" / "mlflow_server.sh"


def test_the_password_of_the_database_is_in_no_command_line(machine: Machine, tmp_path: Path) -> None:
    machine.program("mlflow", 'echo "$MLFLOW_BACKEND_STORE_URI ${PGPASSWORD:-}"')
    database = "postgresql://grid@db.example/mlflow"
    code, output = machine.run(SERVER, tmp_path / "m", MLFLOW_HOSTS="h:5000", MLFLOW_DATABASE=database, PGPASSWORD="pw")
    assert (code, output) == (0, f"{database} pw\n")
    (call,) = machine.calls()
    assert "pw" not in call
    assert TOKEN not in call
    assert "db.example" not in call


@pytest.mark.parametrize(
    "database", ["postgresql://grid:pw@db/mlflow", "postgresql+psycopg://grid:p%40w@db:5432/mlflow"]
)
def test_a_password_in_the_address_of_the_database_is_refused(machine: Machine, database: str, tmp_path: Path) -> None:
    machine.program("mlflow")
    code, output = machine.run(SERVER, tmp_path / "m", MLFLOW_HOSTS="h:5000", MLFLOW_DATABASE=database)
    assert code == 3
    assert "~/.pgpass (chmod 600) or in PGPASSWORD" in output
    assert machine.calls() == []


def test_a_second_server_is_refused_and_takes_nothing_from_the_first(machine: Machine, tmp_path: Path) -> None:
    folder = tmp_path / "mlflow"
    machine.program("mlflow", "exec sleep 60")
    variables = {"MLFLOW_HOSTS": "h:5000", "MLFLOW_LOCK_SECONDS": "0.1"}
    first = machine.start(SERVER, folder, **variables)
    try:
        deadline = time.monotonic() + 30
        while not machine.calls():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        (folder / "auth.db").write_text("the first one's user")
        code, output = machine.run(SERVER, folder, **variables)
        assert code == 3
        assert f"another MLflow server has {folder} (host {os.uname().nodename}, process {first.pid}, since " in output
        assert "MLFLOW_DATA=FOLDER" in output
        assert (folder / "auth.db").read_text() == "the first one's user"
    finally:
        first.kill()
        first.communicate()
    machine.program("mlflow")
    assert machine.run(SERVER, folder, **variables)[0] == 0  # the lock ended with its holder
    assert not (folder / "auth.db").exists()


def test_records_are_copied_while_they_are_written_and_for_this_user_alone(tmp_path: Path) -> None:
    source, target = tmp_path / "mlflow.db", tmp_path / "backup" / "mlflow.db"
    target.parent.mkdir()
    copy = [sys.executable, str(ROOT / "clusters" / "copy_records.py"), str(source), str(target)]
    with closing(sqlite3.connect(source)) as records:
        records.execute("CREATE TABLE runs (name)")
        records.execute("INSERT INTO runs VALUES ('finished')")
        records.commit()
        records.execute("INSERT INTO runs VALUES ('half')")  # not committed
        subprocess.run(copy, check=True)
    with closing(sqlite3.connect(target)) as kept:
        assert kept.execute("SELECT name FROM runs").fetchall() == [("finished",)]
    assert mode(target) == 0o600
    source.write_text("not a database, and much longer than a header of one" * 99)
    done = subprocess.run(copy, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith(f"MLflow's records were not copied from {source} to {target}: ")
    with closing(sqlite3.connect(target)) as kept:  # the copy before stays
        assert kept.execute("SELECT name FROM runs").fetchall() == [("finished",)]


def test_another_head_goes_on_with_the_records_on_the_shared_folder(machine: Machine, tmp_path: Path) -> None:
    backup = tmp_path / "shared"
    backup.mkdir()
    with closing(sqlite3.connect(backup / "mlflow.db")) as records:
        records.execute("CREATE TABLE runs (name)")
    machine.ray.write_text("10.0.0.1:6379")
    machine.program("setsid", 'echo "$MLFLOW_ARTIFACTS" >>"$SAID"; exec sleep 5')
    machine.program("curl", 'grep -q artifacts "$SAID"')
    services = ROOT / "clusters" / "head_services.sh"
    python = f"{machine.programs}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    code, output = machine.run(services, MLFLOW_BACKUP=str(backup), PATH=python)
    assert (code, output.splitlines()[-1]) == (0, "MLflow: http://10.0.0.1:5000")
    records_here = machine.home / "mlflow" / "mlflow.db"
    with closing(sqlite3.connect(records_here)) as records:
        assert records.execute("SELECT name FROM sqlite_master").fetchall() == [("runs",)]
    assert str(backup / "artifacts") in machine.calls()
    records_here.write_text("newer than the copy")
    assert machine.run(services, MLFLOW_BACKUP=str(backup), PATH=python)[0] == 0
    assert records_here.read_text() == "newer than the copy"


def test_a_head_whose_server_refuses_to_start_says_why_at_once(machine: Machine) -> None:
    machine.ray.write_text("10.0.0.1:6379")
    machine.program("curl", "exit 7")
    machine.program("mlflow")
    started = time.monotonic()
    services, database = ROOT / "clusters" / "head_services.sh", "postgresql://grid:pw@db/mlflow"
    code, output = machine.run(services, MLFLOW_DATABASE=database)
    assert code == 1
    assert "MLFLOW_DATABASE has a password in it" in output
    assert f"its log is {machine.home / 'mlflow' / 'server.log'}" in output
    assert time.monotonic() - started < 20
    assert not any(call.startswith("mlflow") for call in machine.calls())


# `ray up` ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["cluster.yaml", "clusters/gcp.yaml"])
def test_a_file_with_placeholders_starts_nothing_and_names_their_lines(machine: Machine, name: str) -> None:
    machine.program("ray")
    machine.program("python")
    code, output = machine.run(ROOT / "clusters" / "up.sh", ROOT / name)
    assert code == 2
    lines = (ROOT / name).read_text().splitlines()
    left = [number for number, line in enumerate(lines, start=1) if "change-me" in line.partition("#")[0]]
    assert [int(line.partition(":")[0]) for line in output.splitlines()[:-1]] == left
    assert "nothing was started" in output
    assert machine.calls() == []


def test_ray_up_starts_in_the_checkout_wherever_one_stands(machine: Machine, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("cluster_name: mine    # no change-me is left\n")
    machine.program("ray", "pwd")
    machine.program("python")
    up = ["bash", "-c", f"cd {tmp_path} && {ROOT / 'clusters' / 'up.sh'} mine.yaml --no-config-cache -y"]
    code, output = machine.run(*up, PATH=f"{machine.programs}:/usr/bin:/bin")
    assert (code, output) == (0, f"{ROOT}\n")
    assert machine.calls() == ["python -m grid.commit", f"ray up {tmp_path / 'mine.yaml'} --no-config-cache -y"]


# An account of AWS ---------------------------------------------------------------------------------------------------

AWS = r"""
have() { [ -e "$STATE/$1" ]; }
fail() { echo "An error occurred ($1) when calling it" >&2; exit 254; }
make() { # thing, error where it is there already: the first try fails, before it makes the thing or after that
  have "$1" && fail "$2"
  have "$1.tried" || { touch "$STATE/$1.tried"; [ "$LATE" = no ] || touch "$STATE/$1"; fail ServiceUnavailable; }
  touch "$STATE/$1"
}
found() { have "$1" && echo "$2" || echo None; }
case "$1 $2 $*" in
  *describe-vpcs*) echo vpc-1 ;;
  *describe-subnets*) printf 'subnet-1\tsubnet-2\n' ;;
  *describe-key-pairs*) found key inpaint-grid ;;
  *create-key-pair*) LATE=no; make key InvalidKeyPair.Duplicate; echo private ;;
  *describe-security-groups*) found group sg-1 ;;
  *create-security-group*) make group InvalidGroup.Duplicate; echo sg-1 ;;
  *"--port 22"*) make ssh InvalidPermission.Duplicate ;;
  *"--protocol all"*) make members InvalidPermission.Duplicate ;;
  *create-role*) make role EntityAlreadyExists ;;
  *put-role-policy*) touch "$STATE/policy" ;;
  *create-instance-profile*) make profile EntityAlreadyExists ;;
  *get-instance-profile*) have role-in-profile && echo inpaint-grid-head || echo ;;
  *add-role-to-instance-profile*) make role-in-profile LimitExceeded ;;
  *"describe-file-systems --creation-token inpaint-grid"*) found files fs-1 ;;
  *"create-file-system --creation-token inpaint-grid"*) make files FileSystemAlreadyExists; echo fs-1 ;;
  *describe-file-systems*) echo available ;;
  *"subnet-1"*) make target-1 MountTargetConflict ;;
  *"subnet-2"*) make target-2 MountTargetConflict ;;
  *) fail Unknown ;;
esac
"""
THINGS = {"key", "group", "ssh", "members", "role", "profile", "role-in-profile", "files", "target-1", "target-2"}


@pytest.mark.parametrize("late", ["no", "yes"])
def test_what_an_account_needs_is_made_by_the_same_command_again_whichever_step_fails(
    machine: Machine, tmp_path: Path, late: str
) -> None:
    machine.program("aws", AWS)
    state = tmp_path / "account"
    state.mkdir()
    command = (ROOT / "clusters" / "aws_account.sh", "us-east-1", "us-east-1a,us-east-1b", "203.0.113.0/24")
    for _ in THINGS:  # each of them fails once
        code, output = machine.run(*command, STATE=str(state), LATE=late)
        assert code != 0
        assert "ServiceUnavailable" in output
        assert "the same command goes on with what is there" in output
    for _ in range(2):
        code, output = machine.run(*command, STATE=str(state), LATE=late)
        assert (code, output) == (0, "for cluster.yaml: security group sg-1, file system fs-1\n")
    assert {path.name for path in state.iterdir() if path.suffix != ".tried"} == THINGS | {"policy"}
    key = machine.home / ".ssh" / "inpaint-grid.pem"
    assert (key.read_text(), mode(key)) == ("private\n", 0o600)
    key.unlink()
    code, output = machine.run(*command, STATE=str(state), LATE=late)
    assert code == 2
    assert f"whose private half is not in {key}; nothing was changed" in output


# Slurm ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("own", "resolved", "given", "expected"),
    [
        ("172.17.0.1 10.1.0.5", "10.1.0.5", "", "10.1.0.5"),  # the first one is a bridge of this node only
        ("10.1.0.5", "127.0.1.1", "", "10.1.0.5"),
        ("10.1.0.5", "", "", "10.1.0.5"),
        ("", "10.1.0.5", "", "10.1.0.5"),
        ("10.1.0.5 10.2.0.5", "10.1.0.5", "10.2.0.5", "10.2.0.5"),
        ("", "", "", None),
        ("", "127.0.1.1", "", None),
        ("10.1.0.5", "10.9.9.9", "", None),
        ("10.1.0.5", "10.1.0.5", "10.9.9.9", None),
    ],
)
def test_the_head_of_a_job_has_an_address_that_others_reach_or_the_job_ends(
    machine: Machine, own: str, resolved: str, given: str, expected: str | None
) -> None:
    machine.program("hostname", f"echo '{own}'")
    machine.program("getent", f"[ -z '{resolved}' ] || echo '{resolved}      STREAM node1'")
    code, output = machine.bash("head_address", SLURMD_NODENAME="node1", HEAD_ADDRESS=given)
    if expected is None:
        assert code == 1
        assert "HEAD_ADDRESS=ADDRESS sbatch" in output
    else:
        assert (code, output) == (0, f"{expected}\n")


def test_of_two_processes_both_have_to_live(machine: Machine) -> None:
    script = "sleep 60 & one=$!; sleep 60 & two=$!; alive $one $two && echo both; kill $two; wait $two || true\n"
    code, output = machine.bash(script + "alive $one $two || echo one; kill $one")
    assert (code, output) == (0, "both\none\n")


@pytest.mark.parametrize(
    ("ended", "message"), [("mlflow", "the MLflow server has ended"), ("ray", "Ray's head has ended")]
)
def test_a_job_whose_server_or_head_has_ended_ends_at_once(machine: Machine, ended: str, message: str) -> None:
    machine.program("ray", "exit 1")
    machine.program("curl", "exit 1")
    script = "sleep 60 & mlflow=$!; sleep 60 & ray=$!; trap 'kill $mlflow $ray' EXIT\n"
    script += f"kill ${ended}; wait ${ended} || true\n"
    started = time.monotonic()
    code, output = machine.bash(f"{script}wait_for_services 10.0.0.1 $mlflow $ray")
    assert code == 1
    assert message in output
    assert time.monotonic() - started < 20


def test_a_job_starts_ray_on_all_its_nodes_then_the_launch(machine: Machine, tmp_path: Path) -> None:
    machine.program("hostname", "echo 10.1.0.5")
    machine.program("getent", "echo '10.1.0.5 STREAM node1'")
    machine.program("srun", "exec sleep 1")
    machine.program("mlflow", "exec sleep 1")
    for name in ("ray", "curl"):
        machine.program(name)
    machine.program("python", 'echo "launched at $RAY_ADDRESS, records at $MLFLOW_TRACKING_URI"; exit 3')
    path = f"{machine.programs}:{os.environ['PATH']}"
    job = tmp_path / "job"
    shutil.copytree(ROOT / "clusters", job / "clusters")
    process = subprocess.run(
        ["clusters/slurm.sh", "dolos", "--runs", "x"], cwd=job, capture_output=True, text=True, timeout=60,
        env=machine.environment | {"PATH": path, "SLURMD_NODENAME": "node1", "SLURM_JOB_NUM_NODES": "3"},
    )  # fmt: skip
    assert process.returncode == 3, process.stderr  # the launch's own
    assert process.stdout == "launched at 10.1.0.5:6379, records at http://10.1.0.5:5000\n"
    first, second = (call.split() for call in machine.calls() if call.startswith("srun"))
    assert first[1:4] == ["--nodes=1", "--ntasks=1", "--nodelist=node1"]
    assert second[1:4] == ["--nodes=2", "--ntasks=2", "--exclude=node1"]
    assert "python launch.py dolos --runs x" in machine.calls()
