"""The register of methods. Importing it imports no torch: a method imports heavy packages when it is built."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from pydantic import TypeAdapter, ValidationError

from models.detector import BuildContext, Detector
from models.needs import PictureNeeds
from models.register import Register
from models.validation import in_words

Build = Callable[[Any, BuildContext], Detector]
Needs = Callable[[Any], PictureNeeds]
Complete = Callable[[dict[str, Any]], dict[str, Any]]
OfConfig = Callable[[Any], bool]


def _any_size(config: Any) -> PictureNeeds:
    return PictureNeeds()


def _always(config: Any) -> bool:
    return True


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
        picture_needs: configuration -> the sizes of pictures that the method can take.
        depends_on_seed: configuration -> whether another seed may give another detector. If not, a trial runs with one
            seed alone, and its seed variance is zero.
        complete: a resolved configuration -> the same with settings that follow from others; raises `ValueError` for
            settings that are missing. None: there is nothing to add.
        for_pictures: (completed configuration, square=whether all pictures of the data set are square) -> the
            configuration of trials on them. None: it is the same for all.
        reference: a row to compare methods with, and no method of anybody: it takes part only in a grid with controls,
            and in no ranking.
    """

    name: str
    config: Any
    gpu_share: float
    build: Build
    summary: str
    small: Mapping[str, Any] = field(default_factory=dict)
    needs_fakes: bool = True
    picture_needs: Needs = _any_size
    depends_on_seed: OfConfig = _always
    complete: Complete | None = None
    for_pictures: ForPictures | None = None
    reference: bool = False


_detectors: Register[DetectorInfo] = Register("method", "models.detectors")
list_detectors, detector_info = _detectors.names, _detectors.get


def list_references() -> list[str]:
    """Names of the methods that are references (see `DetectorInfo`)."""
    return [name for name in list_detectors() if detector_info(name).reference]


def register_detector(
    name: str,
    *,
    config: Any,
    gpu_share: float,
    small: Mapping[str, Any] | None = None,
    needs_fakes: bool = True,
    picture_needs: Needs = _any_size,
    depends_on_seed: OfConfig = _always,
    complete: Complete | None = None,
    for_pictures: ForPictures | None = None,
    reference: bool = False,
) -> Callable[[Build], Build]:
    """Register the decorated builder under `name`; its docstring's first line becomes the summary.

    The arguments are the fields of `DetectorInfo`.

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
            needs_fakes=needs_fakes,
            picture_needs=picture_needs,
            depends_on_seed=depends_on_seed,
            complete=complete,
            for_pictures=for_pictures,
            reference=reference,
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
            raise ValueError(f"{name} has no setting {setting!r}; it has: {', '.join(sorted(settings))}")
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
