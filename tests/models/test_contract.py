"""What every registered method promises, in its small form. A new method is tested by being registered."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from models.configs import ClipConfig, NetworkConfig, ProbeConfig, SamConfig
from models.detector import BuildContext, Detector, Examples, FitSession, fake_scores
from models.encoding import FrozenEncoder
from models.maps import may_have_maps, over_picture, picture_maps
from models.novelty import Novelty, fit_novelty
from models.registry import (
    create_detector,
    depends_on_seed,
    detector_info,
    list_detectors,
    reads_masks,
    resolve_config,
    self_edits,
)
from models.residuals import ResidualEncoder
from models.scoring import attribution_metrics, cell_metrics
from tests.models.toys import (
    ADAM,
    ATTRIBUTION,
    DETECTION,
    SIDE,
    MadeMasks,
    Recorder,
    examples,
    make_images,
    make_labels,
    self_edited,
    small,
)

ROOT = Path(__file__).parents[2]
METHODS = list_detectors()  # before other tests register methods of their own
LINEAR = [name for name in METHODS if isinstance(detector_info(name).config, ProbeConfig)]


@pytest.fixture(params=[*METHODS, *(f"{name}+adam" for name in LINEAR)])
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def with_fakes(name: str) -> bool:
    return detector_info(name.partition("+")[0]).needs_fakes


def learns_from_edits(name: str) -> bool:
    return detector_info(name.partition("+")[0]).self_edits is not None


def examples_of(detector: Detector, name: str, num_each: int, seed: int, edit_seed: int = 0) -> Examples:
    """As a trial gives them: fakes only to a method that needs them, edits and masks to one that learns from these."""
    if learns_from_edits(name):
        return self_edited(detector, name.partition("+")[0], num_each, seed, edit_seed)
    masks = learns_from_masks(name)
    return examples(detector, num_each, seed, fakes=with_fakes(name), masks=masks)


def learns_from_masks(name: str) -> bool:
    return reads_masks(name.partition("+")[0], resolved(name))


def trains_nothing(name: str) -> bool:
    """Whether a method reads validation photographs and their edits alone."""
    edits = self_edits(name.partition("+")[0], resolved(name))
    return bool(edits) and all(one.most == 0 for one in edits)


def fit(detector: Detector, name: str, num_each: int, session: FitSession | None = None, *, seed: int = 0) -> None:
    """Fit as a trial with this seed does."""
    train, valid = (examples_of(detector, name, num, of, seed) for num, of in ((num_each, 1), (8, 2)))
    detector.fit(train, valid, session or FitSession())


def training(name: str) -> str:
    if detector_info(name.partition("+")[0]).test_only:
        pytest.skip("a method that comes trained")
    return name


_fitted: dict[tuple[str, int], tuple[Detector, Recorder]] = {}


def fitted(name: str, classes: tuple[str, ...] = DETECTION) -> tuple[Detector, Recorder]:
    """Fitted once a test session; whoever changes it builds an own one."""
    key = name, len(classes)
    if key not in _fitted:
        detector, recorder = small(name, classes), Recorder()
        fit(detector, name, 32, recorder.session)
        _fitted[key] = detector, recorder
    return _fitted[key]


def needing_fakes(name: str) -> str:
    if not with_fakes(name):
        pytest.skip("a method that is trained without fakes")
    return name


def learning(name: str) -> str:
    if not with_fakes(name) and not learns_from_edits(name):
        pytest.skip("a method that sees real images alone")
    return name


def test_learns_to_detect_the_right_way_round(name: str) -> None:
    detector, _ = fitted(learning(name))
    test = examples_of(detector, name, 16, seed=3)
    scores = fake_scores(detector.predict(test.inputs).logits)
    assert scores[test.labels == 1].mean() > scores[test.labels == 0].mean()
    # distances of a network with random weights say little; what must be right is the direction
    assert cell_metrics(test.labels, scores)["auroc"] > (0.6 if trains_nothing(name) else 0.9)


def test_learns_to_attribute(name: str) -> None:
    if detector_info(name.partition("+")[0]).reference:
        pytest.skip("a reference is a row beside detection, and has no trial of attribution")
    detector, _ = fitted(needing_fakes(name), ATTRIBUTION)
    test = examples(detector, 8, seed=3)
    metrics = attribution_metrics(test.labels, detector.predict(test.inputs).logits, ATTRIBUTION)
    assert metrics["accuracy"] > 0.5  # 0.2 by chance


@pytest.mark.parametrize("classes", [DETECTION, ATTRIBUTION], ids=["detection", "attribution"])
def test_prediction(name: str, classes: tuple[str, ...]) -> None:
    detector, _ = fitted(name if classes == DETECTION else needing_fakes(name), classes)
    inputs = examples(detector, 7, seed=4).inputs
    first, second = detector.predict(inputs), detector.predict(inputs)
    assert first.logits.shape == (len(inputs), len(classes))
    assert first.embeddings.ndim == 2
    assert len(first.embeddings) == len(inputs)
    for array in (first.logits, first.embeddings):
        assert array.dtype == np.float32
        assert np.isfinite(array).all()
    np.testing.assert_array_equal(first.logits, second.logits)
    np.testing.assert_array_equal(first.embeddings, second.embeddings)
    order = np.random.default_rng(0).permutation(len(inputs))
    moved = detector.predict(inputs[order])
    np.testing.assert_allclose(moved.logits, first.logits[order], rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(moved.embeddings, first.embeddings[order], rtol=1e-3, atol=1e-4)


def test_nothing_to_predict(name: str) -> None:
    detector, _ = fitted(name)
    inputs = examples(detector, 1, seed=4).inputs[np.arange(0)]
    prediction = detector.predict(inputs)
    assert prediction.logits.shape == (0, 2)
    assert len(prediction.embeddings) == 0


@pytest.mark.parametrize("classes", [DETECTION, ATTRIBUTION], ids=["detection", "attribution"])
def test_save_and_load(name: str, classes: tuple[str, ...], tmp_path: Path) -> None:
    detector, _ = fitted(name if classes == DETECTION else needing_fakes(name), classes)
    detector.save(tmp_path)
    for file in tmp_path.glob("*.pt"):
        torch.load(file, weights_only=True)
    other = small(name, classes)
    inputs = examples(detector, 3, seed=4).inputs
    other.load(tmp_path)
    np.testing.assert_array_equal(other.predict(inputs).logits, detector.predict(inputs).logits)


def test_load_refuses_what_does_not_fit(name: str, tmp_path: Path) -> None:
    detector, _ = fitted(name)
    with pytest.raises(ValueError, match=re.escape(str(tmp_path))):
        detector.load(tmp_path)
    detector.save(tmp_path)
    with pytest.raises(ValueError, match=rf"{re.escape(str(tmp_path))}.*classes"):
        small(name, ("real", "other")).load(tmp_path)
    (file,) = tmp_path.glob("*.pt")
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(ValueError, match=re.escape(file.name)):
        small(name).load(tmp_path)


def resolved(name: str) -> dict[str, object]:
    """The configuration that `small` builds."""
    method, _, solver = name.partition("+")
    return resolve_config(method, {**detector_info(method).small, **(ADAM if solver else {})})


def test_the_seed_decides_everything_or_nothing_as_registered(name: str) -> None:
    def logits(seed: int) -> np.ndarray:
        detector = small(name, seed=seed)
        fit(detector, name, 10, seed=seed)
        return detector.predict(examples(detector, 4, seed=3).inputs).logits

    first = logits(seed=5)
    torch.rand(3)  # whatever the caller does in between
    np.testing.assert_array_equal(first, logits(seed=5))
    assert np.array_equal(first, logits(seed=6)) != depends_on_seed(name.partition("+")[0], resolved(name))


def test_the_callers_random_numbers_are_left_alone(name: str) -> None:
    before, numpy_before = torch.get_rng_state(), np.random.get_state(legacy=False)
    fit(small(name), name, 4)
    assert torch.equal(before, torch.get_rng_state())
    np.testing.assert_equal(np.random.get_state(legacy=False), numpy_before)


def test_epochs_are_reported(name: str) -> None:
    _, recorder = fitted(training(name))
    assert [epoch for epoch, _ in recorder.epochs] == list(range(1, len(recorder.epochs) + 1))
    for _, metrics in recorder.epochs:
        assert {"train/loss", "train/accuracy", "valid/loss", "valid/accuracy"} <= set(metrics)
        assert all(type(value) is float and np.isfinite(value) for value in metrics.values())


def test_reported_validation_is_that_of_the_kept_state(name: str) -> None:
    detector, recorder = fitted(training(name))
    valid = examples_of(detector, name, 8, seed=2)
    logits = detector.predict(valid.inputs).logits
    log_odds = detector_info(name.partition("+")[0]).log_odds
    answers = logits.argmax(axis=1) if log_odds else fake_scores(logits) > np.float32(detector.threshold)
    accuracy = float((answers == valid.labels).mean())
    best = min((metrics for _, metrics in recorder.epochs), key=lambda metrics: metrics["valid/loss"])
    assert accuracy == pytest.approx(best["valid/accuracy"])


def test_what_is_frozen_stays(name: str) -> None:
    detector = small(name)
    if detector.encoder is None:
        pytest.skip("everything trains")
    images = make_images(make_labels(2, 4, seed=3), seed=3)
    before = detector.encoder.encode(images)
    fit(detector, name, 8)
    np.testing.assert_array_equal(before, detector.encoder.encode(images))


def test_noise_is_not_like_the_training_images(name: str, tmp_path: Path) -> None:
    """By the detector's own embedding, or by the residuals, which a run keeps beside it."""
    detector, _ = fitted(name)
    train, valid = (make_images(make_labels(2, num, seed=seed), seed=seed) for num, seed in ((32, 1), (8, 2)))
    noise = np.random.default_rng(5).integers(0, 256, (6, SIDE, SIDE, 3), dtype=np.uint8)
    ratios = []
    for embed in (lambda images: detector.predict(detector.inputs(list(images))).embeddings, ResidualEncoder().encode):
        fit_novelty(embed(train), embed(valid), np.arange(len(valid))).save(tmp_path / "novelty.npz")
        novelty = Novelty.load(tmp_path / "novelty.npz")
        assert np.isfinite(novelty.ratios(embed(valid))).all()
        assert (novelty.ratios(embed(valid)) <= 1).mean() >= 0.9
        ratios.append(novelty.ratios(embed(noise)))
    assert (np.max(ratios, axis=0) > 1).all()


