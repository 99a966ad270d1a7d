"""What trains in the baselines, and what does not."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import nn

from models.configs import TrainingConfig
from models.detector import FitSession
from models.effort import LastDirections
from models.training import TrainedDetector
from tests.models.toys import Recorder, examples, read_back, small

TRAINED = ["effort", "ln_tuned", "rine"]
QUICK: dict[str, Any] = {"epochs": 3, "batch_size": 16}


def built(method: str, **settings: Any) -> TrainedDetector:
    return cast(TrainedDetector, small(method, **(QUICK | settings)))


def state(detector: TrainedDetector) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in detector._network.state_dict().items()}


def changed_by_training(detector: TrainedDetector) -> tuple[set[str], dict[str, torch.Tensor]]:
    """Names of the tensors that are not the same to the last bit, and the tensors before."""
    before = state(detector)
    detector.fit(examples(detector, 16, seed=1), examples(detector, 4, seed=2), FitSession())
    return {name for name, tensor in state(detector).items() if not torch.equal(tensor, before[name])}, before


@pytest.mark.parametrize("backbone", ["test_vit", "test_vit3"])
def test_ln_tuned_changes_nothing_but_normalisations_and_its_classifier(backbone: str) -> None:
    detector = built("ln_tuned", backbone=backbone)
    norms = {name for name, module in detector._network.named_modules() if isinstance(module, nn.LayerNorm)}
    allowed = {f"{name}.{part}" for name in norms for part in ("weight", "bias")}
    changed, before = changed_by_training(detector)
    assert changed - allowed == {"head.weight", "head.bias"}
    assert changed >= {name for name in allowed if name.startswith(("blocks.0.norm", "norm."))}
    assert len(before) - len(changed) > 20


def test_effort_changes_the_last_directions_and_its_classifier_alone() -> None:
    detector = built("effort")
    detector.before_training()
    changed, before = changed_by_training(detector)
    last = {f"{name}.{part}" for name, module in detector._network.named_modules() if isinstance(module, LastDirections)
            for part in ("left", "values", "right")}  # fmt: skip
    assert changed == last | {"head.weight", "head.bias"}
    assert len(before) - len(changed) > 20


def test_effort_keeps_the_top_directions_of_every_attention_matrix() -> None:
    untrained = small("effort")
    plain = cast(Any, small("ln_tuned"))._network.state_dict()  # the same random weights, not decomposed
    changed_by_training(detector := built("effort"))
    pairs = zip(detector._network.blocks, cast(Any, untrained)._network.blocks, strict=True)
    for block, (module, first) in enumerate(pairs):
        for name in ("qkv", "proj"):
            weight = plain[f"blocks.{block}.attn.{name}.weight"].unflatten(0, (-1, 64))
            frozen = getattr(module.attn, name).parametrizations.weight.original.unflatten(0, (-1, 64))
            left, values, right = torch.linalg.svd(weight)
            top = (left[..., :-1] * values[:, None, :-1]) @ right[:, :-1]
            torch.testing.assert_close(frozen, top, atol=1e-6, rtol=1e-5)
            torch.testing.assert_close(
                getattr(first.attn, name).weight.unflatten(0, (-1, 64)), weight, atol=1e-6, rtol=0
            )
            assert not torch.equal(getattr(module.attn, name).weight, getattr(first.attn, name).weight)


def test_effort_is_decomposed_once_and_not_where_it_is_built_or_restored(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed_by_training(detector := built("effort"))
    first = detector._network.blocks[0].attn.qkv.parametrizations.weight[0].first_left.clone()
    detector.save(tmp_path)
    monkeypatch.setattr(torch.linalg, "svd", lambda *args, **options: pytest.fail("it was decomposed"))
    again = built("effort")
    again.load(tmp_path)
    inputs = examples(detector, 4, seed=3).inputs
    np.testing.assert_array_equal(again.predict(inputs).logits, detector.predict(inputs).logits)
    changed_by_training(again)
    assert torch.equal(first, again._network.blocks[0].attn.qkv.parametrizations.weight[0].first_left)


def test_more_directions_of_effort_may_train() -> None:
    detector = built("effort", rank=3)
    assert detector._network.blocks[0].attn.qkv.parametrizations.weight[0].left.shape == (3, 64, 3)
    changed_by_training(detector)
    with pytest.raises(ValueError, match=r"rank must be below 64, the number of directions .*; got 64"):
        built("effort", rank=64)


def test_features_of_ln_tuned_lie_on_the_sphere() -> None:
    detector = built("ln_tuned")
    embeddings = detector.predict(examples(detector, 4, seed=3).inputs).embeddings
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-6)


@pytest.mark.parametrize(("method", "backbone"), [("ln_tuned", "test_resnet"), ("ln_tuned", "test_efficientnet"),
                                                  ("effort", "test_resnet"), ("effort", "test_convnext")])  # fmt: skip
def test_a_backbone_without_what_trains_is_refused(method: str, backbone: str) -> None:
    with pytest.raises(ValueError, match=r"name a vision transformer of timm, such as vit_large_patch14_clip"):
        built(method, backbone=backbone)


@pytest.mark.parametrize("method", TRAINED)
def test_interrupted_anywhere_and_resumed_is_uninterrupted(method: str) -> None:
    whole, recorder = built(method), Recorder(checkpoint_at=lambda count: True)
    train, valid = examples(whole, 13, seed=1), examples(whole, 5, seed=2)
    whole.fit(train, valid, recorder.session)
    assert len(recorder.states) == 3 * (2 + 1)  # after each of two steps, and after each epoch
    for saved in (recorder.states[1], recorder.states[5]):
        torch.rand(5)
        again, tail = built(method), Recorder(resume=read_back(saved))
        again.fit(train, valid, tail.session)
        for name, tensor in state(again).items():
            assert torch.equal(tensor, state(whole)[name]), name
        assert tail.epochs == recorder.epochs[len(recorder.epochs) - len(tail.epochs) :]


def test_the_learning_rate_of_ln_tuned_is_that_of_torch() -> None:
    detector, steps = built("ln_tuned", epochs=30), 7
    rate = cast(TrainingConfig, detector.config).learning_rate
    optimiser = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimiser, T_0=10 * steps, eta_min=1e-6)
    for epoch in range(1, 26):
        for step in range(steps):
            assert detector.learning_rate(epoch, step, steps) == pytest.approx(optimiser.param_groups[0]["lr"])
            optimiser.step()
            schedule.step()


def test_the_learning_rate_of_rine_falls_after_each_third() -> None:
    detector = built("rine", epochs=15)
    rate = cast(TrainingConfig, detector.config).learning_rate
    rates = [detector.learning_rate(epoch, 3, 7) / rate for epoch in range(1, 16)]
    assert rates == pytest.approx([1] * 5 + [0.1] * 5 + [0.01] * 5)
    assert built("rine", epochs=1).learning_rate(1, 0, 7) == pytest.approx(rate)
    reported = Recorder()
    detector.fit(examples(detector, 4, seed=1), examples(detector, 2, seed=2), reported.session)
    assert [metrics["learning_rate"] / rate for _, metrics in reported.epochs] == pytest.approx(rates)
