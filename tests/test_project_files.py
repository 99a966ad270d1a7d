"""Files beside the code: the container, the workflows of a host, and what a citation says."""

from __future__ import annotations

import fnmatch
import json
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from tests.pages import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
TARGETS = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))
SECRETS = re.compile(r"(?i)(password|secret|token|api_?key|AWS_\w+KEY)\s*[=:]\s*\S")


def tracked() -> list[str]:
    """Files of the checkout, also new ones, without those that git ignores."""
    words = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip("this is a copy without git")
    return done.stdout.splitlines()


# The container -------------------------------------------------------------------------------------------------------


def instructions() -> list[tuple[str, str]]:
    """(instruction, rest) of the Dockerfile, continued lines joined, without comments."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n", " ", "\n".join(lines))
    return [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1].strip()) for line in joined.splitlines()]


STEPS = instructions()
KNOWN = {"ARG", "FROM", "RUN", "WORKDIR", "COPY", "ENV", "USER", "ENTRYPOINT", "CMD"}


def of(instruction: str) -> list[str]:
    return [rest for name, rest in STEPS if name == instruction]


def test_every_line_is_an_instruction() -> None:
    assert {name for name, _ in STEPS} <= KNOWN
    for rest in (*of("ENTRYPOINT"), *of("CMD")):
        assert all(isinstance(word, str) for word in json.loads(rest))


def test_one_file_has_an_image_for_cpus_and_one_for_gpus() -> None:
    assert of("ARG") == ["DEVICE=gpu"]
    assert STEPS[0][0] == "ARG"  # before the first FROM, so that the last one can use it
    stages = dict(reversed(rest.split(" AS ")) for rest in of("FROM")[:-1])
    assert stages == {"base": stages["base"], "cpu": "base", "gpu": "base"}
    assert of("FROM")[-1] == "${DEVICE}"
    page = (ROOT / "docs" / "launch.md").read_text(encoding="utf-8")
    assert set(re.findall(r"--build-arg DEVICE=(\w+)", page)) == {"cpu", "gpu"}


def test_its_python_and_its_packages_are_those_of_the_project() -> None:
    image = re.fullmatch(r"python:(\d+)\.(\d+)-slim-\w+ AS base", of("FROM")[0])
    assert image is not None
    lowest = re.fullmatch(r">=(\d+)\.(\d+)", PROJECT["requires-python"])
    assert lowest is not None
    assert tuple(map(int, image.groups())) >= tuple(map(int, lowest.groups()))
    (installs,) = [rest for rest in of("RUN") if "make setup" in rest]
    assert "pip" not in installs  # `make setup` alone installs, from the lock and by its hashes
    recipe = MAKEFILE.partition("$(VENV)/.installed: ")[2].partition("\n\n")[0]
    needed = {"Makefile", *recipe.splitlines()[0].split()}
    before = STEPS[: STEPS.index(("RUN", installs))]
    assert needed <= {word for name, rest in before if name == "COPY" for word in rest.split()}
    assert recipe.count("--require-hashes") == 2


def ignored_by_docker(path: str) -> bool:
    """Whether .dockerignore leaves a path of the checkout out of the build."""
    patterns = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    names = [path, *(str(parent) for parent in Path(path).parents)]
    for pattern in (line for line in patterns if line and not line.startswith("#")):
        assert not pattern.startswith("!")
        inside = pattern.removeprefix("**/")
        for name in names:
            anywhere = inside != pattern and fnmatch.fnmatchcase(Path(name).name, inside)
            if anywhere or fnmatch.fnmatchcase(name, pattern):
                return True
    return False


def test_everything_that_is_copied_exists_and_nothing_of_the_project_is_left_out() -> None:
    sources = [word for rest in of("COPY") for word in rest.split()[:-1]]
    assert sources
    for source in sources:
        assert (ROOT / source).exists()
        assert source == "." or not ignored_by_docker(source)
    assert [path for path in tracked() if ignored_by_docker(path)] == []
    for path in (".git/config", ".venv/bin/python", "runs/mlflow.db", "report/index.html", "x/.env", "key.pem"):
        assert ignored_by_docker(path), path


def test_it_does_not_run_as_root_and_has_no_secret() -> None:
    assert of("USER")[-1] not in ("root", "0")
    after = STEPS[STEPS.index(("USER", of("USER")[-1])) :]
    assert not [rest for name, rest in after if name in ("RUN", "USER", "COPY")][1:]
    made = next(rest for rest in of("RUN") if "useradd" in rest)
    assert re.search(rf"useradd .*\b{of('USER')[-1]}\b", made)
    assert not [rest for _, rest in STEPS if SECRETS.search(rest)]
    assert json.loads(of("ENTRYPOINT")[0]) == ["python", "launch.py"]


# Workflows -----------------------------------------------------------------------------------------------------------


def workflow(path: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return loaded


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_runs_commands_that_exist_with_no_more_rights_than_needed(path: Path) -> None:
    content = workflow(path)
    assert True in content  # YAML 1.1 reads `on` as true; the host reads it as the word
    assert content["permissions"] == {"contents": "read"}
    for job in content["jobs"].values():
        assert 0 < job["timeout-minutes"] <= 360
        assert set(job.get("permissions", {})) <= {"pages", "id-token"}
        for step in job["steps"]:
            if "uses" in step:
                assert re.fullmatch(r"actions/[\w-]+@(v\d+|[0-9a-f]{40})", step["uses"])
                continue
            words = step["run"].removeprefix('sudo env "PATH=$PATH" ').split()
            if words[0] == "make":
                assert {word for word in words[1:] if "=" not in word} <= TARGETS
            else:
                assert (ROOT / words[-1]).is_file(), step["run"]
    assert not SECRETS.search(path.read_text(encoding="utf-8").replace("id-token: write", ""))


def test_the_tests_run_on_every_python_from_the_lowest_that_is_supported() -> None:
    tests = workflow(ROOT / ".github" / "workflows" / "tests.yml")["jobs"]["test"]
    versions = tests["strategy"]["matrix"]["python"]
    assert versions == ["3.11", "3.12", "3.13"]
    assert f">={versions[0]}" == PROJECT["requires-python"]
    commands = [step["run"] for step in tests["steps"] if "run" in step]
    assert "make test PYTHON=python" in commands


def test_the_site_is_built_by_one_job_and_published_from_the_main_branch_alone() -> None:
    jobs = workflow(ROOT / ".github" / "workflows" / "docs.yml")["jobs"]
    (upload,) = [step for step in jobs["build"]["steps"] if "upload-pages" in step.get("uses", "")]
    site = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["site_dir"]
    assert upload["with"]["path"] == site
    assert "--strict" in MAKEFILE.partition("\ndocs: setup\n")[2].partition("\n\n")[0]
    assert "refs/heads/main" in jobs["publish"]["if"]
    assert jobs["publish"]["needs"] == "build"


def test_updates_are_asked_for_what_no_lock_file_holds() -> None:
    updates = yaml.safe_load((ROOT / ".github" / "dependabot.yml").read_text(encoding="utf-8"))
    assert updates["version"] == 2
    assert [one["package-ecosystem"] for one in updates["updates"]] == ["github-actions", "docker"]
    assert all((ROOT / one["directory"].strip("/") / "Dockerfile").is_file() for one in updates["updates"][1:])


# The citation --------------------------------------------------------------------------------------------------------

# The part of the schema of the Citation File Format 1.2.0 that the file uses, after its guide.
TEXT = {"type": "string", "minLength": 1}
ENTITY = {"type": "object", "required": ["name"], "properties": {"name": TEXT}, "additionalProperties": False}
PERSON = {
    "type": "object",
    "properties": {"family-names": TEXT, "given-names": TEXT},
    "required": ["family-names"],
    "additionalProperties": False,
}
AUTHORS = {"type": "array", "minItems": 1, "uniqueItems": True, "items": {"anyOf": [PERSON, ENTITY]}}
IDENTIFIERS = {
    "type": "array",
    "minItems": 1,
    "items": {
        "type": "object",
        "required": ["type", "value"],
        "properties": {"type": {"enum": ["other"]}, "value": TEXT, "description": TEXT},
        "additionalProperties": False,
    },
}
REFERENCE = {
    "type": "object",
    "required": ["authors", "title", "type"],
    "properties": {
        "type": {"enum": ["conference-paper"]}, "title": TEXT, "year": {"type": "integer"}, "authors": AUTHORS,
        "conference": ENTITY, "identifiers": IDENTIFIERS,
    },
    "additionalProperties": False,
}  # fmt: skip
SCHEMA = {
    "type": "object",
    "required": ["authors", "cff-version", "message", "title"],
    "properties": {
        "cff-version": {"type": "string", "pattern": r"^1\.2\.0$"}, "message": TEXT, "title": TEXT,
        "type": {"enum": ["software", "dataset"]}, "version": {"type": ["string", "number"]}, "license": TEXT,
        "authors": AUTHORS, "abstract": TEXT,
        "keywords": {"type": "array", "minItems": 1, "uniqueItems": True, "items": TEXT},
        "references": {"type": "array", "minItems": 1, "items": REFERENCE},
    },
    "additionalProperties": False,
}  # fmt: skip


def test_the_citation_is_valid_and_of_this_version() -> None:
    content = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    jsonschema.validate(content, SCHEMA)
    assert content["version"] == PROJECT["version"]
    assert content["license"] == PROJECT["license"]


@pytest.mark.parametrize("fault", [{"authors": []}, {"cff-version": 1.2}, {"title": ""}, {"licence": "MIT"}])
def test_a_citation_that_is_not_valid_is_found(fault: dict[str, Any]) -> None:
    content = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(content | fault, SCHEMA)