def test_impossible_training_sets_are_refused(name: str) -> None:
    detector = small(training(name))
    good, empty = examples_of(detector, name, 4, seed=1), np.arange(0)
    nothing = Examples(good.inputs[empty], good.labels[empty])
    if not trains_nothing(name):
        with pytest.raises(ValueError, match=r"training split is empty|0 training images are too few"):
            detector.fit(nothing, good, FitSession())
    with pytest.raises(ValueError, match="validation split is empty"):
        detector.fit(good, nothing, FitSession())
    if not with_fakes(name) and not learns_from_edits(name):
        with pytest.raises(ValueError, match="real images alone"):
            detector.fit(Examples(good.inputs, np.ones_like(good.labels)), good, FitSession())
        return
    for wrong, message in (
        (np.zeros_like(good.labels), "no .* image of class fake"),
        (good.labels + 1, "labels must lie"),
    ):
        bad = dataclasses.replace(good, labels=wrong)
        with pytest.raises(ValueError, match=message):
            detector.fit(*((good, bad) if trains_nothing(name) else (bad, good)), FitSession())


def test_inputs_of_the_wrong_shape_are_refused(name: str) -> None:
    detector, _ = fitted(name)
    if detector.encoder is None and detector.geometry is None:
        wrong = np.zeros((2, SIDE), dtype=np.uint8)  # any size is right
    elif detector.encoder is None:
        wrong = np.zeros((2, SIDE // 2, SIDE, 3), dtype=np.uint8)
    else:
        wrong = np.zeros((2, detector.encoder.num_features + 1), dtype=np.float32)
    with pytest.raises(ValueError, match=r"\(2, "):
        detector.predict(wrong)


def test_grad_cam_runs(name: str) -> None:
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    detector, _ = fitted(name)
    target = detector.cam_target()
    if target is None:
        pytest.skip("no differentiable layer")
    assert detector.geometry is not None
    side = detector.geometry.size
    pictures = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with GradCAM(target.module, target.layers, target.reshape) as cam:
        maps = cam(pictures, [ClassifierOutputTarget(1)] * 2)
    assert maps.shape == (2, side, side)
    assert np.isfinite(maps).all()
    pictures = pictures.requires_grad_()
    target.module(pictures)[:, 1].sum().backward()
    assert pictures.grad is not None
    assert bool(pictures.grad.abs().sum() > 0)


def test_cam_module_gives_the_detectors_logits(name: str) -> None:
    detector, _ = fitted(name)
    target = detector.cam_target()
    if target is None:
        pytest.skip("no differentiable layer")
    images = make_images(np.array([0, 1]), seed=9)
    found = target.module(target.normalise(torch.from_numpy(detector.squares(list(images))))).detach().numpy()
    expected = detector.predict(detector.inputs(list(images))).logits
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


def test_maps_are_the_detectors_own(name: str, tmp_path: Path) -> None:
    """float32 (N, rows, columns), finite, the same from a saved detector; a method that learns from masks has maps."""
    detector, _ = fitted(name)
    images = make_images(np.array([0, 1, 1]), seed=9)
    pixels = images if detector.geometry is None else detector.squares(list(images))
    maps = detector.maps(pixels)
    if maps is None:
        assert not learns_from_masks(name)
        pytest.skip("no maps")
    assert maps.dtype == np.float32
    assert maps.ndim == 3
    assert len(maps) == 3
    assert np.isfinite(maps).all()
    if with_fakes(name):  # others never saw such fakes
        assert maps[1:].mean() > maps[0].mean()
    np.testing.assert_allclose(detector.maps(pixels[::-1].copy())[::-1], maps, rtol=1e-3, atol=1e-4)
    detector.save(tmp_path)
    other = small(name)
    other.load(tmp_path)
    np.testing.assert_array_equal(other.maps(pixels), maps)


def test_a_method_that_learns_from_masks_refuses_to_go_without(name: str) -> None:
    if not learns_from_masks(name):
        pytest.skip("reads no masks")
    detector = small(name)
    train, valid = (examples(detector, 4, seed) for seed in (1, 2))
    with pytest.raises(ValueError, match="learns from masks, and was given none"):
        detector.fit(train, valid, FitSession())
    without = [None if label else np.zeros((SIDE, SIDE), dtype=bool) for label in train.labels]
    with pytest.raises(ValueError, match="no training fake has a mask"):
        detector.fit(dataclasses.replace(train, masks=MadeMasks(without)), valid, FitSession())


def test_geometry_and_notes(name: str) -> None:
    detector = small(name)
    if detector.encoder is not None:
        assert detector.geometry == detector.encoder.geometry
    elif detector.geometry is None:
        assert detector.inputs([np.zeros((SIDE, SIDE + 1, 3), dtype=np.uint8)]).dtype == object
    assert detector.weights_note


def test_pictures_of_any_size_become_inputs(name: str) -> None:
    detector, _ = fitted(name)
    sizes = ((SIDE, SIDE), (SIDE + 16, SIDE), (SIDE, SIDE + 9))
    pictures = [np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]
    prediction = detector.predict(detector.inputs(pictures))
    assert prediction.logits.shape == (3, 2)
    if detector.geometry is None:
        with pytest.raises(ValueError, match="native size"):
            detector.squares(pictures)
    else:
        channels = 4 if detector.geometry.alpha else 3
        assert detector.squares(pictures).shape == (3, detector.geometry.size, detector.geometry.size, channels)


def test_a_frozen_encoder_shares_its_features_between_seeds_and_with_no_other_backbone() -> None:
    """Statistics without weights are the same for every method, and so is their key."""
    methods_by_key: dict[str, set[str]] = {}
    kinds_by_key: dict[str, set[type]] = {}
    for name in METHODS:
        encoders = [small(name, seed=seed).encoder for seed in (0, 1)]
        keys = {encoder.key for encoder in encoders if encoder is not None}
        assert len(keys) <= 1
        for key in keys:
            assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,149}", key)
            methods_by_key.setdefault(key, set()).add(name)
            kinds_by_key.setdefault(key, set()).add(type(encoders[0]))
    assert methods_by_key
    assert all(len(kinds) == 1 for kinds in kinds_by_key.values())
    assert all(len(names) == 1 for key, names in methods_by_key.items() if FrozenEncoder in kinds_by_key[key])


@pytest.mark.parametrize("name", METHODS)
def test_no_setting_has_the_name_of_a_trials_share(name: str) -> None:
    settings = {field.name for field in dataclasses.fields(detector_info(name).config)}
    assert not settings & {"gpus", "memory", "accelerator", "gpu_memory"}  # of --set METHOD.NAME


@pytest.mark.parametrize("name", METHODS)
def test_its_small_form_needs_no_download(name: str) -> None:
    weights = str(resolve_config(name, detector_info(name).small).get("weights", "random"))
    assert weights == "random" or weights.startswith("package:")


@pytest.mark.parametrize("name", METHODS)
def test_configuration_survives_json(name: str) -> None:
    info = detector_info(name)
    config = resolve_config(name, info.small if info.test_only else {})  # which has no file by default
    assert json.loads(json.dumps(config)) == config
    assert resolve_config(name, {key: str(value) for key, value in config.items()}) == config


@pytest.mark.parametrize("name", [name for name in METHODS if detector_info(name).test_only])
def test_a_method_that_comes_trained_has_one_row_without_training(name: str) -> None:
    info, detector = detector_info(name), small(name)
    assert not info.needs_fakes
    assert not depends_on_seed(name, resolve_config(name, info.small))
    images = make_images(make_labels(2, 4, seed=3), seed=3)
    inputs = detector.inputs(list(images))
    before, recorder = detector.predict(inputs), Recorder()
    fit(detector, name, 8, recorder.session)
    np.testing.assert_array_equal(detector.predict(inputs).logits, before.logits)
    assert recorder.epochs == []
    assert detector.threshold == 0  # p = .5
    with pytest.raises(ValueError, match="comes trained to tell real from fake, not real, lama"):
        fit(small(name, ATTRIBUTION), name, 8)
    with pytest.raises(ValueError, match=f"--weights {name}=FILE"):
        resolve_config(name)


def test_as_published() -> None:
    scratch, pretrained = (detector_info(f"xception_{kind}").config for kind in ("scratch", "pretrained"))
    assert scratch == NetworkConfig(backbone="xception41", weights="random", learning_rate=1e-3)
    assert pretrained == NetworkConfig(backbone="xception41.tf_in1k", weights="hub", learning_rate=1e-4)
    assert (scratch.epochs, scratch.batch_size, scratch.flip, scratch.weight_decay) == (1, 32, False, 0.0)
    assert detector_info("clip_linear").config == ClipConfig(backbone="ViT-L-14-quickgelu", weights="hub:openai")
    assert detector_info("sam_linear").config == SamConfig(backbone="vit_b", weights="hub")
    shares = {"clip_linear": 0.25, "residual_linear": 0.0, "sam_linear": 0.5}
    shares |= dict.fromkeys(("xception_pretrained", "xception_scratch"), 0.5)
    assert {name: detector_info(name).gpu_share for name in shares} == shares


@pytest.mark.parametrize(
    ("name", "overrides", "message"),
    [
        ("xception_scratch", {"batch_size": "1"}, "batch_size must be at least 2"),
        ("xception_scratch", {"epochs": "0"}, "epochs"),
        ("xception_scratch", {"learning_rate": "nan"}, "learning_rate"),
        ("xception_scratch", {"learning_rate": "0"}, "learning_rate"),
        ("xception_scratch", {"precision": "half"}, "'mixed', 'tf32', 'full'"),
        ("xception_scratch", {"select": "test"}, "'best', 'last'"),
        ("clip_linear", {"resize": "stretch"}, "'own', 'squash', 'crop', 'pad'"),
        ("sam_linear", {"l2": "-1"}, "l2"),
        ("sam_linear", {"solver": "sgd"}, "'lbfgs', 'adam'"),
        ("clip_linear", {"learning_rate": "-1"}, "clip_linear.learning_rate must be above 0; got '-1'"),
        ("residual_linear", {"epochs": "0"}, "epochs"),
        ("residual_linear", {"backbone": "vit_b"}, "has no setting"),
    ],
)
def test_configuration_refuses(name: str, overrides: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        resolve_config(name, overrides)


@pytest.mark.parametrize("classes", [("fake", "real"), ("real",), ("real", "lama", "lama")])
def test_classes_are_checked(classes: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="'real' first"):
        create_detector("residual_linear", resolve_config("residual_linear"), BuildContext(classes))


def test_importing_models_knows_neither_ray_nor_mlflow() -> None:
    modules = (
        "training",
        "linear",
        "residuals",
        "scoring",
        "metrics.auroc",
        "registry",
        "backbones.sam",
        "weights",
        "preprocessing",
    )
    _import_and_ban([f"models.{module}" for module in modules], ["ray", "mlflow", "data", "grid", "analysis"])


def test_reading_the_registry_is_cheap() -> None:
    banned = ["torch", "sklearn", "scipy", "timm", "open_clip", "segment_anything"]
    _import_and_ban(["models.registry", "models.configs"], banned, "models.registry.list_detectors()")


def _import_and_ban(modules: list[str], banned: list[str], then: str = "") -> None:
    code = f"import sys, {', '.join(modules)}\n{then}\nprint([name for name in {banned} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_maps_cover_pictures_of_any_size(name: str) -> None:
    detector, _ = fitted(name)
    if not may_have_maps(detector):
        pytest.skip("no maps")
    shapes = [(64, 64), (70, 93), (47, 64)] if detector.geometry is None else [(SIDE, SIDE), (SIDE + 7, SIDE)]
    rng = np.random.default_rng(9)
    pictures = [rng.integers(0, 256, (*shape, 3), dtype=np.uint8) for shape in shapes]
    maps = picture_maps(detector, pictures)
    assert maps is not None
    for cells, picture, alone in zip(
        maps, pictures, (picture_maps(detector, [each]) for each in pictures), strict=True
    ):
        assert alone is not None
        np.testing.assert_allclose(cells, alone[0], rtol=1e-3, atol=1e-4)  # whatever the other pictures are
        assert cells.dtype == np.float32
        height, width = picture.shape[:2]
        over = over_picture(cells, detector.geometry, (height, width))
        assert over.shape == (height, width)
        assert np.isfinite(over).all()
