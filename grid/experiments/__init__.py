"""Experiments, one file per experiment. Each says in its docstring what it costs and shows."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from data.conditions import CLEAN
from data.register import Register, no_entry
from data.sources import list_sources
from grid.spec import Scalar, TrialSpec
from grid.tasks import ATTRIBUTION, DETECTION, get_task
from grid.train_sets import TrainSet

Settings = Mapping[str, Scalar]
# The four methods of the publication (arXiv 2311.04584), and a weight-free fifth.
PUBLISHED = ("xception_scratch", "xception_pretrained", "clip_linear", "sam_linear", "residual_linear")


def cross_generator_trials(
    *,
    generators: Iterable[str],
    configs: Mapping[str, Settings],
    tasks: Iterable[str],
    seeds: Iterable[int],
    data: str,
    train_on: str | None = None,
    train_condition: str = CLEAN,
    without_fakes: Collection[str] = (),
    without_seeds: Collection[str] = (),
) -> Iterator[TrialSpec]:
    """Every method with every training set of every task.

    Args:
        generators: those of the data set that can be trained on; the others are only tested.
        configs: method -> its whole configuration.
        tasks: names in `grid.tasks`.
        seeds: training seeds; every trial runs once per seed, if its method depends on the seed.
        data: digest of the manifest.
        train_on: training sets (see `grid.train_sets`); None: the default of each task.
        train_condition: condition of training and validation pictures.
        without_fakes: methods in `configs` that train without fakes: once per seed and task without need of fakes,
            whatever `train_on` is; they have no trials of controls.
        without_seeds: methods in `configs` whose results do not depend on the seed: they run with the first seed alone,
            except for controls, whose labels follow from the seed.

    Raises:
        ValueError: `train_on` names a generator that does not exist.
    """
    generators, asked = sorted(generators), [get_task(name) for name in tasks]
    for number, seed in enumerate(seeds):
        for method, config in configs.items():
            for task in asked:
                if number and method in without_seeds and not task.is_control:
                    continue
                if not generators and task.needs_fakes:
                    train_sets = []
                elif method not in without_fakes:
                    sets = task.train_sets(train_on, generators)
                    train_sets = [train for train in sets if train.generators or task.is_control]
                else:
                    train_sets = [] if task.needs_fakes or task.is_control else [TrainSet(())]
                for train in train_sets:
                    names = train.generators
                    yield TrialSpec(
                        task.name, method, tuple(config.items()), names, seed, data, train_condition=train_condition
                    )


@dataclass(frozen=True)
class Experiment:
    """The defaults of a launch.

    Attributes:
        name: as on the command line; no command may have the same name.
        source: name of the corpus in `data.sources`.
        methods: method -> settings that differ from the method's defaults.
        small: start from each method's small configuration (see `models.registry`) instead of its defaults.
        seeds: training seeds; every trial runs once per seed, if its method depends on the seed.
        tasks: names in `grid.tasks`.
        trials: yields the trials; has the arguments of `cross_generator_trials`.
    """

    name: str
    source: str
    methods: Mapping[str, Settings] = field(default_factory=lambda: {method: {} for method in PUBLISHED})
    small: bool = False
    seeds: Sequence[int] = (0,)
    tasks: Sequence[str] = (DETECTION, ATTRIBUTION)
    trials: Callable[..., Iterator[TrialSpec]] = cross_generator_trials


_experiments: Register[Experiment] = Register("experiment", __name__)


def register_experiment(experiment: Experiment) -> Experiment:
    """Register an experiment under its name. Raises `ValueError` if the name is taken."""
    _experiments.add(experiment.name, experiment)
    return experiment


def list_experiments() -> list[str]:
    """Names of all experiments: those with a file, and every corpus, which needs no file."""
    return sorted({*_experiments.names(), *list_sources()})


def load_experiment(name: str) -> Experiment:
    """Look an experiment up. A corpus without an experiment of its own runs the published methods.

    Raises:
        KeyError: no such experiment or corpus; the message lists all.
    """
    if name in _experiments.names():
        return _experiments.get(name)
    if name in list_sources():
        return Experiment(name, source=name)
    raise no_entry("experiment", name, list_experiments())
