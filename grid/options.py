"""The command line's options, checked: all mistakes in one message, before any data are read."""

from __future__ import annotations

import argparse
import dataclasses
import os
import shlex
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data.conditions import CLEAN, PASTE_BACK, SETS, expand, get_condition, joined, members
from data.sources import get_source
from grid.command_line import Numbers, completes, of_analysis
from grid.commands import BadInputError, list_commands
from grid.corpora import add_corpus_options, corpus_problems, only_tested
from grid.equal_size import SMALLEST, EqualSize, check, largest
from grid.experiments import Experiment, list_experiments, load_experiment
from grid.masks import edits_problems
from grid.names import PER_METHOD
from grid.plan import TEST, TRAIN, VALID
from grid.tasks import DETECTION, get_task, list_controls, list_tasks, to_train_on

if TYPE_CHECKING:
    from data.manifest import Manifest
    from grid.settings import RunSettings
    from grid.spec import TrialSpec

ROOT = Path(__file__).resolve().parents[1]
NOT_DRAWN = "0" * 16  # in place of the digest of images that are not made yet
# Options that another launch of the same grid needs, besides those that choose trials and the store.
REPEATED = (
    "generators", "limit", "split_seed", "names_per_split", "root", "list", "generator_from", "skip_bad",
    "source_from", "mask_white", "accept_audit", "cache", "local_copies",
    "device", "cpus_per_trial", "gpus_per_trial", "memory_per_trial", "accelerator", "gpu_memory", "max_concurrent",
    "address", "local",
)  # fmt: skip


def add_cache_options(parser: argparse.ArgumentParser, what: str) -> None:
    """Where a command that looks at data alone keeps what it finds; `what` says what that is."""
    where = parser.add_argument_group("where")
    where.add_argument("--runs", type=Path, default=ROOT / "runs", metavar="DIR", help="as of the grid")
    where.add_argument("--cache", type=Path, metavar="DIR", help=f"{what}; default: RUNS/cache")


def add_data_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that choose images."""
    data = parser.add_argument_group("which images")
    data.add_argument(
        "--data", metavar="DIR", help="folder of the corpus, or s3://BUCKET/FOLDER, gs://…; the demo makes its own"
    )
    data.add_argument(
        "--generators",
        type=_names,
        metavar="A,B",
        help="use only these generators, in training and in tests; default: those of the experiment",
    )
    data.add_argument("--limit", type=int, metavar="N", help="at most N images per class and split: a quick look")
    data.add_argument(
        "--split-seed", type=int, default=0, metavar="N", help="seed of the random splits, for a corpus without splits"
    )
    data.add_argument(
        "--names-per-split", action="store_true",
        help="file names restart in each split: the same name in two splits is two photographs",
    )  # fmt: skip
    add_corpus_options(data)
    data.add_argument("--skip-bad", action="store_true", help="leave bad files out, and record how many")
    data.add_argument(
        "--accept-audit", action="extend", type=_names, default=[], metavar="NAME",
        help="start the grid although this audit fails (several: A,B); kept with the results, and said above them. "
        "masks: also use masks that the audit does not trust",
    )  # fmt: skip


def add_trial_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that choose trials."""
    what = parser.add_argument_group("what to run")
    _add_methods(what)
    tasks = what.add_argument("--tasks", type=_names, metavar="A,B", help=f"only these of {', '.join(list_tasks())}")
    completes(tasks, list_tasks)
    _add_forms(what)
    what.add_argument(
        "--train-on", metavar="SETS",
        help="training sets, separated by commas: each (default for detection), all, all-but-one, all-but-X, X, A+B; "
        "none for methods that need no fakes. Attribution always trains on all, open_set on all but one",
    )  # fmt: skip
    what.add_argument(
        "--equal-size", nargs="?", const=SMALLEST, metavar="TRAIN,VALID",
        help="every training set gets as many images as the smallest one can give: the same number of each class, and "
        "of each generator inside a class, chosen by the files' digests; the validation split likewise. Two numbers: "
        "that many images of each class. Default: every training set gets all of its images",
    )  # fmt: skip
    what.add_argument(
        "--train-condition", type=_names, metavar="A,B",
        help="train and validate on pictures under these conditions: A,B makes trials for A and others for B; A+B one "
        "detector on each picture under A and under B, and so does a word for a set; default: clean",
    )  # fmt: skip
    what.add_argument(
        "--conditions", type=_names, default=[CLEAN], metavar="A,B",
        help="also score under these conditions, such as jpeg-75 or paste-back; finished trials are not trained again. "
        + "; ".join(f"{word} means {', '.join(names)}" for word, names in SETS.items()),
    )  # fmt: skip
    what.add_argument(
        "--equalise", metavar="NAME",
        help="real and fake alike under this condition, in training and in tests: short for --train-condition NAME "
        "--conditions NAME",
    )  # fmt: skip
    what.add_argument(
        "--seeds", action=Numbers, nargs="+", metavar="0,1,2", help="training seeds; default: the experiment's",
    )  # fmt: skip
    _add_settings(what)


