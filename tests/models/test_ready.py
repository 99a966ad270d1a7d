"""Methods that come trained, as a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import timm
import torch

from models.detector import BuildContext, Detector, FitSession, WeightsError, fake_scores
from models.encoding import FrozenEncoder
from models.ready import ReadyDetector
from models.registry import create_detector, detector_info, resolve_config
from models.weights import parse_weights_argument
from tests.models.toys import DETECTION, examples, make_images, make_labels, small

PICTURES = list(make_images(make_labels(2, 4, seed=3), seed=3))


def from_file(method: str, path: Path, **settings: Any) -> ReadyDetector:
    weights, found = parse_weights_argument(str(path))
    assert found is not None
    config = resolve_config(method, {**detector_info(method).small, "weights": weights, **settings})
    context = BuildContext(DETECTION, weight_files={weights.split(":")[1]: found})
    return cast(ReadyDetector, create_detector(method, config, context))


def scores(detector: Detector) -> np.ndarray:
    return fake_scores(detector.predict(detector.inputs(PICTURES)).logits)


def head(rows: int, width: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {name: torch.randn(rows, *rest, generator=generator) for name, rest in (("weight", (width,)), ("bias", ()))}


@pytest.mark.parametrize("prefix", ["", "fc."])
def test_univfd_is_the_given_classifier_on_clip(prefix: str, tmp_path: Path) -> None:
    state = head(1, 128)
    torch.save({f"{prefix}{name}": tensor for name, tensor in state.items()}, tmp_path / "fc_weights.pth")
    detector = from_file("univfd", tmp_path / "fc_weights.pth")
    features = detector.encoder.encode(np.stack(PICTURES))
    expected = features @ state["weight"][0].numpy() + state["bias"].numpy()
    np.testing.assert_allclose(scores(detector), expected, rtol=1e-4, atol=1e-5)
    assert detector.weights_note.startswith("random weights, classifier: weights from fc_weights.pth (digest ")


def test_univfd_cuts_the_middle_out_without_a_resize() -> None:
    detector = small("univfd")
    large = np.random.default_rng(0).integers(0, 256, (80, 100, 3), dtype=np.uint8)
    np.testing.assert_array_equal(detector.squares([large])[0], large[8:72, 18:82])
    assert detector_info("univfd").config.backbone == "ViT-L-14-quickgelu"
    assert detector_info("univfd").config.resize == "native"


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (head(1, 64), r"shape \(1 or 2, 128\) and a bias of as many; it has \(1, 64\) and \(1,\)"),
        (head(5, 128), r"it has \(5, 128\) and \(5,\)"),
        ({"weight": torch.zeros(1, 128)}, "has no bias, the classifier's tensors"),
        ({"weight": torch.full((1, 128), torch.nan), "bias": torch.zeros(1)}, "holds NaN or infinity"),
    ],
)
def test_a_wrong_classifier_is_refused(state: dict[str, torch.Tensor], message: str, tmp_path: Path) -> None:
    torch.save(state, tmp_path / "wrong.pth")
    with pytest.raises(WeightsError, match=message):
        from_file("univfd", tmp_path / "wrong.pth")


def test_a_restored_detector_needs_no_file(tmp_path: Path) -> None:
    (tmp_path / "checkpoint").mkdir()
    torch.save(head(1, 128), tmp_path / "fc_weights.pth")
    detector = from_file("univfd", tmp_path / "fc_weights.pth")
    detector.save(tmp_path / "checkpoint")
    config = resolve_config("univfd", {**detector_info("univfd").small, "weights": "file:0123456789abcdef"})
    again = create_detector("univfd", config, BuildContext(DETECTION, restoring=True))
    again.load(tmp_path / "checkpoint")
    np.testing.assert_array_equal(scores(again), scores(detector))


@pytest.mark.parametrize(("num_outputs", "fake"), [(1, 1), (2, 1), (2, 0)])
@pytest.mark.parametrize("backbone", ["test_vit2", "test_convnext", "test_efficientnet"])
def test_timm_file_is_the_network_in_the_file(backbone: str, num_outputs: int, fake: int, tmp_path: Path) -> None:
    size: dict[str, Any] = {"img_size": 64} if "vit" in backbone else {}
    torch.manual_seed(0)
    network = timm.create_model(backbone, num_classes=num_outputs, **size).eval()
    torch.save({"state_dict": {f"module.{name}": value for name, value in network.state_dict().items()}},
               tmp_path / "a.pth")  # fmt: skip
    detector = from_file("timm_file", tmp_path / "a.pth", backbone=backbone, fake=fake)
    backbone_of = cast(FrozenEncoder, detector.encoder).backbone
    with torch.inference_mode():
        logits = network(backbone_of.preprocessing.normalise(torch.from_numpy(np.stack(PICTURES)))).numpy()
    expected = logits[:, 0] if num_outputs == 1 else logits[:, fake] - logits[:, 1 - fake]
    np.testing.assert_allclose(scores(detector), expected, rtol=1e-4, atol=1e-5)


def test_timm_file_takes_a_network_of_this_project(tmp_path: Path) -> None:
    trained = small("xception_scratch", epochs=1)
    trained.fit(examples(trained, 8, seed=1), examples(trained, 4, seed=2), FitSession())
    trained.save(tmp_path)
    detector = from_file("timm_file", tmp_path / "model.pt", backbone="test_resnet", resize="squash")
    np.testing.assert_allclose(scores(detector), scores(trained), rtol=1e-3, atol=1e-5)


def test_timm_file_refuses_a_network_whose_features_are_on_a_sphere(tmp_path: Path) -> None:
    small("ln_tuned").save(tmp_path)
    with pytest.raises(WeightsError, match=r"1 unexpected \(features_have_length"):
        from_file("timm_file", tmp_path / "model.pt", backbone="test_vit")


def test_timm_file_refuses_a_file_without_a_classifier(tmp_path: Path) -> None:
    torch.save(timm.create_model("test_convnext", num_classes=0).state_dict(), tmp_path / "a.pth")
    with pytest.raises(WeightsError, match=r"a.pth has no head.fc.weight and no head.fc.bias, the class"):
        from_file("timm_file", tmp_path / "a.pth", backbone="test_convnext")


def test_the_network_and_the_file_must_be_named() -> None:
    for settings in ({}, {"backbone": "resnet18"}, {"weights": "file:0123456789abcdef"}):
        with pytest.raises(ValueError, match=r"--set timm_file.backbone=NAME, and its file, --weights timm_file=FILE"):
            resolve_config("timm_file", settings)
    with pytest.raises(ValueError, match=r"univfd needs its published classifier, pretrained_weights/fc_w"):
        resolve_config("univfd")
    with pytest.raises(ValueError, match="timm has no network 'resnet1'"):
        small("timm_file", backbone="resnet1")
