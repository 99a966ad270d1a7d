"""The command lines that run what is missing: each is given to the real parser, and its trials are compared by key."""

from __future__ import annotations

import dataclasses
import shlex
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

import launch
from analysis.store import Store
from data.sources import get_source
from grid import names
from grid.equal_size import EqualSize
from grid.options import REPEATED, Launch, resolve
from grid.spec import TrialSpec
from models.registry import register_detector
from tests.analysis.grids import GENERATORS, Grid
from tests.grid.grids import open_grid

NewGrid = Callable[..., Grid]


@pytest.fixture
def new_grid(store: str, tmp_path: Path) -> NewGrid:
    """Makes the grid of this test, with one finished trial, which no command has to run."""

    def make(**named: Any) -> Grid:
        grid = Grid(store, tmp_path, num_each=3, **named)
        grid.finish(grid.spec("xception_scratch", seed=9))
        return grid

    return make


def launches(command: str) -> Iterator[Launch]:
    """What `launch.py` understands of each line."""
    for line in command.splitlines():
        words = shlex.split(line)
        with pytest.MonkeyPatch.context() as environment:
            environment.delenv("MLFLOW_TRACKING_URI", raising=False)
            while "=" in words[0]:
                environment.setenv(*words.pop(0).split("=", 1))
            assert words[:2] == ["python", "launch.py"]
            yield resolve(launch.parse_arguments(words[2:]))


def commanded(command: str, grid: Grid, data: str | None = "") -> list[str]:
    """Sorted keys of the trials that the lines would run or skip, as often as they would; `data` "": the grid's own."""
    keys = []
    for understood in launches(command):
        assert understood.settings.tracking_uri == grid.tracker.uri
        assert understood.name == grid.name
        assert understood.options.data == (str(grid.manifest.root) if data == "" else data)
        keys += [trial.key for trial in understood.trials(grid.manifest)]
    return sorted(keys)


def keys_of(trials: Iterable[TrialSpec]) -> list[str]:
    return sorted(trial.key for trial in trials)


# Which trials --------------------------------------------------------------------------------------------------------


def test_the_command_runs_exactly_what_is_missing(store: str, tmp_path: Path) -> None:
    grid = Grid(store, tmp_path, name="my grid")
    missing = [
        *(grid.spec("clip_linear", train=name, seed=seed) for name in GENERATORS for seed in (1, 2)),
        grid.spec(train="ldm", l2=0.5),
        grid.attribution("sam_linear", seed=4),
    ]
    grid.plan(*missing)
    grid.finish(*(grid.spec(train=name) for name in GENERATORS))
    opened = grid.open()
    assert commanded(opened.missing_command(), grid) == keys_of(missing)
    assert commanded(opened.missing_command(task="attribution"), grid) == [missing[-1].key]
    assert commanded(opened.missing_command(variant="clip_linear"), grid) == keys_of(missing[:6])
    assert opened.missing_command(variant="clip_linear", task="attribution") == ""


def test_two_missing_configurations_of_a_method_are_two_commands(new_grid: NewGrid) -> None:
    grid = new_grid()
    missing = [grid.spec(train=name, l2=l2) for l2 in (0.1, 0.5) for name in GENERATORS]
    grid.plan(*missing)
    command = grid.open().missing_command()
    assert len(command.splitlines()) == 2
    assert commanded(command, grid) == keys_of(missing)


def test_nothing_missing_needs_no_command(new_grid: NewGrid) -> None:
    assert new_grid().open().missing_command() == ""


TRAINED_ON = {
    "each": ["lama", "ldm", "repaint"],
    "one": ["ldm"],
    "two": ["lama", "repaint"],
    "a union": ["ldm+repaint"],
    "all": ["lama+ldm+repaint"],
    "all but one": ["lama+ldm", "lama+repaint", "ldm+repaint"],
    "each and all": ["lama", "ldm", "repaint", "lama+ldm+repaint"],
    "one and a union": ["lama", "ldm+repaint"],
}


@pytest.mark.parametrize("trained_on", TRAINED_ON.values(), ids=TRAINED_ON)
def test_training_sets_of_every_kind(new_grid: NewGrid, trained_on: list[str]) -> None:
    grid = new_grid()
    missing = [
        grid.spec(method, train=name, seed=seed)
        for method in ("residual_linear", "clip_linear")
        for name in trained_on
        for seed in (0, 1)
    ]
    missing.append(grid.attribution(seed=3))
    grid.plan(*missing)
    assert commanded(grid.open().missing_command(), grid) == keys_of(missing)


