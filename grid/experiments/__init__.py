"""Experiments, one file per experiment. Each says in its docstring what it costs and shows."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from data.conditions import CLEAN
from data.register import Register, no_entry
from data.sources import list_sources
from grid.spec import Scalar, TrialSpec
from grid.tasks import get_task
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
) -> Iterator[TrialSpec]:
    """Every method on every training set of every task.

    Args:
        generators: all generators of the data set.
        configs: method -> its resolved configuration.
        tasks: names of `grid.tasks`.
        seeds: one repetition of everything for each.
        data: the manifest's digest.
        train_on: training sets (see `grid.train_sets`); None: each task's own.
        train_condition: what is done to training and validation pictures.
        without_fakes: the methods among `configs` that are trained without fakes: once per seed, for the tasks in which
            that makes sense, whatever `train_on` says.

    Raises:
        ValueError: `train_on` names a generator that does not exist.
    """
    generators, asked = sorted(generators), [get_task(name) for name in tasks]
    for seed in seeds:
        for method, config in configs.items():
            for task in asked:
                if method not in without_fakes:
                    train_sets = [train for train in task.train_sets(train_on, generators) if train.generators]
                else:
                    train_sets = [] if task.needs_fakes else [TrainSet(())]
                for train in train_sets:
                    names = train.generators
                    yield TrialSpec(
                        task.name, method, tuple(config.items()), names, seed, data, train_condition=train_condition
                    )


@dataclass(frozen=True)
class Experiment:
    """What is run when nothing else is asked for.

    Attributes:
        name: as on the command line; no command has it.
        source: its corpus, by its name in `data.sources`.
        methods: method -> settings that differ from the method's defaults.
        small: each method has its small configuration (see `models.registry`) in place of its defaults.
        seeds: one repetition of everything for each.
        trials: yields the trials; arguments as of `cross_generator_trials`.
    """

    name: str
    source: str
    methods: Mapping[str, Settings] = field(default_factory=lambda: {method: {} for method in PUBLISHED})
    small: bool = False
    seeds: Sequence[int] = (0,)
    trials: Callable[..., Iterator[TrialSpec]] = cross_generator_trials


_experiments: Register[Experiment] = Register("experiment", __name__)


def register_experiment(experiment: Experiment) -> Experiment:
    """Register an experiment under its name. Raises `ValueError` where the name is taken."""
    _experiments.add(experiment.name, experiment)
    return experiment


def list_experiments() -> list[str]:
    """Names of all experiments: those with a file, and each corpus, which needs none."""
    return sorted({*_experiments.names(), *list_sources()})


def load_experiment(name: str) -> Experiment:
    """Look an experiment up. A corpus without an experiment of its own runs the published methods.

    Raises:
        KeyError: no such experiment or corpus; lists what exists.
    """
    if name in _experiments.names():
        return _experiments.get(name)
    if name in list_sources():
        return Experiment(name, source=name)
    raise no_entry("experiment", name, list_experiments())
