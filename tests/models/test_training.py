"""Training in full: interruption, selection, divergence, precision, and files that plain timm reads."""

from __future__ import annotations

import dataclasses
import json
import logging
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import timm
import torch
from hypothesis import given
from hypothesis import strategies as st

from models.compute import Compute
from models.detector import Examples, FitSession, TrainingDiverged
from models.training import CHECK_EVERY, NetworkDetector, _batches
from tests.models.toys import Recorder, examples, make_images, make_labels, read_back, small

NETWORK = "xception_scratch"


def network(seed: int = 0, **overrides: Any) -> NetworkDetector:
    return cast(NetworkDetector, small(NETWORK, seed=seed, **{"flip": False} | overrides))


def weights(detector: NetworkDetector) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in detector._network.state_dict().items()}


def assert_same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name


@pytest.fixture
def train() -> Examples:
    return examples(network(), 13, seed=1)  # 26 images: 16 + 10


@pytest.fixture
def valid() -> Examples:
    return examples(network(), 5, seed=2)


@pytest.mark.parametrize("backbone", ["test_resnet", "test_vit"])
@pytest.mark.parametrize("select", ["best", "last"])
def test_interrupted_anywhere_and_resumed_is_uninterrupted(
    backbone: str, select: str, train: Examples, valid: Examples
) -> None:
    settings: dict[str, Any] = {"backbone": backbone, "epochs": 3, "flip": True, "select": select, "weight_decay": 1e-4}
    whole, recorder = network(**settings), Recorder(checkpoint_at=lambda count: True)
    whole.fit(train, valid, recorder.session)
    assert len(recorder.states) == 3 * (2 + 1)  # after each of two steps, and after each epoch
    for state in recorder.states:
        torch.rand(5)
        again, tail = network(**settings), Recorder(resume=read_back(state))
        again.fit(train, valid, tail.session)
        assert_same(weights(again), weights(whole))
        assert tail.epochs == recorder.epochs[len(recorder.epochs) - len(tail.epochs) :]


def test_resumed_twice(train: Examples, valid: Examples) -> None:
    whole, first = network(), Recorder(checkpoint_at=lambda count: count == 2)
    whole.fit(train, valid, first.session)
    second = Recorder(checkpoint_at=lambda count: count == 3, resume=read_back(first.states[0]))
    network().fit(train, valid, second.session)
    last = network()
    last.fit(train, valid, FitSession(resume=read_back(second.states[0])))
    assert_same(weights(last), weights(whole))


def test_checkpoints_do_not_change_the_training(train: Examples, valid: Examples) -> None:
    plain, watched = network(), network()
    plain.fit(train, valid, FitSession())
    watched.fit(train, valid, Recorder(checkpoint_at=lambda count: count % 2 == 0).session)
    assert_same(weights(plain), weights(watched))


def test_dropout_is_seeded_and_resumes(train: Examples, valid: Examples) -> None:
    def with_dropout() -> NetworkDetector:
        detector = network(epochs=2)
        detector._network.reset_classifier(0)
        detector._network = timm.create_model("test_resnet", num_classes=2, drop_rate=0.5)
        detector._network.load_state_dict(weights(network()))
        return detector

    whole, recorder = with_dropout(), Recorder(checkpoint_at=lambda count: count == 1)
    whole.fit(train, valid, recorder.session)
    torch.rand(7)
    again = with_dropout()
    again.fit(train, valid, FitSession(resume=read_back(recorder.states[0])))
    assert_same(weights(again), weights(whole))
    without = network(epochs=2)
    without.fit(train, valid, FitSession())
    assert not torch.equal(weights(without)["fc.weight"], weights(whole)["fc.weight"])


def test_a_checkpoint_of_another_trial_is_refused(train: Examples, valid: Examples) -> None:
    recorder = Recorder(checkpoint_at=lambda count: count == 1)
    network().fit(train, valid, recorder.session)
    with pytest.raises(ValueError, match=r"2 steps per epoch, this one has 7.*another trial"):
        network(batch_size=4).fit(train, valid, FitSession(resume=read_back(recorder.states[0])))