def test_methods_that_lack_the_same_share_a_command(new_grid: NewGrid) -> None:
    grid = new_grid()
    grid.plan(*(grid.spec(name, train="lama+ldm") for name in ("residual_linear", "clip_linear", "sam_linear")))
    (line,) = grid.open().missing_command().splitlines()
    assert "--methods residual_linear,clip_linear,sam_linear" in line
    assert "--train-on lama+ldm" in line


def test_each_tasks_own_training_sets_need_no_word(new_grid: NewGrid) -> None:
    grid = new_grid()
    grid.plan(*(grid.spec(train=name) for name in GENERATORS), grid.attribution())
    assert "--train-on" not in grid.open().missing_command()


def test_what_nobody_planned_is_not_run_along_with_it(new_grid: NewGrid) -> None:
    grid = new_grid()
    missing = [
        grid.spec(train="lama", seed=0),
        grid.spec(train="ldm", seed=1),
        grid.spec(train="lama+ldm", seed=2),
        grid.attribution(seed=3),
        grid.attribution(seed=0),
    ]
    grid.plan(*missing)
    assert commanded(grid.open().missing_command(), grid) == keys_of(missing)


@pytest.mark.parametrize("generators", [("lama",), ("lama", "ldm")])
@pytest.mark.parametrize("tasks", [("detection",), ("attribution",), ("detection", "attribution")])
def test_corpora_of_one_generator_and_of_two(
    new_grid: NewGrid, generators: tuple[str, ...], tasks: tuple[str, ...]
) -> None:
    grid = new_grid(generators=generators)
    missing = [grid.spec(train=name) for name in generators if "detection" in tasks]
    missing += [grid.attribution() for task in tasks if task == "attribution"]
    grid.plan(*missing)
    assert commanded(grid.open().missing_command(), grid) == keys_of(missing)


def test_generators_with_spaces_in_their_names(new_grid: NewGrid) -> None:
    grid = new_grid(generators=("lama", "stable diffusion 1.5", "z:2"))
    missing = [grid.spec(train="stable diffusion 1.5"), grid.spec(train="lama+z:2")]
    grid.plan(*missing)
    assert commanded(grid.open().missing_command(), grid) == keys_of(missing)


@dataclasses.dataclass(frozen=True)
class NoSettings:
    strength: float = 1.0


@pytest.mark.usefixtures("own_registers")
def test_methods_that_need_no_fakes(new_grid: NewGrid) -> None:
    @register_detector("toy_of_reals_alone", config=NoSettings(), gpu_share=0, needs_fakes=False)
    def build(config: NoSettings, context: object) -> Any:
        raise NotImplementedError

    grid = new_grid()
    of_reals = [grid.spec("toy_of_reals_alone", train="none", seed=seed) for seed in (0, 1)]
    grid.plan(*of_reals)
    assert commanded(grid.open().missing_command(), grid) == keys_of(of_reals)
    others = [grid.spec(train=name, seed=seed) for name in ("lama", "ldm+repaint") for seed in (0, 1)]
    grid.plan(*others, grid.spec("toy_of_reals_alone", train="none", strength=2.0))
    everything = [*of_reals, *others, grid.spec("toy_of_reals_alone", train="none", strength=2.0)]
    assert commanded(grid.open().missing_command(), grid) == keys_of(everything)
    of_method = grid.open().missing_command(variant="toy_of_reals_alone (strength=1.0)")
    assert commanded(of_method, grid) == keys_of(of_reals)


def test_training_conditions_are_commands_of_their_own(new_grid: NewGrid) -> None:
    grid = new_grid()
    missing = [
        grid.spec(train=name, train_condition=condition)
        for name in GENERATORS
        for condition in ("clean", "jpeg-95", "clean+jpeg-50")
    ]
    grid.plan(*missing)
    command = grid.open().missing_command()
    assert sorted(word for line in command.splitlines() for word in shlex.split(line) if "jpeg" in word) == [
        "clean+jpeg-50", "jpeg-95",
    ]  # fmt: skip
    assert commanded(command, grid) == keys_of(missing)


def test_equal_sizes_are_commands_of_their_own_with_their_numbers(new_grid: NewGrid) -> None:
    grid = new_grid()
    plain = [grid.spec(train=name) for name in GENERATORS]
    sized = [dataclasses.replace(spec, equal_size=EqualSize(2, 2)) for spec in [*plain, grid.spec(train="lama+ldm")]]
    missing = [*plain, *sized]
    grid.plan(*missing)
    opened = grid.open()
    assert commanded(opened.missing_command(), grid) == keys_of(missing)
    assert "--equal-size 2,2" in opened.missing_command()
    runs = opened.runs()
    assert set(runs["equal_size"]) == {"", "2,2"}
    variants = set(runs.loc[runs["method"] == "residual_linear", "variant"])
    assert variants == {"residual_linear (equal_size=2,2)", "residual_linear (equal_size=all images)"}


