from __future__ import annotations

import dataclasses
import hashlib
import json
import string
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grid.equal_size import EqualSize
from grid.experiments import load_experiment
from grid.options import resolve
from grid.spec import SPEC_VERSION, TrialSpec
from grid.tasks import ATTRIBUTION, DETECTION, list_tasks
from launch import parse_arguments

CONFIG = {"backbone": "xception41", "epochs": 1, "flip": False, "learning_rate": 1e-3}
SPEC = TrialSpec(DETECTION, "xception_scratch", tuple(CONFIG.items()), ("ldm", "lama"), 3, "0123456789abcdef")

NAMES = st.text(string.ascii_lowercase + string.digits + "_-", min_size=1, max_size=12)
VALUES = st.one_of(st.text(max_size=12), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.booleans())
GENERATORS = st.lists(NAMES.filter(lambda name: name != "real"), min_size=1, max_size=5, unique=True)
CONDITIONS = st.sampled_from(["clean", "jpeg-75", "jpeg-95"])
SPECS = st.builds(
    TrialSpec,
    task=st.sampled_from(list_tasks()),
    method=NAMES,
    config=st.dictionaries(NAMES, VALUES, max_size=6).map(lambda config: tuple(config.items())),
    train_generators=GENERATORS.map(tuple),
    seed=st.integers(0, 2**31),
    data=st.text("0123456789abcdef", min_size=16, max_size=16),
    train_condition=CONDITIONS,
)
# Of every trial of two experiments, each with two seeds: key and spec, as they were before there were training
# conditions. Written by that code, never by this one.
OLD_KEYS: list[dict[str, Any]] = json.loads(Path(__file__).with_name("keys.json").read_text())


def test_the_key_of_a_known_spec_never_changes() -> None:
    # Every finished trial in every MLflow store is found by such a key. A change here makes all of them run again:
    # if that is what you want, raise SPEC_VERSION and pin the new key.
    assert SPEC_VERSION == 1
    assert SPEC.key == "1c7c07ea469f6efb"


def test_the_key_is_a_hash_of_the_whole_spec_and_a_clean_training_condition_is_no_part_of_it() -> None:
    # By hand, so that nobody needs the code to find a trial by its key.
    text = (
        '{"config":{"backbone":"xception41","epochs":1,"flip":false,"learning_rate":0.001},'
        '"data":"0123456789abcdef","method":"xception_scratch","seed":3,"task":"detection",'
        '"train_generators":["lama","ldm"],"version":1}'
    )
    assert SPEC.key == hashlib.sha256(text.encode()).hexdigest()[:16]
    jpeg = text.replace('"train_generators"', '"train_condition":"jpeg-95","train_generators"')
    on_jpeg = dataclasses.replace(SPEC, train_condition="jpeg-95")
    assert on_jpeg.key == hashlib.sha256(jpeg.encode()).hexdigest()[:16]


def test_clean_appears_nowhere_that_a_spec_is_written_to() -> None:
    assert "clean" not in json.dumps([SPEC.to_dict(), SPEC.params(), SPEC.name])
    on_jpeg = dataclasses.replace(SPEC, train_condition="jpeg-95")
    assert on_jpeg.to_dict()["train_condition"] == on_jpeg.params()["train_condition"] == "jpeg-95"
    assert on_jpeg.name == "xception_scratch/lama+ldm/jpeg-95/seed3"


@pytest.mark.parametrize("entry", OLD_KEYS, ids=lambda entry: f"{entry['experiment']}-{entry['key']}")
def test_every_spec_from_before_has_its_key(entry: dict[str, Any]) -> None:
    fields = {name: value for name, value in entry.items() if name not in ("experiment", "key")}
    spec = TrialSpec.from_dict(fields)
    assert spec.key == entry["key"]
    assert spec.to_dict() == fields


@pytest.mark.parametrize("name", ["demo", "dolos"])
def test_a_launch_of_today_finds_every_trial_from_before(name: str) -> None:
    today = {"demo": "demo1"}.get(name, name)  # what was the demo then is its first version now
    launch = resolve(parse_arguments([today]))
    trials = load_experiment(today).trials(
        generators=("lama", "ldm", "pluralistic", "repaint"),
        configs=launch.configs,
        tasks=launch.tasks,
        seeds=(0, 1),
        data="0123456789abcdef",
    )
    keys = [trial.key for trial in trials]
    assert len(set(keys)) == len(keys) == 50
    assert set(keys) == {entry["key"] for entry in OLD_KEYS if entry["experiment"] == name}


def test_the_keys_from_before_are_of_all_methods_tasks_and_configurations() -> None:
    tasks = defaultdict(set)
    for entry in OLD_KEYS:
        tasks[entry["experiment"], entry["method"]].add(entry["task"])
    published = load_experiment("dolos").methods
    assert dict(tasks) == {
        (name, method): {DETECTION, ATTRIBUTION} for name in ("demo", "dolos") for method in published
    }
    assert len(OLD_KEYS) == 2 * 50
    # residual_linear has the same configuration in both, so its ten trials have the same keys
    assert len({entry["key"] for entry in OLD_KEYS}) == 2 * 50 - 10


