"""The register of methods. Importing it imports no torch: a method imports heavy packages when it is built."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from pydantic import TypeAdapter, ValidationError

from models.detector import BuildContext, Detector
from models.needs import PictureNeeds, SelfEdits
from models.register import Register, did_you_mean
from models.validation import in_words

if TYPE_CHECKING:
    from models.sizes import Footprint

Build = Callable[[Any, BuildContext], Detector]
Needs = Callable[[Any], PictureNeeds]
Complete = Callable[[dict[str, Any]], dict[str, Any]]
OfConfig = Callable[[Any], bool]
Edits = Callable[[Any], tuple[SelfEdits, ...]]
Pretrained = tuple[str, str, str]  # family of backbones, architecture, weights string
FAMILY = "family:"  # before a word of `DetectorInfo.family`, where methods are named


def _any_size(config: Any) -> PictureNeeds:
    return PictureNeeds()


def _always(config: Any) -> bool:
    return True


def _never(config: Any) -> bool:
    return False


def _one_backbone(family: str) -> Callable[[Any], tuple[Pretrained, ...]]:
    return lambda config: ((family, config.backbone, config.weights),)


class ForPictures(Protocol):
    """See `DetectorInfo.for_pictures`."""

    def __call__(self, config: dict[str, Any], *, square: bool) -> dict[str, Any]:
        """The configuration of trials on pictures that are all square, or not."""
        ...


@dataclass(frozen=True)
class DetectorInfo:
    """One registered method.

    Attributes:
        name: as on the command line and in every table.
        config: an instance of a frozen dataclass (pydantic's or Python's) with the default of every hyper-parameter.
            Values are str, int, float or bool, so that the resolved configuration can be hashed, logged and read back;
            or None for a setting that is left out.
        gpu_share: fraction of one GPU that a trial requests by default; 1/n, or 0 for a method that uses no GPU.
        build: (config, context) -> Detector; imports heavy packages when it is called.
        summary: one line that describes the method.
        small: settings that make the method small enough for the demo and for tests, without a download.
        needs_fakes: whether the method learns from fakes; if not, it is trained once, on real images only.
        self_edits: configuration -> the self-edited pictures that the method learns from, in place of fakes, by one or
            more recipes. Training photographs and their edits fit, validation photographs and their edits choose. None:
            no such pictures.
        log_odds: whether the detector's score is the log-odds of fake. If not, it has no probability, and no values at
            p = 0.5.
        picture_needs: configuration -> the sizes of pictures that the method can take.
        depends_on_seed: configuration -> whether another seed may give another detector. If not, a trial runs with one
            seed alone, and its seed variance is zero.
        complete: a resolved configuration -> the same with settings that follow from others; raises `ValueError` for
            settings that are missing. None: there is nothing to add.
        for_pictures: (completed configuration, square=whether all pictures of the data set are square) -> the
            configuration of trials on them. None: it is the same for all.
        test_only: the method comes trained, as a file, and `fit` trains nothing: one row, trained on no generator.
        reference: a row to compare methods with, and no method of anybody: it takes part only in a grid with controls,
            and in no ranking.
        family: a word for methods of one kind, for `--methods family:WORD`; "": of no family.
        reads_masks: configuration -> whether `fit` needs the edited area of each training and validation picture
            (`Examples.masks`).
        pretrained: configuration -> the backbones whose weights the method loads, whatever these are. None: the method
            has no weights, or does not say which.
        footprint: configuration -> what its trials keep on disk (`models.sizes`), for a plan. None: not known.
    """

    name: str
    config: Any
    gpu_share: float
    build: Build
    summary: str
    small: Mapping[str, Any] = field(default_factory=dict)
    needs_fakes: bool = True
    self_edits: Edits | None = None
    log_odds: bool = True
    picture_needs: Needs = _any_size
    depends_on_seed: OfConfig = _always
    complete: Complete | None = None
    for_pictures: ForPictures | None = None
    reference: bool = False
    family: str = ""
    test_only: bool = False
    reads_masks: OfConfig = _never
    pretrained: Callable[[Any], tuple[Pretrained, ...]] | None = None
    footprint: Callable[[Any], Footprint | None] | None = None


_detectors: Register[DetectorInfo] = Register("method", "models.detectors")
list_detectors, detector_info = _detectors.names, _detectors.get


def list_references() -> list[str]:
    """Names of the methods that are references (see `DetectorInfo`)."""
    return [name for name in list_detectors() if detector_info(name).reference]


def expand_methods(words: Iterable[str]) -> list[str]:
    """Each method once, in the order given; `family:WORD` becomes the methods of that family, in alphabetical order.

    `-NAME` leaves a method out that a word before it named. Does not look other names of methods up.

    Raises:
        KeyError: no such family, with a list of the families; or nothing to leave out.
    """
    families: dict[str, list[str]] = {}
    for name in list_detectors():
        families.setdefault(detector_info(name).family, []).append(name)
    families.pop("", None)
    methods: list[str] = []
    for word in words:
        family = word.removeprefix(FAMILY)
        if word.startswith("-"):
            if word[1:] not in methods:
                raise KeyError(f"{word} leaves {word[1:]!r} out, which no word before it names")
            methods = [name for name in methods if name != word[1:]]
        elif not word.startswith(FAMILY):
            methods.append(word)
        elif family in families:
            methods += families[family]
        else:
            raise KeyError(f"no family of methods named {family!r}; there are: {', '.join(sorted(families))}")
    return list(dict.fromkeys(methods))


def register_detector(
    name: str,
    *,
    config: Any,
    gpu_share: float,
    small: Mapping[str, Any] | None = None,
    needs_fakes: bool = True,
    self_edits: Edits | None = None,
    log_odds: bool = True,
    picture_needs: Needs = _any_size,
    depends_on_seed: OfConfig = _always,
    complete: Complete | None = None,
    for_pictures: ForPictures | None = None,
    reference: bool = False,
    family: str = "",
    test_only: bool = False,
    reads_masks: OfConfig | bool = False,
    pretrained: str | Callable[[Any], tuple[Pretrained, ...]] | None = None,
    footprint: Callable[[Any], Footprint | None] | None = None,
) -> Callable[[Build], Build]:
    """Register the decorated builder under `name`; its docstring's first line becomes the summary.

    The arguments are the fields of `DetectorInfo`. A method that is test-only needs no fakes. `pretrained` may be the
    family of the backbone that the settings `backbone` and `weights` name.

    Raises:
        ValueError: the name is taken, or `config` is not an instance of a frozen dataclass.
    """

    def decorate(build: Build) -> Build:
        params = getattr(type(config), "__dataclass_params__", None)
        if params is None or not params.frozen:
            raise ValueError(f"the configuration of {name!r} must be an instance of a frozen dataclass")
        summary = (build.__doc__ or "").strip().partition("\n")[0]
        info = DetectorInfo(
            name,
            config,
            gpu_share,
            build,
            summary,
            small=dict(small or {}),
            needs_fakes=needs_fakes and not test_only,
            self_edits=self_edits,
            log_odds=log_odds,
            picture_needs=picture_needs,
            depends_on_seed=depends_on_seed,
            complete=complete,
            for_pictures=for_pictures,
            reference=reference,
            family=family,
            test_only=test_only,
            reads_masks=reads_masks if callable(reads_masks) else (_always if reads_masks else _never),
            pretrained=_one_backbone(pretrained) if isinstance(pretrained, str) else pretrained,
            footprint=footprint,
        )
        _detectors.add(name, info)
        return build

    return decorate


def resolve_config(name: str, overrides: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The method's whole configuration as a plain dictionary, with defaults, without settings that are None.

    Values are converted to the types of the configuration's fields ("3" -> 3, "1e-4" -> 0.0001, "false" -> False).

    Raises:
        KeyError: no such method.
        ValueError: an unknown setting (the message lists the settings), a value that the setting's type forbids, or a
            setting that must be given.
    """
    info = detector_info(name)
    config = info.config
    settings = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    for setting in overrides or {}:
        if setting not in settings:
            there = sorted(settings)
            hint = did_you_mean(setting, there)
            raise ValueError(f"{name} has no setting {setting!r}{hint}; it has: {', '.join(there)}")
    try:
        resolved = TypeAdapter(type(config)).validate_python(settings | dict(overrides or {}))
    except ValidationError as error:
        raise ValueError("\n".join(in_words(error, name))) from None
    values = {setting: getattr(resolved, setting) for setting in settings}
    values = {setting: value for setting, value in values.items() if value is not None}
    try:
        return values if info.complete is None else info.complete(values)
    except ValueError as error:
        raise ValueError(str(error).replace("METHOD", name)) from None