def add_method_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that choose methods and their settings, as a launch has them."""
    what = parser.add_argument_group("which methods")
    _add_methods(what)
    _add_forms(what)
    _add_settings(what)


def _add_methods(what: argparse._ArgumentGroup) -> None:
    methods = what.add_argument(
        "--methods", type=_names, metavar="A,B",
        help="only these methods; family:WORD for those of a kind: family:published, family:baselines; -NAME leaves "
        "one of them out",
    )  # fmt: skip
    completes(methods, _method_words)


def _add_forms(what: argparse._ArgumentGroup) -> None:
    what.add_argument(
        "--small", action="store_true",
        help="every method in its small form, as in the demo: small networks, and random weights where real ones would "
        "be downloaded. It tries a grid out on your data; its values say nothing about a method",
    )  # fmt: skip
    what.add_argument(
        "--controls", action="store_true",
        help="add null controls and reference rows, which say whether results can be believed "
        "(docs/believe/controls.md); on a finished grid, only these run",
    )  # fmt: skip


def _add_settings(what: argparse._ArgumentGroup) -> None:
    what.add_argument(
        "--weights", action="append", default=[], metavar="METHOD=W",
        help="weights of a method: a local file, hub, hub:TAG or random; METHOD.backbone_weights=W for the backbone of "
        "a method whose weights are those of its classifier",
    )  # fmt: skip
    what.add_argument(
        "--set", action="append", default=[], metavar="METHOD.NAME=VALUE",
        help="a setting of a method, or gpus, memory, accelerator, gpu_memory of its trials; METHOD * means every "
        "method that has the setting",
    )  # fmt: skip


def add_place_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that choose folders, the MLflow store and the resources of trials."""
    where = parser.add_argument_group("where and how")
    where.add_argument(
        "--experiment-name", metavar="NAME", help="name of the MLflow experiment; default: the experiment's name"
    )
    where.add_argument(
        "--runs", type=Path, default=ROOT / "runs", metavar="DIR", help="MLflow's local store and checkpoints"
    )
    where.add_argument("--cache", type=Path, metavar="DIR", help="decoded pixels and features; default: RUNS/cache")
    where.add_argument(
        "--local-copies", type=Path, metavar="DIR",
        help="a folder on each node's own disk, for copies of pixels and features; default: trials read the cache",
    )  # fmt: skip
    where.add_argument(
        "--device",
        choices=("auto", "cpu", "cuda"),
        default="auto",
        help="where trials compute; default: auto, on a GPU if there is one",
    )
    where.add_argument("--cpus-per-trial", type=float, metavar="X", help="CPU cores; default: 1")
    where.add_argument("--gpus-per-trial", type=float, metavar="X", help="share of a GPU; default: the method's share")
    where.add_argument("--memory-per-trial", type=float, metavar="GB", help="host memory; default: no request")
    where.add_argument("--accelerator", metavar="TYPE", help="only GPUs of this type, by Ray's names: T4, A10G, A100")
    where.add_argument(
        "--gpu-memory", type=float, metavar="GB",
        help="GPU memory that a trial needs; nodes declare theirs, see docs/cluster.md",
    )  # fmt: skip
    where.add_argument("--max-concurrent", type=int, metavar="N", help="trials at once; default: as many as fit")
    where.add_argument("--max-failures", type=int, metavar="N", help="retries without a new epoch; default: 2")
    where.add_argument(
        "--checkpoint-seconds", type=float, metavar="S", help="seconds between two checkpoints; default: 60"
    )
    where.add_argument("--local", action="store_true", help="in this process, one trial after the other, without Ray")
    where.add_argument(
        "--address", metavar="ADDRESS",
        help="address of a Ray cluster; default: RAY_ADDRESS, else this head's cluster (`ray up`), else a local Ray",
    )  # fmt: skip
    where.add_argument("--num-gpus", type=int, metavar="N", help="GPUs of the local Ray; may be logical, for a test")
    where.add_argument("--num-cpus", type=int, metavar="N", help="CPU cores of the local Ray")


