"""cluster.yaml on an AWS that runs here, from `ray up` to `ray down` and back: what machines are told by SSH."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.slow, pytest.mark.long]
SETUP, MOUNT, START = "make setup", "mount -t nfs4", "ray start --head"


class Account:
    """An AWS account with what docs/cluster.md says to make, and a laptop whose `ssh` only takes notes.

    Args:
        folder: empty.
        endpoint: of the AWS that runs here.
    """

    def __init__(self, folder: Path, endpoint: str) -> None:
        self.checkout, self.notes = folder / "checkout", folder / "notes"
        home, programs = folder / "home", folder / "bin"
        for path in (home / ".ssh", home / ".ray", programs, self.checkout):
            path.mkdir(parents=True)
        for name in ("clusters", "grid"):  # Ray reads all of what it copies
            shutil.copytree(ROOT / name, self.checkout / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("ssh", "rsync"):
            (programs / name).write_text(f'#!/bin/bash\nprintf "%s\\n" "{name} ${{*: -1}}" >>"{self.notes}"\n')
            (programs / name).chmod(0o755)
        (home / ".ssh" / "inpaint-grid.pem").touch(mode=0o600)
        (home / ".ray" / "auth_token").touch(mode=0o600)
        (home / ".ray" / "auth_token").write_text("0123456789abcdef")
        self.environment = {
            "HOME": str(home),
            "PATH": f"{programs}:{Path(sys.executable).parent}:{os.environ['PATH']}",
            "TMPDIR": str(folder),
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "RAY_USAGE_STATS_ENABLED": "0",
            "PYTHONDONTWRITEBYTECODE": "1",  # new files in the checkout are a reason to set up again
        }
        options = {"endpoint_url": endpoint, "aws_access_key_id": "test", "aws_secret_access_key": "test"}
        self.ec2 = boto3.client("ec2", region_name="us-east-1", **options)
        self.iam = boto3.client("iam", region_name="us-east-1", **options)
        self.file = self._fill_in()

    def _fill_in(self) -> Path:
        """cluster.yaml with what its placeholders stand for, made in the account."""
        self.ec2.create_key_pair(KeyName="inpaint-grid")
        (network,) = self.ec2.describe_vpcs()["Vpcs"]
        group = self.ec2.create_security_group(GroupName="grid", Description="grid", VpcId=network["VpcId"])["GroupId"]
        role = {"Action": "sts:AssumeRole", "Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}}
        self.iam.create_role(RoleName="inpaint-grid-head", AssumeRolePolicyDocument=json.dumps({"Statement": [role]}))
        policy = (ROOT / "clusters" / "aws_policy.json").read_text()
        self.iam.put_role_policy(RoleName="inpaint-grid-head", PolicyName="grid", PolicyDocument=policy)
        self.iam.create_instance_profile(InstanceProfileName="inpaint-grid-head")
        self.iam.add_role_to_instance_profile(InstanceProfileName="inpaint-grid-head", RoleName="inpaint-grid-head")
        image = self.ec2.describe_images()["Images"][0]["ImageId"]
        text = (ROOT / "cluster.yaml").read_text()
        for placeholder, value in {"ami-change-me": image, "sg-change-me": group, "fs-change-me": "fs-0123"}.items():
            text = text.replace(placeholder, value)
        file = self.checkout / "cluster.yaml"
        file.write_text(text)
        return file

    def contents(self) -> dict[str, Any]:
        """What `ray up` by itself would make in an account."""
        return {
            "keys": [key["KeyName"] for key in self.ec2.describe_key_pairs()["KeyPairs"]],
            "groups": sorted(group["GroupName"] for group in self.ec2.describe_security_groups()["SecurityGroups"]),
            "roles": [role["RoleName"] for role in self.iam.list_roles()["Roles"]],
            "profiles": [each["InstanceProfileName"] for each in self.iam.list_instance_profiles()["InstanceProfiles"]],
        }

    def machines(self) -> list[dict[str, Any]]:
        reservations = self.ec2.describe_instances()["Reservations"]
        return [machine for reservation in reservations for machine in reservation["Instances"]]

    def run(self, *command: str | Path) -> tuple[int, str, list[str]]:
        """Status, output, and what machines were told."""
        self.notes.write_text("")
        done = subprocess.run(
            [str(part) for part in command], env=self.environment, cwd=self.environment["HOME"], text=True, timeout=120,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        return done.returncode, done.stdout, self.notes.read_text().splitlines()

    def up(self) -> tuple[int, str, list[str]]:
        return self.run(self.checkout / "clusters" / "up.sh", self.file, "-y", "--no-config-cache")


@pytest.fixture
def account(tmp_path: Path) -> Iterator[Account]:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    urllib.request.urlopen(urllib.request.Request(f"{endpoint}/moto-api/reset", method="POST")).close()
    yield Account(tmp_path, endpoint)
    server.stop()


def count(words: str, told: list[str]) -> int:
    return sum(words in line for line in told)


def test_a_head_that_was_stopped_comes_back_with_its_shared_folder(account: Account) -> None:
    before = account.contents()
    code, output, told = account.up()
    assert code == 0, output
    assert [count(words, told) for words in (SETUP, MOUNT, START)] == [1, 1, 1]
    copied = [line for line in told if line.startswith("rsync ")]
    assert any(line.endswith(":~/inpaint-grid/") for line in copied), copied
    assert account.contents() == before
    (head,) = account.machines()
    assert head["MetadataOptions"]["HttpTokens"] == "required"
    assert head["IamInstanceProfile"]["Arn"].endswith("/inpaint-grid-head")
    assert head["Placement"]["AvailabilityZone"] in ("us-east-1a", "us-east-1b")
    volumes = account.ec2.describe_volumes()["Volumes"]
    assert {volume["Encrypted"] for volume in volumes} == {True}

    code, output, _ = account.run("ray", "down", "-y", account.file)
    assert code == 0, output
    assert [machine["State"]["Name"] for machine in account.machines()] == ["stopped"]

    code, output, told = account.up()
    assert code == 0, output
    (again,) = account.machines()
    assert (again["InstanceId"], again["State"]["Name"]) == (head["InstanceId"], "running")
    assert [count(words, told) for words in (SETUP, MOUNT, START)] == [0, 1, 1]  # Ray sets it up no second time
    assert told.index(next(line for line in told if MOUNT in line)) < told.index(
        next(line for line in told if START in line)
    )


def test_even_without_up_sh_nothing_is_made_for_a_file_that_is_not_filled_in(account: Account) -> None:
    before = account.contents()
    shutil.copy(ROOT / "cluster.yaml", account.file)
    code, output, told = account.run("ray", "up", "-y", "--no-config-cache", account.file)
    assert code != 0
    assert "SecurityGroupIds" in output
    assert told == []
    assert account.contents() == before
    assert account.machines() == []


@pytest.mark.parametrize("value", ["fs-0123", "ami-", "sg-"])
def test_one_placeholder_that_is_left_is_refused_with_its_line(account: Account, value: str) -> None:
    lines = account.file.read_text().splitlines()
    number = next(number for number, line in enumerate(lines) if value in line)
    lines[number] = lines[number].replace(value, f"{value}change-me", 1)
    account.file.write_text("\n".join(lines))
    before = account.contents()
    code, output, told = account.up()
    assert (code, told) == (2, []), output
    assert output.startswith(f"{number + 1}:")
    assert account.contents() == before
    assert account.machines() == []