def is_small(name: str, config: Mapping[str, Any]) -> bool:
    """Whether a configuration is a method's small form: its small network, or all small settings if it names none.

    False for a method that this checkout does not have, and for one that has no small form of its own.
    """
    if name not in list_detectors():
        return False
    info = detector_info(name)
    telling = {"backbone"} & info.small.keys() or info.small.keys()
    default = {setting: getattr(info.config, setting) for setting in telling}
    small = {setting: info.small[setting] for setting in telling}
    return small != default and all(config.get(setting) == value for setting, value in small.items())


def size_check(configs: Iterable[tuple[str, Mapping[str, Any]]]) -> Callable[[int, int], str]:
    """A function that says which of these methods cannot take a picture of a size.

    Args:
        configs: methods, each with its resolved configuration.

    Returns:
        (width, height) in pixels -> the methods and what is wrong, in words; "" if all can take it.
    """
    needs = [(name, _needs_of(name, config)) for name, config in configs]

    def check(width: int, height: int) -> str:
        methods: dict[str, list[str]] = {}
        for name, need in needs:
            if problem := need.problem(width, height):
                methods.setdefault(problem, [])
                methods[problem] += [name] if name not in methods[problem] else []
        return "; ".join(f"{problem}, which {', '.join(names)} cannot take" for problem, names in methods.items())

    return check