def add_experiment(parser: argparse.ArgumentParser) -> None:
    """Add the experiment as a positional argument."""
    words = parser.add_argument(
        "experiment", nargs="?", default="demo", help=f"one of: {', '.join(list_experiments())}"
    )
    completes(words, lambda: [*list_experiments(), *list_commands()])


def _method_words() -> list[str]:
    from models.registry import FAMILY, detector_info, list_detectors

    names = list_detectors()
    return [*names, *sorted({f"{FAMILY}{family}" for name in names if (family := detector_info(name).family)})]


@dataclass(frozen=True)
class Launch:
    """The command line's options, checked.

    Attributes:
        options: as parsed.
        experiment: the experiment.
        name: of the MLflow experiment.
        settings: folders, devices and resources.
        configs: method -> its whole configuration.
        tasks: names of tasks, with the null controls where --controls asks for them.
        conditions: names of conditions to score under, "clean" first.
        train_conditions: what to train under: names of conditions, or sets of them written `A+B`, sorted by name.
    """

    options: argparse.Namespace
    experiment: Experiment
    name: str
    settings: RunSettings
    configs: dict[str, dict[str, Any]]
    tasks: list[str]
    conditions: list[str]
    train_conditions: list[str]

    def trials(self, manifest: Manifest) -> list[TrialSpec]:
        """All trials of the grid.

        Raises:
            BadInputError: a generator's name is not allowed, a training set does not exist, or there is no trial.
        """
        from grid import names, train_sets
        from models.registry import detector_info

        square = bool((manifest.table["width"] == manifest.table["height"]).all())
        suited = {method: detector_info(method).for_pictures for method in self.configs}
        configs = {
            method: config if (suit := suited[method]) is None else suit(config, square=square)
            for method, config in self.configs.items()
        }
        untested = set(manifest.generators) - set(manifest.tested_generators)
        try:
            names.check_generators(manifest.generators)
            train_sets.check_names(manifest.generators)
            all_trials = self._trials(manifest.train_generators, manifest.digest, configs, untested)
            trials = self._of_equal_size(all_trials, manifest)
        except (ValueError, BadInputError) as error:
            raise BadInputError(f"{error}{only_tested(manifest)}") from error
        from grid.controls import control_problems

        if problems := control_problems(trials, manifest):
            raise BadInputError("\n".join(problems))
        return trials

    def trials_before_drawing(self, generators: Sequence[str]) -> list[TrialSpec]:
        """All trials of a grid whose images are not drawn yet. Their keys are not those that they will have.

        Args:
            generators: those that the corpus will have.

        Raises:
            BadInputError: as `trials`.
        """
        chosen = self.options.generators or generators
        try:
            return self._trials(sorted(set(generators) & set(chosen)), NOT_DRAWN, self.configs)
        except ValueError as error:
            raise BadInputError(str(error)) from error

    def _trials(
        self, generators: Sequence[str], digest: str, configs: Mapping[str, Any], untested: Collection[str] = ()
    ) -> list[TrialSpec]:
        from models.registry import depends_on_seed, detector_info

        options = self.options
        trials = [
            trial
            for train_condition in self.train_conditions
            for tasks, trained in to_train_on(self.tasks, generators, untested)
            for trial in self.experiment.trials(
                generators=trained,
                configs=configs,
                tasks=tasks,
                seeds=options.seeds or self.experiment.seeds,
                data=digest,
                train_on=options.train_on,
                train_condition=train_condition,
                without_fakes=[method for method in self.configs if not detector_info(method).needs_fakes],
                without_seeds=[method for method, config in configs.items() if not depends_on_seed(method, config)],
            )
        ]
        trials = [trial for trial in trials if trial.task == DETECTION or not detector_info(trial.method).reference]
        if not trials:
            raise BadInputError("these options leave no trial to run")
        return trials

    def _of_equal_size(self, trials: list[TrialSpec], manifest: Manifest) -> list[TrialSpec]:
        """The trials with the numbers that --equal-size gives them; controls, and all without it, as they are."""
        if self.options.equal_size is None:
            return trials
        sizes: dict[str, EqualSize] = {}
        for task in dict.fromkeys(trial.task for trial in trials if not get_task(trial.task).is_control):
            train_sets = list(dict.fromkeys(trial.train_set for trial in trials if trial.task == task))
            if self.options.equal_size == SMALLEST:
                sizes[task] = largest(manifest, task, train_sets)
            else:
                sizes[task] = EqualSize.parse(self.options.equal_size)
                check(manifest, task, train_sets, sizes[task])
        return [dataclasses.replace(trial, equal_size=sizes.get(trial.task)) for trial in trials]

    def without_trials(self, trials: Sequence[TrialSpec]) -> dict[str, list[str]]:
        """Task -> methods that learn from fakes and have none of these trials."""
        present = {(trial.task, trial.method) for trial in trials}
        methods = {task: self.methods_of(task) for task in self.tasks}
        lacking = {task: [name for name in methods[task] if (task, name) not in present] for task in self.tasks}
        return {task: methods for task, methods in lacking.items() if methods}

    def methods_of(self, task: str) -> list[str]:
        """The methods that have trials of a task, if there are training sets for them."""
        from models.registry import detector_info

        infos = map(detector_info, self.configs)
        return [info.name for info in infos if info.needs_fakes and (task == DETECTION or not info.reference)]

    def repeated(self) -> str:
        """The options that another launch of the same grid needs, as typed, without those that choose trials."""
        parser = argparse.ArgumentParser()
        add_data_options(parser)
        add_place_options(parser)
        words: list[str] = []
        for name in REPEATED:
            value = getattr(self.options, name)
            if name == "root":
                words += [word for root in value for word in ("--root", root)]
            elif value != parser.get_default(name):
                words.append(option_of(name))
                words += [] if value is True else [",".join(value) if isinstance(value, list) else str(value)]
        short = {setting: name for name, setting in PER_METHOD.items()}
        for method, changes in self.settings.by_method.items():
            words += [word for name, value in changes.items() for word in ("--set", f"{method}.{short[name]}={value}")]
        return shlex.join(words)