def test_a_method_that_does_not_depend_on_the_seed_has_a_command_per_seed(new_grid: NewGrid) -> None:
    grid = new_grid()
    missing = [grid.spec(seed=seed) for seed in (0, 1)] + [grid.spec("xception_scratch", seed=seed) for seed in (0, 1)]
    grid.plan(*missing)
    assert commanded(grid.open().missing_command(), grid) == keys_of(missing)


def test_the_conditions_that_the_grid_asks_for_are_scored_too(new_grid: NewGrid) -> None:
    grid = new_grid(conditions=["jpeg-75", "jpeg-50"])
    grid.plan(grid.spec())
    understood = list(launches(grid.open().missing_command()))
    assert [launch.conditions for launch in understood] == [["clean", "jpeg-50", "jpeg-75"]] * len(understood)


def test_a_finished_trial_that_lacks_a_condition_is_missing(new_grid: NewGrid) -> None:
    grid = new_grid(conditions=["jpeg-75"])
    scored, unscored = grid.spec(train="lama"), grid.spec(train="ldm")
    grid.finish(scored, conditions=["jpeg-75"])
    (run_id,) = grid.finish(unscored)
    opened = grid.open()
    assert run_id in opened.unscored["jpeg-75"]
    assert unscored.key in commanded(opened.missing_command(), grid)
    assert scored.key not in commanded(opened.missing_command(), grid)


def test_without_conditions_none_is_named(new_grid: NewGrid) -> None:
    grid = new_grid()
    grid.plan(grid.spec())
    assert "--conditions" not in grid.open().missing_command()


# Which settings ------------------------------------------------------------------------------------------------------


def test_weights_from_a_file_have_to_be_named_again(new_grid: NewGrid) -> None:
    grid = new_grid()
    grid.plan(grid.spec("clip_linear", weights="file:0123"))
    assert "--weights clip_linear=FILE" in grid.open().missing_command()


def test_settings_of_every_type_come_back(new_grid: NewGrid) -> None:
    grid = new_grid()
    missing = [
        grid.spec("xception_scratch", learning_rate=1.5e-5, flip=True, epochs=7),
        grid.spec("clip_linear", weights="hub:openai", backbone="ViT-L-14-quickgelu"),
    ]
    grid.plan(*missing)
    assert commanded(grid.open().missing_command(), grid) == keys_of(missing)


# Which experiment, and its options -----------------------------------------------------------------------------------


def test_the_experiment_is_the_one_that_made_the_grid(new_grid: NewGrid, tmp_path: Path) -> None:
    drawn = get_source("demo").drawn
    assert drawn is not None
    launched = {names.EXPERIMENT: "demo", names.OPTIONS: ""}
    grid = new_grid(name="second try", corpus="demo", launched=launched, root=drawn.folder(tmp_path / "cache"))
    missing = [grid.spec(train=name) for name in GENERATORS]
    grid.plan(*missing)
    command = grid.open().missing_command()
    assert command.startswith("python launch.py demo ")
    assert "--data" not in command  # it is drawn
    assert "--set" not in command  # its methods are small by themselves
    assert commanded(command, grid, data=None) == keys_of(missing)


def test_a_demo_on_images_of_ones_own_has_their_folder(new_grid: NewGrid) -> None:
    grid = new_grid(name="demo", corpus="demo")
    missing = [grid.spec(train=name) for name in GENERATORS]
    grid.plan(*missing)
    assert commanded(grid.open().missing_command(), grid) == keys_of(missing)


@pytest.mark.parametrize(
    ("name", "corpus", "experiment"), [("mine", "folders", "folders"), ("dolos", "dolos", "dolos")]
)
def test_grids_that_do_not_say_their_experiment_have_that_of_their_name_or_corpus(
    new_grid: NewGrid, name: str, corpus: str, experiment: str
) -> None:
    grid = new_grid(name=name, corpus=corpus)
    missing = [grid.spec(train="ldm")]
    grid.plan(*missing)
    command = grid.open().missing_command()
    assert command.startswith(f"python launch.py {experiment} ")
    assert ("--experiment-name" in command) == (name != experiment)
    assert commanded(command, grid) == keys_of(missing)


