"""The linear classifier: it is at the optimum, it is one plain linear layer, and validation chooses its penalty."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from models.configs import ProbeConfig
from models.detector import Examples, FitSession, TrainingDiverged, fake_scores
from models.linear import L2_CHOICES, LinearDetector
from tests.models.toys import small

CLASSES = ("real", "a", "b")


class Given:
    """An encoder whose features are made by the test."""

    geometry = None

    def __init__(self, num_features: int) -> None:
        self.num_features = num_features
        self.key = f"given-{num_features}"

    def encode(self, pixels: np.ndarray | Sequence[np.ndarray]) -> np.ndarray:
        raise NotImplementedError


def detector(num_features: int, num_classes: int = 2, **config: Any) -> LinearDetector:
    encoder: Any = Given(num_features)
    return LinearDetector(encoder, CLASSES[:num_classes], ProbeConfig(**config), weights_note="none")


def blobs(num_rows: int, num_features: int, num_classes: int, seed: int, spread: float = 1.0) -> Examples:
    """Features in very different units; `spread` in those of the distance between the classes."""
    generator = np.random.default_rng(seed)
    labels = np.arange(num_rows) % num_classes
    centres = np.random.default_rng(99).normal(size=(num_classes, num_features))
    features = centres[labels] + spread * generator.normal(size=(num_rows, num_features))
    return Examples((features * np.linspace(0.01, 100, num_features) + 5).astype(np.float32), labels)


def reported(probe: LinearDetector, train: Examples, valid: Examples) -> dict[str, float]:
    told: list[tuple[int, dict[str, float]]] = []
    probe.fit(train, valid, FitSession(on_epoch=lambda epoch, metrics: told.append((epoch, metrics))))
    ((epoch, metrics),) = told
    assert epoch == 1
    return metrics


@pytest.mark.parametrize("num_classes", [2, 3])
@pytest.mark.parametrize("l2", [0.01, 1.0])
def test_the_gradient_vanishes(num_classes: int, l2: float) -> None:
    train = blobs(120, 6, num_classes, seed=0)
    probe = detector(6, num_classes, l2=l2)
    probe.fit(train, train, FitSession())
    features = np.asarray(train.inputs[np.arange(120)], dtype=np.float64)
    standard = (features - features.mean(axis=0)) / features.std(axis=0)
    logits = probe.predict(train.inputs).logits.astype(np.float64)
    weight = probe._weight.astype(np.float64) * features.std(axis=0)  # on standardised features
    chances = np.exp(logits - logits.max(axis=1, keepdims=True))
    chances /= chances.sum(axis=1, keepdims=True)
    excess = chances - np.eye(num_classes)[train.labels]
    if num_classes == 2:  # the objective has one weight vector, the difference of the two
        gradient = excess[:, 1] @ standard / 120 + l2 * (weight[1] - weight[0])
    else:
        gradient = excess.T @ standard / 120 + l2 * weight
    np.testing.assert_allclose(gradient, 0, atol=2e-4)
    np.testing.assert_allclose(excess.mean(axis=0), 0, atol=2e-4)


def test_the_difference_of_two_logits_is_the_decision_function() -> None:
    train = blobs(80, 4, 2, seed=0)
    probe = detector(4, l2=0.1)
    probe.fit(train, train, FitSession())
    features = np.asarray(train.inputs[np.arange(80)], dtype=np.float64)
    standard = (features - features.mean(axis=0)) / features.std(axis=0)
    wanted = LogisticRegression(C=1 / (0.1 * 80), tol=1e-10).fit(standard, train.labels).decision_function(standard)
    logits = probe.predict(train.inputs).logits
    np.testing.assert_allclose(fake_scores(logits), wanted, atol=1e-3)
    np.testing.assert_allclose(logits[:, 0], -logits[:, 1], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("num_classes", [2, 3])
def test_plain_torch_reads_the_head(num_classes: int, tmp_path: Path) -> None:
    train = blobs(60, 5, num_classes, seed=0)
    probe = detector(5, num_classes)
    probe.fit(train, train, FitSession())
    probe.save(tmp_path)
    head = torch.nn.Linear(5, num_classes)
    head.load_state_dict(torch.load(tmp_path / "head.pt", weights_only=True))
    with torch.inference_mode():
        logits = head(torch.from_numpy(train.inputs[np.arange(60)])).numpy()
    np.testing.assert_allclose(logits, probe.predict(train.inputs).logits, rtol=1e-4, atol=1e-4)


def test_units_of_the_features_do_not_matter() -> None:
    train, test = blobs(60, 5, 2, seed=0), blobs(40, 5, 2, seed=1)
    scale = np.array([1, 1e-3, 1e3, 2, 0.5], dtype=np.float32)
    probes = [detector(5), detector(5)]
    probes[0].fit(train, test, FitSession())
    scaled = [Examples(part.inputs[np.arange(len(part.labels))] * scale, part.labels) for part in (train, test)]
    probes[1].fit(scaled[0], scaled[1], FitSession())
    first, second = probes[0].predict(test.inputs).logits, probes[1].predict(scaled[1].inputs).logits
    np.testing.assert_allclose(first, second, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("value", [0.0, 7.0, 0.1, 1e6])
def test_a_constant_feature_is_ignored(value: float) -> None:
    train, valid = blobs(60, 4, 2, seed=0), blobs(40, 4, 2, seed=1)
    features = np.array(train.inputs[np.arange(60)])
    features[:, 2] = value * (1 + 1e-7 * train.labels)  # float32's rounding noise, which happens to fit the labels
    probe = detector(4)
    probe.fit(Examples(features, train.labels), valid, FitSession())
    assert (probe._weight[:, 2] == 0).all()
    assert np.isfinite(probe.predict(valid.inputs).logits).all()


def test_validation_chooses_the_penalty() -> None:
    easy, noisy = blobs(60, 20, 2, seed=0, spread=0.1), blobs(60, 20, 2, seed=0, spread=8.0)
    fixed = {
        l2: reported(detector(20, l2=l2), noisy, blobs(200, 20, 2, seed=1, spread=8.0))["valid/loss"]
        for l2 in L2_CHOICES
    }
    metrics = reported(detector(20), noisy, blobs(200, 20, 2, seed=1, spread=8.0))
    assert metrics["valid/loss"] == min(fixed.values())
    assert metrics["l2"] == min(fixed, key=lambda l2: fixed[l2])
    assert reported(detector(20), easy, blobs(200, 20, 2, seed=1, spread=0.1))["l2"] < metrics["l2"]


def test_weaker_penalties_are_not_tried_once_the_validation_loss_rises(caplog: pytest.LogCaptureFixture) -> None:
    train, valid = blobs(200, 6, 2, seed=0, spread=2.0), blobs(100, 6, 2, seed=1, spread=2.0)
    caplog.set_level(logging.INFO, logger="models.linear")
    metrics = reported(detector(6), train, valid)
    losses = [float(record.getMessage().split()[-1]) for record in caplog.records]
    assert 2 < len(losses) < len(L2_CHOICES)
    assert losses[:-1] == sorted(losses[:-1], reverse=True)
    assert losses[-1] > losses[-2]
    assert metrics["l2"] == L2_CHOICES[len(losses) - 2]


@pytest.mark.parametrize("num_classes", [2, 3])
def test_beginning_at_the_stronger_penaltys_optimum_ends_at_the_same(num_classes: int) -> None:
    train, valid = blobs(200, 6, num_classes, seed=0, spread=2.0), blobs(100, 6, num_classes, seed=1, spread=2.0)
    chosen, alone = detector(6, num_classes), detector(6, num_classes)
    l2 = reported(chosen, train, valid)["l2"]
    assert l2 < L2_CHOICES[0]  # or nothing would have gone before it
    alone.config = ProbeConfig(l2=l2)
    alone.fit(train, valid, FitSession())
    inputs = valid.inputs
    np.testing.assert_allclose(chosen.predict(inputs).logits, alone.predict(inputs).logits, atol=2e-3)


def separable(num_classes: int) -> Examples:
    """More features than rows, correlated as those of an encoder are."""
    generator = np.random.default_rng(1)
    labels = np.arange(120) % num_classes
    mixture = generator.normal(size=(200, 200)) / np.arange(1, 201)[:, None]
    centres = 0.6 * generator.normal(size=(num_classes, 200))
    return Examples(((centres[labels] + generator.normal(size=(120, 200))) @ mixture).astype(np.float32), labels)


@pytest.mark.parametrize("num_classes", [2, 3])
def test_a_fit_that_stops_short_of_the_optimum_goes_on(num_classes: int) -> None:
    """Where the classes are separable and the penalty is weak, the gradient is small long before the optimum."""
    train = separable(num_classes)
    features = np.asarray(train.inputs[np.arange(120)], dtype=np.float64)
    standard = (features - features.mean(axis=0)) / features.std(axis=0)
    probe = detector(200, num_classes, l2=1e-5)
    probe.fit(train, train, FitSession())
    logits = probe.predict(train.inputs).logits
    ours = fake_scores(logits) if num_classes == 2 else logits - logits.mean(axis=1, keepdims=True)
    short, optimum = (
        LogisticRegression(C=1 / (1e-5 * 120), tol=tolerance, max_iter=10_000).fit(standard, train.labels)
        for tolerance in (1e-5, 1e-11)
    )
    wanted = optimum.decision_function(standard)
    assert np.abs(short.decision_function(standard) - wanted).max() > 0.05 * np.abs(wanted).max()
    np.testing.assert_allclose(ours, wanted, atol=0.002 * np.abs(wanted).max())


@pytest.mark.parametrize("num_classes", [2, 3])
def test_a_fit_that_does_not_stop_short_is_as_ever_to_the_last_bit(num_classes: int, tmp_path: Path) -> None:
    train = blobs(120, 6, num_classes, seed=0, spread=2.0)
    features = np.asarray(train.inputs[np.arange(120)], dtype=np.float64)
    features -= features.mean(axis=0)
    scale = 1 / np.sqrt(np.einsum("nd,nd->d", features, features) / 120)
    probe = detector(6, num_classes, l2=0.1)
    probe.fit(train, train, FitSession())
    probe.save(tmp_path)
    plain = LogisticRegression(C=1 / (0.1 * 120), tol=1e-5, max_iter=1000).fit(features * scale, train.labels)
    coefficients = plain.coef_ * scale
    wanted = np.concatenate([-coefficients, coefficients]) / 2 if num_classes == 2 else coefficients
    np.testing.assert_array_equal(torch.load(tmp_path / "head.pt", weights_only=True)["weight"], np.float32(wanted))


def test_the_weakest_penalty_is_said_where_it_was_chosen_from_several(caplog: pytest.LogCaptureFixture) -> None:
    train = separable(2)
    with caplog.at_level(logging.WARNING):
        detector(200).fit(train, train, FitSession())
    assert "the weakest of the penalties that were tried (l2 0.0001)" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        detector(200, l2=1e-4).fit(train, train, FitSession())
        noisy = blobs(60, 20, 2, seed=0, spread=8.0)
        detector(20).fit(noisy, blobs(200, 20, 2, seed=1, spread=8.0), FitSession())
    assert not caplog.text


def test_reported_figures_are_those_of_the_folded_head() -> None:
    train, valid = blobs(60, 5, 3, seed=0), blobs(45, 5, 3, seed=1)
    probe = detector(5, 3)
    metrics = reported(probe, train, valid)
    for name, part in (("train", train), ("valid", valid)):
        logits = torch.from_numpy(probe.predict(part.inputs).logits)
        loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(part.labels))
        assert metrics[f"{name}/loss"] == pytest.approx(float(loss), rel=1e-4)
        right = (logits.argmax(dim=1).numpy() == part.labels).mean()
        assert metrics[f"{name}/accuracy"] == pytest.approx(right)


# The other solver


def test_adam_takes_the_published_steps() -> None:
    """The published loop, written down once more with its own classes: one output, AdamW without decay."""
    train, valid, settings = blobs(50, 5, 2, seed=0), blobs(20, 5, 2, seed=1), {"epochs": 3, "batch_size": 16}
    head = torch.nn.Linear(5, 1)
    with torch.no_grad():
        head.weight.copy_(torch.randn(1, 5, generator=torch.Generator().manual_seed(4)) * 0.02)
        head.bias.zero_()
    optimiser = torch.optim.AdamW(head.parameters(), lr=1e-3, betas=(0.9, 0.999), weight_decay=0.0)
    features, labels = torch.from_numpy(train.inputs[np.arange(50)]), torch.from_numpy(train.labels).float()
    held_out, wanted = torch.from_numpy(valid.inputs[np.arange(20)]), torch.from_numpy(valid.labels).float()
    losses, scores = [], []
    for epoch in (1, 2, 3):
        order = np.random.default_rng([4, epoch]).permutation(50)
        for start in (0, 16, 32, 48):
            index = order[start : start + 16]
            loss = torch.nn.functional.binary_cross_entropy_with_logits(head(features[index])[:, 0], labels[index])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        with torch.no_grad():
            scores.append(head(held_out)[:, 0].numpy())
            loss = torch.nn.functional.binary_cross_entropy_with_logits(head(held_out)[:, 0], wanted)
        losses.append(float(loss))
    encoder: Any = Given(5)
    config = ProbeConfig(solver="adam", learning_rate=1e-3, **settings)
    probe = LinearDetector(encoder, CLASSES[:2], config, weights_note="none", seed=4)
    told: list[dict[str, float]] = []
    probe.fit(train, valid, FitSession(on_epoch=lambda epoch, metrics: told.append(metrics)))
    assert [metrics["valid/loss"] for metrics in told] == pytest.approx(losses, rel=1e-4)
    best = scores[int(np.argmin(losses))]
    np.testing.assert_allclose(fake_scores(probe.predict(valid.inputs).logits), best, rtol=1e-3, atol=1e-4)


def test_adam_keeps_the_best_epoch() -> None:
    train, valid = blobs(60, 4, 2, seed=0), blobs(40, 4, 2, seed=1)
    valid = Examples(valid.inputs, 1 - valid.labels)  # the better the training, the worse this goes
    told: list[float] = []
    probe = detector(4, solver="adam", learning_rate=0.01, epochs=10)
    probe.fit(train, valid, FitSession(on_epoch=lambda epoch, metrics: told.append(metrics["valid/loss"])))
    logits = torch.from_numpy(probe.predict(valid.inputs).logits)
    kept = float(torch.nn.functional.cross_entropy(logits, torch.from_numpy(valid.labels)))
    assert len(told) == 10
    assert kept == pytest.approx(min(told), rel=1e-4)
    assert kept < told[-1]


def test_adam_starts_anew_after_an_interruption_and_ends_the_same() -> None:
    train, valid = blobs(60, 4, 3, seed=0), blobs(40, 4, 3, seed=1)

    def interrupt(epoch: int, metrics: dict[str, float]) -> None:
        if epoch == 2:
            raise KeyboardInterrupt

    probes = [detector(4, 3, solver="adam", learning_rate=0.01, epochs=4) for _ in range(2)]
    with pytest.raises(KeyboardInterrupt):
        probes[0].fit(train, valid, FitSession(on_epoch=interrupt))
    for probe in probes:
        probe.fit(train, valid, FitSession(resume={"epoch": 2}))
    first, second = (probe.predict(valid.inputs).logits for probe in probes)
    np.testing.assert_array_equal(first, second)


def test_adam_that_diverges_says_what_to_try() -> None:
    train = blobs(60, 4, 2, seed=0)
    probe = detector(4, solver="adam", learning_rate=1e37, epochs=2)
    with pytest.raises(TrainingDiverged, match=r"after epoch 1.*lower learning_rate \(now 1e\+37\)"):
        probe.fit(train, train, FitSession())


# What goes wrong


def test_an_unfinished_optimisation_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    train = blobs(60, 5, 2, seed=0)
    with caplog.at_level(logging.WARNING):
        detector(5, max_iterations=1, l2=1e-4).fit(train, train, FitSession())
    assert "raise max_iterations" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        detector(5, l2=1e-4).fit(train, train, FitSession())
    assert not caplog.text


def test_broken_features_are_refused() -> None:
    train = blobs(60, 5, 2, seed=0)
    features = np.array(train.inputs[np.arange(60)])
    features[3, 1] = np.nan
    with pytest.raises(ValueError, match="1 of 60 images have features that are not finite"):
        detector(5).fit(Examples(features, train.labels), train, FitSession())


def test_another_encoders_head_is_refused(tmp_path: Path) -> None:
    detector(5).save(tmp_path)
    with pytest.raises(ValueError, match=r"head\.json has encoder 'given-5'"):
        detector(4).load(tmp_path)


def test_trials_of_a_process_share_the_frozen_backbone() -> None:
    one, other = (small("clip_linear", seed=seed) for seed in (0, 1))
    assert one.encoder.backbone is other.encoder.backbone
    another = small("sam_linear")
    assert another.encoder.backbone is not one.encoder.backbone
    assert small("clip_linear").encoder.key == one.encoder.key