def depends_on_seed(name: str, config: Mapping[str, Any]) -> bool:
    """Whether another seed may give another detector of this method, by its resolved configuration.

    A method, a setting or a value that this checkout does not have counts as one that depends on the seed.
    """
    if name not in list_detectors():
        return True
    info = detector_info(name)
    try:
        return info.depends_on_seed(dataclasses.replace(info.config, **config))
    except (TypeError, ValueError):
        return True


def self_edits(name: str, config: Mapping[str, Any]) -> tuple[SelfEdits, ...]:
    """The self-edited pictures that a method learns from, by its resolved configuration; empty: no such pictures."""
    info = detector_info(name)
    return () if info.self_edits is None else info.self_edits(dataclasses.replace(info.config, **config))


def reads_masks(name: str, config: Mapping[str, Any]) -> bool:
    """Whether a method learns from masks, by its resolved configuration."""
    info = detector_info(name)
    return info.reads_masks(dataclasses.replace(info.config, **config))


def gives_log_odds(name: str) -> bool:
    """Whether the scores of a method are log-odds of fake; those of a method that this checkout lacks count as such."""
    return name not in list_detectors() or detector_info(name).log_odds


def _needs_of(name: str, config: Mapping[str, Any]) -> PictureNeeds:
    info = detector_info(name)
    return info.picture_needs(dataclasses.replace(info.config, **config))


def create_detector(name: str, config: Mapping[str, Any], context: BuildContext) -> Detector:
    """Build a method from a resolved configuration.

    Raises:
        KeyError: no such method.
        ValueError: the classes are not distinct, fewer than two, or do not begin with "real".
        WeightsError: pretrained weights cannot be had or do not fit.
    """
    info = detector_info(name)
    if context.classes[0] != "real" or len(context.classes) < 2 or len(set(context.classes)) != len(context.classes):
        raise ValueError(f"classes must be distinct, at least two, 'real' first; got {context.classes}")
    return info.build(dataclasses.replace(info.config, **config), context)
