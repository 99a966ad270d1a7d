from __future__ import annotations

import hashlib
import random
import time
import urllib.error
import urllib.request
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file

from models.detector import WeightsError
from models.hubs import hub_file, url_file
from models.weights import (
    PACKAGED,
    file_digest,
    load_strictly,
    local_source,
    parse_weights_argument,
    read_state_dict,
    rename_by_order,
    weights_note,
    without_prefix,
    without_wrappers,
)

STATE = {"weight": torch.arange(6.0).reshape(2, 3), "bias": torch.ones(2)}


class Payload:
    """Creates a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.target,))


def assert_is_state(state: dict[str, torch.Tensor]) -> None:
    assert list(state) == list(STATE)
    assert all(torch.equal(state[name], STATE[name]) for name in STATE)


# The weights string


@pytest.mark.parametrize("text", ["random", "hub", "hub:openai", PACKAGED])
def test_words_pass_through(text: str) -> None:
    assert parse_weights_argument(text) == (text, None)


def test_a_path_becomes_a_digest(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(b"abc")
    digest = hashlib.sha256(b"abc").hexdigest()[:16]
    assert file_digest(path) == digest
    assert parse_weights_argument(str(path)) == (f"file:{digest}", path)


@pytest.mark.parametrize("text", ["nowhere.pth", "Random", "hub:", "package:resnet", ""])
def test_anything_else_is_refused(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(WeightsError):
        parse_weights_argument(text)


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="is a folder"):
        parse_weights_argument(str(tmp_path))


def test_digest_notices_a_changed_file(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(b"abc")
    before = file_digest(path)
    path.write_bytes(b"abcd")
    assert file_digest(path) != before


def test_notes() -> None:
    assert weights_note("random") == "random weights"
    assert weights_note("hub") == "hub weights"
    assert weights_note("hub:openai") == "hub weights (openai)"
    assert weights_note(PACKAGED) == "ImageNet (packaged)"
    assert weights_note("file:0123", {"0123": Path("/a/vit.pth")}) == "weights from vit.pth (digest 0123)"
    with pytest.raises(WeightsError, match="no weights 'zoo'"):
        weights_note("zoo")


def test_local_source_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(b"abc")
    digest = file_digest(path)
    source = local_source(f"file:{digest}", weight_files={digest: path}, seed=3)
    assert source is not None
    assert (source.path, source.digest) == (path, digest)
    with pytest.raises(WeightsError, match="no local file is known"):
        local_source(f"file:{digest}", weight_files={}, seed=3)
    path.write_bytes(b"other")
    with pytest.raises(WeightsError, match="has changed"):
        local_source(f"file:{digest}", weight_files={digest: path}, seed=3)
    path.unlink()
    with pytest.raises(WeightsError, match="not on this machine"):
        local_source(f"file:{digest}", weight_files={digest: path}, seed=3)


def test_random_weights_are_known_by_their_seed() -> None:
    source = local_source("random", weight_files={}, seed=3)
    assert source is not None
    assert (source.path, source.digest) == (None, "random-3")
    assert local_source("hub", weight_files={}, seed=3) is None


# Reading


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin", ".ckpt"])
@pytest.mark.parametrize("zipped", [True, False])
def test_reads_what_torch_wrote(tmp_path: Path, suffix: str, zipped: bool) -> None:
    path = tmp_path / f"weights{suffix}"
    torch.save(STATE, path, _use_new_zipfile_serialization=zipped)
    assert_is_state(read_state_dict(path))


def test_reads_safetensors_by_content(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "weights.bin")  # a wrong name does not matter
    state = read_state_dict(tmp_path / "weights.bin")
    assert {name: tensor.tolist() for name, tensor in state.items()} == {n: t.tolist() for n, t in STATE.items()}


OUTER = [
    "state_dict", "model", "model_state", "state_dict_ema", "model_state_dict", "net", "network", "module", "backbone",
    "encoder", "weights", "params", "model_ema", "params_ema", "ema", "a name of its own",
]  # fmt: skip


@pytest.mark.parametrize("outer", OUTER)
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod."])
def test_unwraps(tmp_path: Path, outer: str, prefix: str) -> None:
    path = tmp_path / "weights.pth"
    torch.save({"epoch": 3, outer: {prefix + name: tensor for name, tensor in STATE.items()}}, path)
    assert_is_state(read_state_dict(path))


def test_unwraps_what_is_nested_twice_beside_other_things(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    optimiser = {"state": {0: {"momentum": torch.ones(2)}}, "param_groups": [{"lr": 0.1}]}
    torch.save({"model": {"state_dict": STATE}, "optimizer": optimiser, "args": Namespace(lr=0.1), "epoch": 3}, path)
    assert_is_state(read_state_dict(path))


def test_settings_beside_the_tensors_are_no_network(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save({**STATE, "params": {"lr": 0.1}, "weights": {}}, path)
    assert_is_state(read_state_dict(path))
    torch.save({"best": torch.tensor(0.9), "net": STATE, "state_dict": {}}, path)
    assert_is_state(read_state_dict(path))
    endless: dict[str, Any] = {"weight": torch.ones(1)}
    endless["net"] = endless
    torch.save(endless, path)
    assert list(read_state_dict(path)) == ["weight"]


def test_several_networks_under_unknown_names_are_refused(tmp_path: Path) -> None:
    torch.save({"generator": STATE, "discriminator": STATE}, tmp_path / "weights.pth")
    with pytest.raises(WeightsError, match=r"several networks \(generator, discriminator\): save the one"):
        read_state_dict(tmp_path / "weights.pth")


@pytest.mark.parametrize(("raw", "averaged"), [("state_dict", "state_dict_ema"), ("model", "model_ema")])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_averaged_weights_are_taken_as_by_timms_own_loader(
    tmp_path: Path, raw: str, averaged: str, prefix: str
) -> None:
    path = tmp_path / "checkpoint.pth.tar"
    theirs = {prefix + name: tensor + 1 for name, tensor in STATE.items()}
    torch.save({"epoch": 3, raw: STATE, averaged: theirs, "optimizer": {}}, path)
    weights, file = parse_weights_argument(str(path))
    assert (weights, file) == (f"file:{file_digest(path)}:ema", path)
    source = local_source(weights, weight_files={file_digest(path): path}, seed=0)
    assert source is not None
    assert source.averaged
    assert source.digest == f"{file_digest(path)}-ema"  # so that features of the raw weights are not read
    assert source.note == f"weights from checkpoint.pth.tar (digest {file_digest(path)}, averaged by EMA)"
    loaded = read_state_dict(path, averaged=source.averaged)
    expected = timm.models.load_state_dict(str(path))
    assert list(loaded) == list(expected) == list(STATE)
    assert all(torch.equal(loaded[name], expected[name]) for name in expected)
    assert torch.equal(loaded["bias"], STATE["bias"] + 1)


def test_runs_from_before_averaged_weights_were_told_apart_keep_the_raw_ones(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save({"state_dict": STATE, "state_dict_ema": {name: tensor + 1 for name, tensor in STATE.items()}}, path)
    source = local_source(f"file:{file_digest(path)}", weight_files={file_digest(path): path}, seed=0)
    assert source is not None
    assert source.digest == file_digest(path)
    assert_is_state(read_state_dict(path, averaged=source.averaged))


@pytest.mark.parametrize("outer", [None, "state_dict", "state_dict_ema", "model_ema"])
def test_a_file_with_one_kind_of_weights_keeps_its_name(tmp_path: Path, outer: str | None) -> None:
    path = tmp_path / "weights.pth"
    torch.save({outer: STATE, "epoch": 1} if outer else STATE, path)
    weights, _ = parse_weights_argument(str(path))
    assert weights == f"file:{file_digest(path)}"
    assert_is_state(read_state_dict(path))


@pytest.mark.parametrize("prefix", ["model.", "backbone.", "net.", "encoder.", "module.model.", "a.b.c."])
def test_the_prefix_of_a_program_around_the_network_is_taken_off(prefix: str) -> None:
    wrapped = {prefix + name: tensor for name, tensor in STATE.items()}
    for others in ({}, {"head.weight": torch.ones(1), "loss.margin": torch.ones(1)}, {"weight": torch.ones(9)}):
        assert_is_state(without_wrappers({**others, **wrapped}, STATE, source="FILE"))
    assert without_wrappers(STATE, STATE, source="FILE") is STATE


def test_names_of_another_network_stay_as_they_are() -> None:
    other = {"model.conv": torch.ones(1), "model.weight": torch.ones(1)}
    assert without_wrappers(other, ["weight", "bias", "scale"], source="FILE") is other


def test_a_network_that_is_there_twice_is_refused() -> None:
    twice = {f"{who}.{name}": tensor for who in ("student", "teacher") for name, tensor in STATE.items()}
    with pytest.raises(WeightsError, match=r"FILE holds .* several prefixes \(student\., teacher\.\): save the one"):
        without_wrappers(twice, STATE, source="FILE")


def test_a_prefix_of_some_names_stays(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save({"module.weight": torch.ones(1), "bias": torch.ones(1)}, path)
    assert list(read_state_dict(path)) == ["module.weight", "bias"]


def test_a_file_with_code_is_refused_and_not_run(tmp_path: Path) -> None:
    path, target = tmp_path / "weights.pth", tmp_path / "was_run"
    torch.save({"state_dict": STATE, "more": Payload(target)}, path)
    with pytest.raises(WeightsError, match="not opened"):
        read_state_dict(path)
    assert not target.exists()


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_torchscript_archive_is_opened_only_when_its_digest_is_trusted(tmp_path: Path) -> None:
    path = tmp_path / "ViT.pt"
    linear = torch.nn.Linear(3, 2)
    torch.jit.script(linear).save(path)
    with pytest.raises(WeightsError, match="TorchScript archive"):
        read_state_dict(path)
    with pytest.raises(WeightsError, match="TorchScript archive"):
        read_state_dict(path, trusted_archives={"0" * 64})
    state = read_state_dict(path, trusted_archives={hashlib.sha256(path.read_bytes()).hexdigest()})
    assert torch.equal(state["weight"], linear.weight)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 123\n", "git-lfs pointer"),
        (b"\n<!DOCTYPE html><html>404</html>", "web page"),
        (b"<html><body>Access denied</body></html>", "web page"),
        (b"PK\x03\x04 and then nothing", "truncated or damaged"),
        (b"\x80\x02 and then nothing", "truncated or damaged"),
        (b"\x93NUMPY", "known format"),
        (b"just words", "known format"),
    ],
)
def test_files_that_are_no_checkpoints(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=words):
        read_state_dict(path)


@pytest.mark.parametrize("form", ["zip", "legacy", "safetensors"])
@pytest.mark.parametrize("part", [0.1, 0.5, 0.95])
def test_truncated_files(tmp_path: Path, form: str, part: float) -> None:
    path = tmp_path / "weights.pth"
    state = {"weight": torch.randn(64, 64)}
    if form == "safetensors":
        save_file(state, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=form == "zip")
    content = path.read_bytes()
    path.write_bytes(content[: int(part * len(content))])
    with pytest.raises(WeightsError, match="truncated or damaged"):
        read_state_dict(path)


def test_a_broken_directory_of_an_archive_is_one_message(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save(STATE, path)
    whole = path.read_bytes()
    start, rng = whole.index(b"PK\x01\x02"), random.Random(0)
    refused = 0
    for _ in range(150):
        content = bytearray(whole)
        content[rng.randrange(start, len(whole))] = rng.randrange(256)
        path.write_bytes(content)
        try:
            state = read_state_dict(path)
        except WeightsError as error:
            refused += 1
            assert str(path) in str(error)  # noqa: PT017
        else:
            assert_is_state(state)  # what was changed does not matter, such as the time of an entry
    assert refused > 30


@pytest.mark.parametrize("content", [{"epoch": 1, "lr": 0.1}, [1, 2], torch.ones(2), {}])
def test_files_without_named_tensors(tmp_path: Path, content: object) -> None:
    path = tmp_path / "weights.pth"
    torch.save(content, path)
    with pytest.raises(WeightsError, match="no named tensors"):
        read_state_dict(path)


# Loading


def test_loads_everything_or_nothing() -> None:
    module = torch.nn.Linear(3, 2)
    load_strictly(module, STATE, source="FILE")
    assert torch.equal(module.weight, STATE["weight"])
    before = module.bias.clone()
    for state, words in [
        ({"bias": torch.zeros(2)}, r"1 missing \(weight \(2, 3\)\)"),
        ({**STATE, "bias": torch.zeros(2), "extra": torch.ones(4)}, r"1 unexpected \(extra \(4,\)\)"),
        (
            {"weight": torch.ones(2, 5), "bias": torch.zeros(2)},
            r"1 of another shape \(weight is \(2, 5\), not \(2, 3\)\)",
        ),
    ]:
        with pytest.raises(WeightsError, match=words):
            load_strictly(module, state, source="FILE")
        assert torch.equal(module.bias, before)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_not_finite_are_blamed(value: float) -> None:
    module = torch.nn.Linear(3, 2)
    before = module.weight.clone()
    weight = STATE["weight"].clone()
    weight[1, 2] = value
    with pytest.raises(WeightsError, match=r"FILE hold NaN or infinity in 1 of 2 tensors \(weight\).*another file"):
        load_strictly(module, {**STATE, "weight": weight}, source="FILE")
    assert torch.equal(module.weight, before)


def test_a_buffer_that_is_infinite_by_design_is_no_fault() -> None:
    module = torch.nn.Linear(3, 2)
    module.register_buffer("mask", torch.full((2,), -torch.inf))
    load_strictly(module, {**STATE, "mask": module.mask}, source="FILE")
    assert torch.equal(module.weight, STATE["weight"])


def test_names_the_first_few_and_the_remedy() -> None:
    module = torch.nn.Sequential(*[torch.nn.Linear(2, 2) for _ in range(5)])
    with pytest.raises(
        WeightsError, match=r"FILE.*10 missing \(0.weight.*, 0.bias.*, 1.weight.*, …\).*--weights METHOD"
    ):
        load_strictly(module, {}, source="FILE")


def test_ignored_tensors_keep_their_values() -> None:
    module = torch.nn.ModuleDict({"body": torch.nn.Linear(2, 2), "head": torch.nn.Linear(2, 3)})
    before = module["head"].weight.clone()
    state = {"body.weight": torch.ones(2, 2), "body.bias": torch.ones(2), "head.weight": torch.ones(1000, 2)}
    load_strictly(module, state, source="FILE", ignore=["head."])
    assert torch.equal(module["head"].weight, before)
    assert torch.equal(module["body"].weight, torch.ones(2, 2))


def test_half_precision_files_load_into_full_precision() -> None:
    module = torch.nn.Linear(3, 2)
    load_strictly(module, {name: tensor.half() for name, tensor in STATE.items()}, source="FILE")
    assert module.weight.dtype == torch.float32
    assert torch.equal(module.weight, STATE["weight"])


def test_without_prefix() -> None:
    assert without_prefix({"visual.a": torch.ones(1), "text": torch.ones(1)}, "visual.").keys() == {"a"}
    assert without_prefix({"a": torch.ones(1)}, "visual.").keys() == {"a"}


def test_rename_by_order_checks_each_shape(tmp_path: Path) -> None:
    like = {"w": torch.empty(2, 3), "b": torch.empty(2)}
    assert list(rename_by_order(STATE, like, source=tmp_path)) == ["w", "b"]
    with pytest.raises(WeightsError, match=r"weight has shape \(2, 3\); b, at its position .* has \(2,\)"):
        rename_by_order(STATE, dict(reversed(like.items())), source=tmp_path)
    with pytest.raises(WeightsError, match="holds 2 tensors"):
        rename_by_order(STATE, {"w": torch.empty(2, 3)}, source=tmp_path)


# Downloads


def test_no_network_is_said_within_seconds() -> None:
    start = time.monotonic()
    for fetch in (
        lambda: hub_file("timm/xception41.tf_in1k", ["model.safetensors", "pytorch_model.bin"], what="xception41"),
        lambda: url_file("https://dl.fbaipublicfiles.com/segment_anything/sam_vit_b_01ec64.pth", what="SAM vit_b"),
    ):
        with pytest.raises(WeightsError, match=r"cannot fetch the weights of .*no connection\?.*METHOD=FILE.*=random"):
            fetch()
    assert time.monotonic() - start < 5


def _not_there() -> Exception:
    from huggingface_hub.errors import EntryNotFoundError

    error = EntryNotFoundError("404")
    error.response = object()  # type: ignore[attr-defined]  # a server answered
    return error


def test_the_first_file_that_the_repository_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, float]] = []

    def metadata(url: str, timeout: float) -> None:
        asked.append((url.rpartition("/")[2], timeout))
        if not url.endswith("second.bin"):
            raise _not_there()

    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", metadata)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda repo, name, revision: str(tmp_path / repo / name))
    assert hub_file("owner/name/", ["first.safetensors", "second.bin"], what="x") == tmp_path / "owner/name/second.bin"
    assert [name for name, _ in asked] == ["first.safetensors", "second.bin"]
    assert all(timeout <= 10 for _, timeout in asked)
    with pytest.raises(WeightsError, match=r"owner/name has none of first\.safetensors"):
        hub_file("owner/name", ["first.safetensors"], what="x")


def test_the_cache_is_asked_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "huggingface_hub.try_to_load_from_cache",
        lambda repo, name, revision: str(tmp_path / name) if name == "b" and revision == "v1" else None,
    )
    assert hub_file("owner/name@v1", ["a", "b"], what="x") == tmp_path / "b"


def test_a_published_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = b"weights"
    prefix = hashlib.sha256(content).hexdigest()[:6]
    source = tmp_path / f"net_{prefix}.pth"
    source.write_bytes(content)
    monkeypatch.setattr(urllib.request, "urlopen", _open_local(urllib.request.urlopen))
    path = url_file(source.as_uri(), what="net")
    assert path.read_bytes() == content
    assert path.parent == tmp_path / "torch" / "hub" / "checkpoints"
    source.unlink()
    assert url_file(source.as_uri(), what="net") == path  # from the cache
    path.write_bytes(b"cut off")
    with pytest.raises(WeightsError, match="not the published file"):
        url_file(source.as_uri(), what="net")


def test_a_published_address_with_other_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "net_0123ab.pth"
    source.write_bytes(b"weights")
    monkeypatch.setattr(urllib.request, "urlopen", _open_local(urllib.request.urlopen))
    with pytest.raises(WeightsError, match=r"cannot fetch the weights of net .*hash"):
        url_file(source.as_uri(), what="net")
    with pytest.raises(WeightsError, match="cannot fetch"):
        url_file((tmp_path / "gone_0123ab.pth").as_uri(), what="net")


def _open_local(urlopen: Any) -> Any:
    """A HEAD request has no meaning for file addresses; a plain one has."""

    def opened(request: urllib.request.Request | str, *args: Any, **kwargs: Any) -> Any:
        url = request if isinstance(request, str) else request.full_url
        try:
            return urlopen(url, *args, **kwargs)
        except urllib.error.URLError as error:
            raise OSError(str(error)) from error

    return opened


def test_a_file_of_torch_that_is_named_as_safetensors_is_read(tmp_path: Path) -> None:
    torch.save({"a": torch.arange(3.0)}, tmp_path / "network.safetensors")
    assert read_state_dict(tmp_path / "network.safetensors")["a"].tolist() == [0, 1, 2]


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("tensor", [torch.eye(3).to_sparse(), torch.zeros(3, dtype=torch.complex64)])
def test_sparse_and_complex_tensors_are_refused(tmp_path: Path, tensor: torch.Tensor) -> None:
    torch.save({"a": tensor, "b": torch.zeros(2)}, tmp_path / "network.pt")
    with pytest.raises(WeightsError, match=r"holds sparse or complex tensors \(a\): save it as dense real ones"):
        read_state_dict(tmp_path / "network.pt")


@pytest.mark.parametrize("variable", ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
def test_offline_mode_asks_nobody_and_says_what_is_missing(
    tmp_path: Path, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("a server was asked")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", refuse)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", refuse)
    monkeypatch.setenv(variable, "1")
    with pytest.raises(
        WeightsError, match=rf"of x .*{variable} forbids .*owner/name: a or b is missing .*fetch-weights"
    ):
        hub_file("owner/name", ["a", "b"], what="x")
    folder = tmp_path / "torch" / "hub" / "checkpoints"
    with pytest.raises(
        WeightsError, match=rf"{variable} forbids .*net_0123ab\.pth is missing in {folder}.*fetch-weights"
    ):
        url_file("https://x.org/net_0123ab.pth", what="net")
    folder.mkdir(parents=True)
    (folder / "net.pth").touch()
    assert url_file("https://x.org/net.pth", what="net") == folder / "net.pth"