def resolve(options: argparse.Namespace) -> Launch:
    """Check the command line.

    Raises:
        BadInputError: there are mistakes; the message has all of them.
    """
    experiment = _experiment(options.experiment)
    problems = []
    problems += corpus_problems(options, get_source(experiment.source))
    if options.limit is not None and options.limit < 1:
        problems.append(f"limit must be at least 1, got {options.limit}")
    if options.equal_size not in (None, SMALLEST):
        try:
            EqualSize.parse(options.equal_size)
        except ValueError as error:
            problems.append(str(error))
    tasks = list(dict.fromkeys([*(options.tasks or experiment.tasks), *(list_controls() if options.controls else ())]))
    trained, scored = _conditions(options, problems)
    for names, look_up, option in (
        (tasks, get_task, "--tasks"),
        (expand(scored), get_condition, "--conditions"),
        (trained, joined, "--train-condition"),
    ):
        for name in names:
            try:
                look_up(name)
            except KeyError as error:
                problems.append(f"{option}: {error.args[0]}")
    problems += _audit_problems(options.accept_audit)
    configs, weight_files, by_method = _methods(options, experiment, problems)
    problems += _ray_problems(options)
    problems += edits_problems(configs, trained)
    settings = _settings(options, weight_files, by_method, problems)
    if settings is not None and not problems:
        problems = _gpu_problems(options, settings, list(configs))
    if settings is None or problems:
        raise BadInputError("\n".join(problems))
    conditions, train_conditions = expand([CLEAN, *scored]), list(dict.fromkeys(map(joined, trained)))
    settings = dataclasses.replace(settings, keep_decoded=_read_repeatedly(conditions, train_conditions))
    name = options.experiment_name or experiment.name
    return Launch(options, experiment, name, settings, configs, tasks, conditions, train_conditions)


def resolve_methods(options: argparse.Namespace) -> tuple[dict[str, dict[str, Any]], dict[str, Path]]:
    """The configurations by method that a command line chooses (`add_method_options`), and local weights by digest.

    Raises:
        BadInputError: there are mistakes; the message has all of them.
    """
    problems: list[str] = []
    configs, weight_files, _ = _methods(options, _experiment(options.experiment), problems)
    if problems:
        raise BadInputError("\n".join(problems))
    return configs, weight_files


def _experiment(name: str) -> Experiment:
    """The experiment of that name. Raises `BadInputError`, which lists experiments, commands and near words."""
    try:
        return load_experiment(name)
    except KeyError as error:
        hint = _method_hint(name) or of_analysis(name)
        raise BadInputError(f"{error.args[0]}; commands: {', '.join(list_commands())}{hint}") from error