@given(st.integers(1, 200), st.integers(2, 40))
def test_batches_cover_all_rows_and_none_has_one(num_rows: int, batch_size: int) -> None:
    batches = _batches(num_rows, batch_size)
    assert [row for batch in batches for row in range(num_rows)[batch]] == list(range(num_rows))
    sizes = [batch.stop - batch.start for batch in batches]
    assert all(2 <= size <= batch_size + 1 for size in sizes) or num_rows == 1
    assert len(batches) in (num_rows // batch_size, -(-num_rows // batch_size))


def test_fewer_images_than_a_batch() -> None:
    labels = np.array([0, 1, 1])
    few = Examples(make_images(labels, seed=0), labels)
    recorder = Recorder()
    network(batch_size=64, epochs=1).fit(few, few, recorder.session)
    assert np.isfinite(recorder.epochs[0][1]["train/loss"])


@pytest.mark.parametrize("num_rows", [16, 17, 19])
def test_every_image_is_seen_once_an_epoch(num_rows: int) -> None:
    detector, labels = network(), make_labels(2, 10, seed=0)[:num_rows]
    images = np.zeros((num_rows, 64, 64, 3), dtype=np.uint8)
    images[:, :, :, 0] = np.arange(num_rows)[:, None, None]
    seen = [
        [
            (int(pixels[0, 0, 0]), int(label))
            for _, batch in batches
            for pixels, label in zip(batch.rows, batch.labels, strict=True)
        ]
        for batches in (detector._training_batches(Examples(images, labels), epoch, 0) for epoch in (1, 2))
    ]
    wanted = list(enumerate(labels.tolist()))
    assert sorted(seen[0]) == sorted(seen[1]) == wanted
    assert seen[0] != seen[1] != wanted


def test_half_of_the_images_are_mirrored_if_wanted() -> None:
    labels = make_labels(2, 50, seed=0)
    images = np.zeros((100, 64, 64, 3), dtype=np.uint8)
    images[:, :, 0] = 255  # a bright left edge
    given = Examples(images, labels)
    for flip, low, high in ((False, 0, 0), (True, 35, 65)):
        detector, mirrored = network(flip=flip, epochs=1), list[int]()

        def look(module: torch.nn.Module, inputs: Any, mirrored: list[int] = mirrored) -> None:
            if module.training:
                mirrored.append(int((inputs[0][:, 0, 0, -1] > inputs[0][:, 0, 0, 0]).sum()))

        detector._network.register_forward_pre_hook(look)
        detector.fit(given, given, FitSession())
        assert low <= sum(mirrored) <= high


def test_reported_training_figures_by_hand(valid: Examples) -> None:
    detector = network(epochs=1, learning_rate=1e-30, batch_size=64)
    before = weights(detector)
    recorder = Recorder()
    detector.fit(valid, valid, recorder.session)
    module = detector._network.train()
    module.load_state_dict(before)
    with torch.inference_mode():
        logits = module(detector.preprocessing.normalise(torch.from_numpy(valid.inputs[np.arange(len(valid.labels))])))
    labels = torch.from_numpy(valid.labels)
    (_, metrics), *_ = recorder.epochs
    assert metrics["train/loss"] == pytest.approx(torch.nn.functional.cross_entropy(logits, labels).item(), rel=1e-5)
    assert metrics["train/accuracy"] == pytest.approx(float((logits.argmax(dim=1) == labels).float().mean()))
    assert metrics["learning_rate"] == 1e-30


def test_the_best_epoch_is_kept(train: Examples, valid: Examples, caplog: pytest.LogCaptureFixture) -> None:
    settings: dict[str, Any] = {"epochs": 3}
    valid = Examples(valid.inputs, 1 - valid.labels)  # the better the training, the worse this goes
    after: list[dict[str, torch.Tensor]] = []
    losses: list[float] = []
    last = network(select="last", **settings)

    def note(epoch: int, metrics: dict[str, float]) -> None:
        after.append(weights(last))
        losses.append(metrics["valid/loss"])

    last.fit(train, valid, FitSession(on_epoch=note))
    assert_same(weights(last), after[-1])
    best = network(select="best", **settings)
    with caplog.at_level(logging.INFO):
        best.fit(train, valid, FitSession())
    chosen = int(np.argmin(losses))
    assert chosen != len(losses) - 1
    assert_same(weights(best), after[chosen])
    assert f"epoch {chosen + 1} of 3" in caplog.text


def test_divergence_says_when_and_what_to_try(train: Examples, valid: Examples) -> None:
    with pytest.raises(TrainingDiverged, match=r"epoch 1.*lower learning_rate \(now 1e\+30\)"):
        network(learning_rate=1e30).fit(train, valid, FitSession())


def test_divergence_names_the_step_and_saves_no_checkpoint(valid: Examples) -> None:
    detector, count = network(batch_size=2), 0
    forward = detector._network.forward

    def break_third(x: torch.Tensor) -> torch.Tensor:
        nonlocal count
        count += 1
        return forward(x) * (float("nan") if count == 3 else 1.0)

    detector._network.forward = break_third
    recorder = Recorder(checkpoint_at=lambda count: count == 4)
    with pytest.raises(TrainingDiverged, match="loss became nan in epoch 1, step 3 of 5"):
        detector.fit(valid, valid, recorder.session)
    assert not recorder.states


def test_divergence_is_noticed_within_an_epoch() -> None:
    detector = network(batch_size=2, learning_rate=1e30)
    many = examples(detector, CHECK_EVERY + 5, seed=1)
    recorder = Recorder()
    with pytest.raises(TrainingDiverged):
        detector.fit(many, many, recorder.session)
    assert recorder.asked == CHECK_EVERY  # once a step


def test_plain_timm_reads_what_is_saved(train: Examples, valid: Examples, tmp_path: Path) -> None:
    detector = network(epochs=1)
    detector.fit(train, valid, FitSession())
    detector.save(tmp_path)
    facts = json.loads((tmp_path / "model.json").read_text())
    plain = timm.create_model(facts["backbone"], num_classes=facts["num_classes"])
    plain.load_state_dict(torch.load(tmp_path / "model.pt", weights_only=True))
    size, mean, std = (facts["preprocessing"][key] for key in ("size", "mean", "std"))
    assert size == 64
    pixels = torch.from_numpy(valid.inputs[np.arange(len(valid.labels))]).permute(0, 3, 1, 2) / 255
    pixels = (pixels - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    with torch.inference_mode():
        logits = plain.eval()(pixels).numpy()
    np.testing.assert_allclose(logits, detector.predict(valid.inputs).logits, rtol=1e-4, atol=1e-5)
    assert facts["classes"] == ["real", "fake"]
    assert facts["config"]["backbone"] == "test_resnet"


@pytest.mark.parametrize("backbone", ["test_byobnet", "test_convnext", "test_efficientnet", "test_vit"])
def test_embeddings_are_what_the_classifier_sees(backbone: str, valid: Examples) -> None:
    detector = network(backbone=backbone)
    prediction = detector.predict(valid.inputs)
    pixels = detector.preprocessing.normalise(torch.from_numpy(valid.inputs[np.arange(len(valid.labels))]))
    with torch.inference_mode():
        logits = detector._network.eval()(pixels).numpy()
        again = detector._network.get_classifier()(torch.from_numpy(prediction.embeddings)).numpy()
    np.testing.assert_allclose(prediction.logits, logits, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(prediction.logits, again, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_mixed_precision_trains_and_resumes(
    dtype: torch.dtype, train: Examples, valid: Examples, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The path of a GPU, computed on the CPU, which has the same two types."""
    monkeypatch.setattr("models.training.compute_on", lambda device, precision: Compute(dtype=dtype))

    def mixed() -> NetworkDetector:
        return network(epochs=2)

    whole, recorder = mixed(), Recorder(checkpoint_at=lambda count: count == 1)
    whole.fit(train, valid, recorder.session)
    prediction = whole.predict(valid.inputs)
    assert prediction.logits.dtype == prediction.embeddings.dtype == np.float32
    assert np.isfinite(prediction.logits).all()
    assert all(tensor.dtype != dtype for tensor in weights(whole).values())
    state = read_back(recorder.states[0])
    assert bool(state["scaler"]) == (dtype is torch.float16)
    again = mixed()
    again.fit(train, valid, FitSession(resume=state))
    assert_same(weights(again), weights(whole))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_state_without_a_scaler_resumes_with_one(
    dtype: torch.dtype, train: Examples, valid: Examples, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when a training goes on on an older GPU, or on a GPU after a CPU."""
    monkeypatch.setattr("models.training.compute_on", lambda device, precision: Compute(dtype=dtype))
    recorder = Recorder(checkpoint_at=lambda count: count == 1)
    network(epochs=2).fit(train, valid, recorder.session)
    state = read_back(recorder.states[0])
    assert state["scaler"] == {}
    monkeypatch.setattr("models.training.compute_on", lambda device, precision: Compute(dtype=torch.float16))
    again, epochs = network(epochs=2), Recorder()
    again.fit(train, valid, dataclasses.replace(epochs.session, resume=state))
    assert epochs.epochs[-1][0] == 2
    assert all(bool(torch.isfinite(tensor).all()) for tensor in weights(again).values())


def test_rows_are_gathered_in_batches_only(train: Examples, valid: Examples) -> None:
    class Counting:
        """A memory map would look like this: it can be indexed by an array, and by nothing else."""

        def __init__(self, rows: Any) -> None:
            self.rows, self.asked = rows, list[int]()

        def __len__(self) -> int:
            return len(self.rows)

        def __getitem__(self, index: np.ndarray) -> np.ndarray:
            assert isinstance(index, np.ndarray)
            self.asked.append(len(index))
            picked: np.ndarray = self.rows[index]
            picked.setflags(write=False)
            return picked

    rows = Counting(train.inputs)
    network(epochs=2).fit(Examples(rows, train.labels), valid, FitSession())
    assert rows.asked == [16, 10] * 2


def test_the_published_network() -> None:
    """Xception itself, at 64 pixels: its feature map, its embeddings, one step."""
    detector = network(backbone="xception41", epochs=1, batch_size=2)
    labels = np.array([0, 1])
    two = Examples(make_images(labels, seed=0), labels)
    detector.fit(two, two, FitSession())
    assert detector.predict(two.inputs).embeddings.shape == (2, 2048)
    target = detector.cam_target()
    maps: list[torch.Tensor] = []
    handle = target.layers[0].register_forward_hook(lambda module, inputs, output: maps.append(output))
    target.module(torch.zeros(1, 3, 64, 64))
    handle.remove()
    assert maps[0].shape == (1, 2048, 2, 2)


@pytest.mark.slow
@pytest.mark.long
def test_a_compiled_training_is_the_same_up_to_rounding(train: Examples, valid: Examples, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"backbone": "test_vit", "epochs": 1, "batch_size": 13}
    plain, compiled = network(**settings), network(compile=True, **settings)
    for detector in (plain, compiled):
        detector.fit(train, valid, FitSession())
    assert compiled._network._compiled_call_impl is not None
    np.testing.assert_allclose(compiled.predict(valid.inputs).logits, plain.predict(valid.inputs).logits, atol=1e-2)
    compiled.save(tmp_path)
    plain.load(tmp_path)
    np.testing.assert_array_equal(plain.predict(valid.inputs).logits, compiled.predict(valid.inputs).logits)