OTHER: dict[str, Any] = {
    "task": ATTRIBUTION,
    "method": "xception_pretrained",
    "config": tuple({**CONFIG, "epochs": 2}.items()),
    "train_generators": ("lama",),
    "seed": 4,
    "data": "fedcba9876543210",
    "version": SPEC_VERSION + 1,
    "train_condition": "jpeg-95",
    "equal_size": EqualSize(24, 8),
}


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(TrialSpec)])
def test_every_field_changes_the_key(field: str) -> None:
    assert dataclasses.replace(SPEC, **{field: OTHER[field]}).key != SPEC.key


@pytest.mark.parametrize(
    "config",
    [
        {**CONFIG, "backbone": "xception65"},
        {**CONFIG, "flip": True},
        {**CONFIG, "learning_rate": 1.0000001e-3},
        {**CONFIG, "more": 0},
        {name: value for name, value in CONFIG.items() if name != "flip"},
        {**CONFIG, "epochs": True},  # equal to 1 in Python, but not the same setting
        {**CONFIG, "epochs": "1"},
    ],
    ids=["text", "boolean", "number", "one more", "one less", "type", "text of a number"],
)
def test_every_setting_of_the_method_changes_the_key(config: dict[str, Any]) -> None:
    assert dataclasses.replace(SPEC, config=tuple(config.items())).key != SPEC.key


@given(SPECS, st.randoms(use_true_random=False))
@settings(deadline=None)
def test_the_order_of_generators_and_settings_does_not_matter(spec: TrialSpec, random: Any) -> None:
    config, generators = list(spec.config), list(spec.train_generators) * 2
    random.shuffle(config)
    random.shuffle(generators)
    other = dataclasses.replace(spec, config=tuple(config), train_generators=tuple(generators))
    assert other == spec
    assert other.key == spec.key


@given(SPECS)
@settings(deadline=None)
def test_a_spec_survives_the_trip_through_json(spec: TrialSpec) -> None:
    back = TrialSpec.from_dict(json.loads(json.dumps(spec.to_dict())))
    assert back == spec
    assert back.key == spec.key


@given(SPECS)
@settings(deadline=None)
def test_a_key_is_sixteen_hexadecimal_digits(spec: TrialSpec) -> None:
    assert len(spec.key) == 16
    assert set(spec.key) <= set("0123456789abcdef")


def test_a_mapping_is_accepted_as_the_configuration() -> None:
    assert dataclasses.replace(SPEC, config=CONFIG) == SPEC


def test_a_spec_can_be_a_member_of_a_set() -> None:
    assert len({SPEC, dataclasses.replace(SPEC), dataclasses.replace(SPEC, seed=9)}) == 2


def test_the_classes_of_detection_are_real_and_fake() -> None:
    assert SPEC.classes == ("real", "fake")


def test_the_classes_of_attribution_are_real_and_every_generator_in_alphabetical_order() -> None:
    assert dataclasses.replace(SPEC, task=ATTRIBUTION).classes == ("real", "lama", "ldm")


def test_the_name_says_the_method_what_it_trains_on_and_the_seed() -> None:
    assert SPEC.name == "xception_scratch/lama+ldm/seed3"
    assert dataclasses.replace(SPEC, task=ATTRIBUTION).name == "xception_scratch/attribution/seed3"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"task": "detect"},
            r"no task named 'detect' \(did you mean 'detection'\?\); there are: attribution, detection",
        ),
        ({"train_generators": "lama"}, "collection of names"),
        ({"task": ATTRIBUTION, "train_generators": ()}, "attribution needs at least one generator to train on"),
        ({"train_generators": ("real", "lama")}, "train_generators must not contain 'real'; got"),
        ({"seed": -1}, r"a seed must not be negative, and below 2\^63; got -1"),
        ({"config": {"size": None}}, r"xception_scratch\.size must be a string, number or boolean"),
        ({"config": {"sizes": [1, 2]}}, r"xception_scratch\.sizes must be"),
    ],
)
def test_a_senseless_spec_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(SPEC, **changes)


def test_detection_may_be_trained_without_any_fakes() -> None:
    spec = dataclasses.replace(SPEC, train_generators=())
    assert spec.classes == ("real", "fake")
    assert spec.name == "xception_scratch/none/seed3"
    assert spec.params()["train_generators"] == "none"
    assert len(spec.train_set) == 0
    assert spec.key != SPEC.key
    assert TrialSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec


def test_params_hold_the_whole_spec_flat() -> None:
    assert SPEC.params() == {
        "task": "detection",
        "method": "xception_scratch",
        "config.backbone": "xception41",
        "config.epochs": 1,
        "config.flip": False,
        "config.learning_rate": 1e-3,
        "train_generators": "lama+ldm",
        "seed": 3,
        "data": "0123456789abcdef",
        "spec_version": SPEC_VERSION,
    }