def _method_hint(name: str) -> str:
    """The end of a message about a word that is no experiment and is the name of a method, or its beginning."""
    from models.registry import list_detectors

    near = [method for method in list_detectors() if len(name) > 2 and method.startswith(name)]
    return f". {', '.join(near)}: a method; choose methods with --methods {','.join(near)}" if near else ""


def option_of(setting: str) -> str:
    """The setting's option on the command line."""
    return "--" + setting.replace("_", "-")


def _conditions(options: argparse.Namespace, problems: list[str]) -> tuple[list[str], list[str]]:
    """What to train under and what to score under, as typed."""
    trained, scored, equal = options.train_condition, list(options.conditions), options.equalise
    if equal is None:
        return trained or [CLEAN], scored
    if equal == PASTE_BACK:
        problems.append(
            f"--equalise {equal} does not make real and fake alike, because it changes fakes alone; to train and score "
            f"on pasted fakes: --train-condition {equal} --conditions {equal}"
        )
        return [CLEAN], scored
    if equal == CLEAN or equal in SETS or len(members(equal)) > 1 or "," in equal:
        problems.append(
            f"--equalise wants one condition that changes pictures, such as jpeg-95; got {equal!r}. For several: "
            "--train-condition A,B --conditions A,B"
        )
        return [CLEAN], scored
    try:
        get_condition(equal)
    except KeyError as error:
        problems.append(f"--equalise: {error.args[0]}")
        return [CLEAN], scored
    if trained not in (None, [equal]):
        problems.append(
            f"--equalise {equal} trains under {equal}, and --train-condition {','.join(trained)} contradicts it; "
            f"leave one of them out (--train-condition {','.join([*trained, equal])} --conditions {equal} makes trials "
            "of both)"
        )
    return [equal], [*scored, equal]


def _read_repeatedly(conditions: Sequence[str], train_conditions: Sequence[str]) -> tuple[str, ...]:
    """The splits whose pictures are read under several conditions, or again in each epoch of a network."""
    trained = (TRAIN, VALID) if set(train_conditions) != {CLEAN} else ()
    return (*trained, *([TEST] if len(conditions) > 1 else []))


def _methods(
    options: argparse.Namespace, experiment: Experiment, problems: list[str]
) -> tuple[dict[str, dict[str, Any]], dict[str, Path], dict[str, dict[str, Any]]]:
    """Configurations by method, local weights by digest, and overrides of `RunSettings` by method."""
    from models.detector import WeightsError
    from models.registry import detector_info, expand_methods, list_references, resolve_config
    from models.weights import parse_weights_argument

    chosen: dict[str, dict[str, Any]] = {}
    is_small = experiment.small or options.small
    try:
        methods = expand_methods(options.methods or experiment.methods)
    except KeyError as error:
        problems.append(f"--methods: {error.args[0]}")
        methods = []
    for method in dict.fromkeys([*methods, *(list_references() if options.controls else ())]):
        try:
            info = detector_info(method)
        except KeyError as error:
            problems.append(str(error.args[0]))
            continue
        chosen[method] = {**(info.small if is_small else {}), **experiment.methods.get(method, {})}
    by_method: dict[str, dict[str, Any]] = {}
    for text in options.set:
        _set(text, chosen, by_method, problems)
    weight_files: dict[str, Path] = {}
    for text in options.weights:
        target, _, value = text.partition("=")
        method, _, setting = target.partition(".")
        if method not in chosen or not value:
            problems.append(f"--weights wants METHOD=W with METHOD of {', '.join(chosen)}; got {text!r}")
            continue
        files = [field.name for field in dataclasses.fields(detector_info(method).config)]
        files = [name for name in files if name.endswith("weights")]
        setting = setting or "weights"
        if setting not in files:
            own = ", ".join(files) or "none"
            problems.append(f"--weights {text}: {method} has no setting {setting!r}; for weights it has: {own}")
            continue
        try:
            chosen[method][setting], path = parse_weights_argument(value)
        except WeightsError as error:
            problems.append(f"--weights {text}: {error}")
            continue
        if path is not None:
            weight_files[chosen[method][setting].split(":")[1]] = path.resolve()
    configs = {}
    for method, overrides in chosen.items():
        try:
            configs[method] = resolve_config(method, overrides)
        except ValueError as error:
            problems.append(str(error.args[0]))
    return configs, weight_files, by_method