def test_the_options_that_made_the_grid_are_in_the_command(new_grid: NewGrid, tmp_path: Path) -> None:
    typed = [
        "dolos", "--data", "somewhere", "--limit", "16", "--skip-bad", "--split-seed", "3", "--generators", "lama,ldm",
        "--cache", str(tmp_path / "a cache"), "--local-copies", str(tmp_path / "copies"), "--device", "cpu",
        "--cpus-per-trial", "0.5", "--max-concurrent", "3", "--local", "--set", "residual_linear.memory=2",
    ]  # fmt: skip
    first = resolve(launch.parse_arguments(typed))
    grid = new_grid(launched={names.EXPERIMENT: "dolos", names.OPTIONS: first.repeated()})
    grid.plan(grid.spec())
    (understood,) = launches(grid.open().missing_command())
    for option in REPEATED:
        assert getattr(understood.options, option) == getattr(first.options, option), option
    assert understood.settings.by_method == first.settings.by_method
    again = understood.repeated()
    assert again == first.repeated()


def test_what_holds_for_another_method_alone_is_left_out(new_grid: NewGrid) -> None:
    options = "--device auto --set clip_linear.gpus=0.5 --set residual_linear.memory=2.0 --set sam_linear.gpu_memory=20"
    grid = new_grid(launched={names.EXPERIMENT: "dolos", names.OPTIONS: options})
    missing = [grid.spec("residual_linear"), grid.spec("clip_linear"), grid.spec("clip_linear", seed=1)]
    grid.plan(*missing)
    command = grid.open().missing_command()
    assert commanded(command, grid) == keys_of(missing)
    found = {method: dict(changes) for each in launches(command) for method, changes in each.settings.by_method.items()}
    assert found == {"residual_linear": {"memory_per_trial": "2.0"}, "clip_linear": {"gpus_per_trial": "0.5"}}


def test_older_grids_say_which_options_made_their_data(new_grid: NewGrid) -> None:
    grid = new_grid(launched={names.DATA_OPTIONS: "--limit 16 --skip-bad"})
    missing = [grid.spec("clip_linear")]
    grid.plan(*missing)
    command = grid.open().missing_command()
    assert " --limit 16 --skip-bad --runs " in command
    assert commanded(command, grid) == keys_of(missing)


def test_the_newest_options_count(new_grid: NewGrid) -> None:
    grid = new_grid(launched={names.EXPERIMENT: "dolos", names.OPTIONS: "--local"})
    missing = [grid.spec("clip_linear")]
    open_grid(
        grid.tracker.uri, "dolos", grid.manifest, missing, grid.folder / "artifacts",
        launched={names.EXPERIMENT: "dolos", names.OPTIONS: "--max-concurrent 2"},
    )  # fmt: skip
    command = grid.open().missing_command()
    assert "--max-concurrent 2" in command
    assert "--local" not in command


# Which store ---------------------------------------------------------------------------------------------------------


def elsewhere(grid: Grid, uri: str) -> Store:
    """The same grid, as if its store were at this address."""
    opened = grid.open()
    return dataclasses.replace(opened, records=dataclasses.replace(opened.records, uri=uri))


@pytest.mark.parametrize("uri", ["sqlite:///{folder}/my runs/mlflow.db?timeout=60", "sqlite:///{folder}/other.db"])
def test_a_local_store_of_another_kind_is_named_before_the_command(new_grid: NewGrid, tmp_path: Path, uri: str) -> None:
    grid = new_grid()
    missing = [grid.spec(train=name) for name in GENERATORS]
    grid.plan(*missing)
    there = uri.format(folder=tmp_path / "there")
    file = Path(there.removeprefix("sqlite:///").partition("?")[0])
    file.parent.mkdir(parents=True)
    shutil.copy(grid.tracker.uri.removeprefix("sqlite:///"), file)
    grid.tracker = dataclasses.replace(grid.tracker, uri=there)
    command = grid.open().missing_command()
    assert command.startswith("MLFLOW_TRACKING_URI=")
    assert "--runs" not in command
    assert commanded(command, grid) == keys_of(missing)


def test_a_server_is_named_without_its_password(new_grid: NewGrid) -> None:
    grid = new_grid()
    grid.plan(grid.spec())
    command = elsewhere(grid, "https://me:secret@mlflow.example:5000/path").missing_command()
    assert command.startswith("MLFLOW_TRACKING_URI=https://mlflow.example:5000/path python launch.py dolos ")
    assert "secret" not in command


def test_the_store_of_this_checkout_needs_no_word(new_grid: NewGrid) -> None:
    grid = new_grid()
    grid.plan(grid.spec())
    command = elsewhere(grid, f"sqlite:///{Path(launch.__file__).resolve().parent / 'runs' / 'mlflow.db'}")
    assert "runs" not in command.missing_command()
    assert "MLFLOW" not in command.missing_command()
