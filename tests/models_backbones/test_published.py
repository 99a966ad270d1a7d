"""The table of published files is that of the families, and what is said of weights is what lies on the disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from models.backbones import published_files
from models.hubs import HubFile, published_digest, url_folder
from models.published import FILES, in_words, missing_files, size_in_words, weights_held
from models.registry import resolve_config


@pytest.mark.parametrize("key", FILES, ids=" ".join)
def test_the_table_is_what_the_family_says(key: tuple[str, str, str]) -> None:
    assert published_files(*key) == [FILES[key][0]]


def test_the_default_backbones_are_in_the_table() -> None:
    """So that `doctor` and `methods` import no library of backbones."""
    from models.registry import detector_info, list_detectors

    infos = [info for info in map(detector_info, list_detectors()) if info.pretrained is not None]
    needed = {each for info in infos if info.pretrained for each in info.pretrained(info.config)}
    assert {each for each in needed if each[2].startswith("hub") and each[1]} == set(FILES)


@pytest.mark.parametrize(
    ("url", "digest"),
    [
        ("https://x.org/sam_vit_b_01ec64.pth", "01ec64"),
        (f"https://x.org/{'0a' * 32}/ViT-L-14.pt", "0a" * 32),
        ("https://x.org/dinov2_vitb14_reg4_pretrain.pth", ""),
    ],
)
def test_the_digest_that_an_address_says(url: str, digest: str) -> None:
    assert published_digest(url) == digest


def test_where_weights_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    config = resolve_config("sam_linear")
    (held,) = weights_held("sam_linear", config)
    assert (held.state, held.num_bytes) == ("fetch", 374_942_912)
    assert held.said == "not here; a launch fetches them (about 375 MB)"
    assert list(missing_files([held]).values()) == [374_942_912]
    url_folder().mkdir(parents=True)
    (url_folder() / "sam_vit_b_01ec64.pth").touch()
    assert url_folder() == tmp_path / "hub" / "checkpoints"
    (held,) = weights_held("sam_linear", config)
    assert (held.state, held.said, held.files) == ("here", "in the cache", ())
    assert weights_held("sam_linear", config, folder=tmp_path / "other")[0].state == "fetch"


def test_weights_of_every_other_kind(tmp_path: Path) -> None:
    def held(method: str, **settings: str) -> tuple[str, str]:
        (only,) = weights_held(method, resolve_config(method, settings), weight_files={"abc": tmp_path / "w.pt"})
        return only.state, only.said

    assert held("sam_linear", weights="random") == ("none", "random, nothing to fetch")
    packaged = {"backbone": "tf_efficientnet_lite0", "weights": "package:efficientnet-lite0"}
    assert held("xception_pretrained", **packaged) == ("here", "in a package")
    assert held("sam_linear", weights="file:abc") == ("unknown", "the file is not on this machine")
    (tmp_path / "w.pt").touch()
    assert held("sam_linear", weights="file:abc") == ("here", "in the file w.pt")
    assert held("sam_linear", backbone="vit_x") == (
        "unknown", "SAM has no encoder 'vit_x'; there are: vit_b, vit_l, vit_h, demo"
    )  # fmt: skip
    assert weights_held("residual_linear", resolve_config("residual_linear")) == []
    assert in_words([]) == ""


def test_a_model_of_hugging_face_needs_its_configuration_too() -> None:
    config, weights = published_files("open_clip", "hf-hub:owner/name", "hub")
    assert (config.repository, config.names) == ("owner/name", ("open_clip_config.json",))
    assert weights == HubFile(
        "hf-hub:owner/name", "owner/name", ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
    )


def test_sizes_in_words() -> None:
    assert [size_in_words(size) for size in (None, 108_340_160, 1_710_466_052)] == [
        "size not known", "about 108 MB", "about 1.7 GB",
    ]  # fmt: skip