def _set(
    text: str, chosen: dict[str, dict[str, Any]], by_method: dict[str, dict[str, Any]], problems: list[str]
) -> None:
    """Apply one `--set METHOD.NAME=VALUE`."""
    from models.registry import detector_info

    setting, equals, value = text.partition("=")
    method, _, name = setting.rpartition(".")
    if not method or not name or not equals:
        problems.append(f"--set wants METHOD.NAME=VALUE, got {text!r}")
        return
    if method != "*" and method not in chosen:
        problems.append(f"--set {text}: no method {method!r} in this grid; there are: {', '.join(chosen)}")
        return
    if name in PER_METHOD:
        for target in chosen if method == "*" else [method]:
            by_method.setdefault(target, {})[PER_METHOD[name]] = value
        return
    targets = [method]
    if method == "*":
        fields = {candidate: dataclasses.fields(detector_info(candidate).config) for candidate in chosen}
        targets = [candidate for candidate in chosen if name in {field.name for field in fields[candidate]}]
    if not targets:
        problems.append(f"--set {text}: no method of this grid has a setting {name!r}")
    for target in targets:
        chosen[target][name] = value


def _settings(
    options: argparse.Namespace,
    weight_files: dict[str, Path],
    by_method: dict[str, dict[str, Any]],
    problems: list[str],
) -> RunSettings | None:
    from pydantic import ValidationError

    from grid.settings import RunSettings
    from grid.uris import tracking_uri
    from models.validation import in_words

    runs = options.runs.resolve()
    values = {field.name: getattr(options, field.name, None) for field in dataclasses.fields(RunSettings)}
    values |= {
        "cache": (options.cache or runs / "cache").resolve(),
        "runs": runs,
        "local_copies": options.local_copies and options.local_copies.absolute(),
        "weight_files": weight_files,
        "by_method": by_method,
    }
    try:
        values["tracking_uri"] = tracking_uri(runs)
        return RunSettings(**{name: value for name, value in values.items() if value is not None})
    except ValidationError as error:
        lines = "\n".join(in_words(error)).replace("by_method ", "").splitlines()
        problems += map(_as_typed, lines)
    except ValueError as error:  # a path that no store can have
        problems.append(str(error))
    return None


def _as_typed(problem: str) -> str:
    """A problem of a field of `RunSettings`, under the name of its option."""
    name, _, rest = problem.partition(" ")
    method, _, field = name.rpartition(".")
    if method:
        short = {field: short for short, field in PER_METHOD.items()}
        return f"--set {method}.{short.get(field, field)} {rest}"
    return f"{option_of(name)} {rest}"


def _audit_problems(names: Sequence[str]) -> list[str]:
    """One line per name that is no audit."""
    if not names:
        return []
    from data.audits import list_audits
    from data.register import no_entry

    audits = list_audits()
    return [f"--accept-audit: {no_entry('audit', name, audits).args[0]}" for name in names if name not in audits]


def _ray_problems(options: argparse.Namespace) -> list[str]:
    """One line per option about Ray that contradicts another option."""
    sizes = [option for option in ("num_gpus", "num_cpus") if getattr(options, option) is not None]
    problems = [f"{option_of(name)} must not be negative" for name in sizes if getattr(options, name) < 0]
    if options.local:
        given = sizes + (["address"] if options.address else [])
        return problems + [f"{option_of(name)} is about Ray; leave it out with --local" for name in given]
    address = options.address or os.environ.get("RAY_ADDRESS") or ""
    if address:
        problems += [f"{option_of(name)} is for a local Ray, not for the cluster at {address}" for name in sizes]
    if "://" in address:
        problems.append(f"no Ray Client: launch on a node of the cluster, with --address HOST:PORT; got {address}")
    return problems


def _gpu_problems(options: argparse.Namespace, settings: RunSettings, methods: Sequence[str]) -> list[str]:
    """One line per GPU type or GPU memory that is asked for where no GPU is used."""
    from models.registry import detector_info

    without = "--local" if options.local else "--device cpu" if options.device == "cpu" else ""
    problems = []
    for name in ("accelerator", "gpu_memory"):
        overridden = [method for method in methods if name in settings.by_method.get(method, {})]
        asking = [method for method in overridden if getattr(settings.for_method(method), name)]
        if without and (getattr(options, name) or asking):
            problems.append(f"{option_of(name)} chooses among the GPUs of a cluster; leave it out with {without}")
            continue
        problems += [
            f"--set {method}.{name}=…: the method uses no GPU; give its trials a share with --set {method}.gpus=X, "
            "or leave it out"
            for method in asking
            if not settings.for_method(method).gpu_share(detector_info(method).gpu_share, gpus_available=1)
        ]
    return problems


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise argparse.ArgumentTypeError("name at least one")
    return names
