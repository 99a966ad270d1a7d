"""When memory runs out: training goes on with halves of a batch, once; scoring and encoding with fewer at a time."""

from __future__ import annotations

import logging
from typing import Any, cast

import numpy as np
import pytest
import torch

from models.detector import Examples, FitSession, MemoryExhausted
from models.memory import fits, in_batches
from models.training import Batch, NetworkDetector
from tests.models.toys import Recorder, examples, make_images, make_labels, read_back, small

WITHOUT_BATCH_NORM = "test_vit"


def network(limit: int | None = None, **overrides: Any) -> NetworkDetector:
    """A network in batches of 16 whose first layer runs out of memory above `limit` images."""
    settings = {"backbone": WITHOUT_BATCH_NORM, "epochs": 2} | overrides
    detector = cast(NetworkDetector, small("xception_scratch", **settings))
    first = next(module for module in detector._network.modules() if isinstance(module, torch.nn.Conv2d))
    if limit is not None:
        first.register_forward_pre_hook(lambda module, inputs: refuse(inputs[0], limit))
    return detector


def refuse(rows: torch.Tensor, limit: int) -> None:
    if len(rows) > limit:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")


def weights(detector: NetworkDetector) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in detector._network.state_dict().items()}


@pytest.fixture
def train() -> Examples:
    return examples(network(), 13, seed=1)  # 26 images: 16 + 10


@pytest.fixture
def valid() -> Examples:
    return examples(network(), 5, seed=2)


# The two helpers


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory."),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("[enforce fail] Out of memory: you tried to allocate 3 bytes"),
        RuntimeError("FIND was unable to find an engine to execute this computation"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
)
def test_every_way_of_saying_it_is_understood(error: RuntimeError) -> None:
    def compute() -> None:
        raise error

    assert fits(compute) is False
    assert fits(lambda: None) is True


@pytest.mark.parametrize(("free", "expected"), [(100 << 20, False), (20 << 30, True)])
def test_a_library_that_does_not_start_is_out_of_memory_only_where_little_is_free(
    monkeypatch: pytest.MonkeyPatch, free: int, expected: bool
) -> None:
    def compute() -> None:
        raise RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (free, 80 << 30))
    if expected:
        with pytest.raises(RuntimeError, match="NOT_INITIALIZED"):
            fits(compute)
    else:
        assert fits(compute) is False


def test_another_error_passes_through() -> None:
    def compute() -> None:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        fits(compute)


@pytest.mark.parametrize(("limit", "expected"), [(20, 10), (10, 10), (9, 5), (5, 5), (4, 2), (1, 1)])
def test_batches_are_halved_until_they_fit_and_cover_all_rows(limit: int, expected: int) -> None:
    seen: list[int] = []

    def compute(place: slice) -> None:
        rows = list(range(23))[place]
        refuse(torch.zeros(len(rows)), limit)
        seen.extend(rows)

    assert in_batches(compute, 23, 10) == expected
    assert seen == list(range(23))


def test_nothing_to_compute() -> None:
    assert in_batches(lambda place: pytest.fail("there is no row"), 0, 10) == 10


def test_one_row_that_does_not_fit_is_an_error_with_a_remedy() -> None:
    with pytest.raises(MemoryExhausted, match=r"not even one image fits.*--gpus-per-trial"):
        in_batches(lambda place: refuse(torch.zeros(place.stop - place.start), 0), 5, 4)


# Training


def test_the_gradients_of_two_halves_are_those_of_the_whole_batch() -> None:
    def gradients(*, halved: bool, num_rows: int) -> tuple[list[torch.Tensor], torch.Tensor]:
        detector = network()
        detector.batch_halved = halved
        labels = make_labels(2, 8, seed=3)[:num_rows]
        tensors = map(torch.from_numpy, (make_images(labels, seed=3), labels % 2 == 0, labels, labels))
        batch = Batch(*tensors)
        sums = torch.full((2,), 7.0)
        scaler = torch.amp.GradScaler("cpu", enabled=False)
        detector._network.train()
        detector._gradients((1, 0), batch, scaler, sums)
        return [parameter.grad for parameter in detector._network.parameters()], sums

    for num_rows in (16, 13):  # the halves of 13 differ in size
        (whole, whole_sums), (halves, halves_sums) = (gradients(halved=h, num_rows=num_rows) for h in (False, True))
        assert max(float(gradient.abs().max()) for gradient in whole) > 1e-2
        for one, other in zip(whole, halves, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(whole_sums, halves_sums, rtol=1e-5, atol=1e-5)


def test_a_training_that_runs_out_goes_on_in_halves_with_the_same_result(
    train: Examples, valid: Examples, caplog: pytest.LogCaptureFixture
) -> None:
    whole, halved = network(), network(limit=8)
    recorders = Recorder(), Recorder()
    whole.fit(train, valid, recorders[0].session)
    assert caplog.text == ""
    halved.fit(train, valid, recorders[1].session)
    assert (whole.batch_halved, halved.batch_halved) == (False, True)
    warned = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert warned == [
        "memory ran out in epoch 1, step 1 with a batch of 16 images; continuing with two halves per batch",
        "memory ran out with 10 images at once; continuing with 5",  # the validation images, scored after the epoch
    ]
    for (_, one), (_, other) in zip(recorders[0].epochs, recorders[1].epochs, strict=True):
        assert other == pytest.approx(one, rel=1e-3)
    np.testing.assert_allclose(halved.predict(valid.inputs).logits, whole.predict(valid.inputs).logits, atol=1e-3)


def test_it_may_run_out_in_the_backward_pass_too(train: Examples, valid: Examples) -> None:
    detector, plain = network(), network()
    head = detector._network.get_classifier()
    head.register_full_backward_pre_hook(lambda module, outputs: refuse(outputs[0], 8))
    detector.fit(train, valid, FitSession())
    plain.fit(train, valid, FitSession())
    assert detector.batch_halved
    np.testing.assert_allclose(detector.predict(valid.inputs).logits, plain.predict(valid.inputs).logits, atol=1e-3)


def test_dropout_does_not_depend_on_where_it_ran_out(train: Examples) -> None:
    """The step that is computed again draws the same numbers as one that starts in halves."""

    def gradients(limit: int | None, *, halved: bool) -> list[torch.Tensor]:
        detector = network(limit)
        detector.batch_halved = halved
        for module in detector._network.train().modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.5
        _, batch = next(detector._training_batches(train, 1, 0))
        optimiser = torch.optim.SGD(detector._network.parameters(), lr=0.0)
        scaler = torch.amp.GradScaler("cpu", enabled=False)
        detector._step((1, 0), batch, optimiser, scaler, torch.zeros(2))
        return [parameter.grad for parameter in detector._network.parameters()]

    for one, other in zip(gradients(8, halved=False), gradients(None, halved=True), strict=True):
        assert torch.equal(one, other)


def test_a_second_time_is_an_error_with_a_remedy(train: Examples, valid: Examples) -> None:
    message = r"half a batch of 16 images does not fit.*--gpus-per-trial.*lower batch_size \(now 16\)"
    with pytest.raises(MemoryExhausted, match=message):
        network(limit=7).fit(train, valid, FitSession())


class Adam(torch.optim.Adam):
    """Runs out of memory in its first steps, as where its averages do not fit; a failed step changes nothing."""

    failures = 0

    def step(self, closure: Any = None) -> Any:
        if Adam.failures:
            Adam.failures -= 1
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return super().step(closure)


def test_adams_first_step_that_does_not_fit_is_taken_again(
    train: Examples, valid: Examples, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = network()
    whole.fit(train, valid, FitSession())
    monkeypatch.setattr(torch.optim, "Adam", Adam)
    monkeypatch.setattr(Adam, "failures", 1)
    again = network()
    again.fit(train, valid, FitSession())
    assert Adam.failures == 0
    for name, tensor in weights(whole).items():
        assert torch.equal(tensor, weights(again)[name]), name


def test_averages_that_never_fit_are_an_error_with_a_remedy(
    train: Examples, valid: Examples, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.optim, "Adam", Adam)
    monkeypatch.setattr(Adam, "failures", 2)
    with pytest.raises(MemoryExhausted, match="--gpus-per-trial"):
        network().fit(train, valid, FitSession())


@pytest.mark.parametrize("method", ["xception_scratch", "clip_linear"])
def test_a_network_whose_weights_do_not_fit_is_an_error_with_a_remedy(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    detector = cast(Any, small(method))

    def full(module: torch.nn.Module, *arguments: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(torch.nn.Module, "to", full)
    work = detector.predict if detector.encoder is None else detector.encoder.encode
    with pytest.raises(MemoryExhausted, match=r"weights do not fit.*--gpus-per-trial"):
        work(make_images(make_labels(2, 2, seed=1), seed=1))


def test_a_batch_too_small_to_halve_is_an_error_at_once(valid: Examples) -> None:
    detector = network(limit=1, batch_size=2)
    with pytest.raises(MemoryExhausted, match=r"^a batch of 2 images does not fit"):
        detector.fit(valid, valid, FitSession())
    assert not detector.batch_halved


@pytest.mark.parametrize("backbone", [WITHOUT_BATCH_NORM, "test_resnet"])
def test_a_resumed_training_goes_on_in_halves(
    backbone: str, train: Examples, valid: Examples, caplog: pytest.LogCaptureFixture
) -> None:
    whole, recorder = network(limit=8, backbone=backbone), Recorder(checkpoint_at=lambda count: True)
    whole.fit(train, valid, recorder.session)
    for state in recorder.states:
        caplog.clear()
        again = network(backbone=backbone)  # has all the memory that it wants, and still ends the same
        again.fit(train, valid, FitSession(resume=read_back(state)))
        assert again.batch_halved
        assert caplog.text == ""
        for name, tensor in weights(whole).items():
            torch.testing.assert_close(tensor, weights(again)[name], rtol=1e-5, atol=1e-6, msg=name)


# Scoring and encoding


def test_scores_and_embeddings_are_the_same_from_smaller_batches(valid: Examples) -> None:
    plain, short = network(), network(limit=3)
    one, other = plain.predict(valid.inputs), short.predict(valid.inputs)
    np.testing.assert_allclose(one.logits, other.logits, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(one.embeddings, other.embeddings, rtol=1e-4, atol=1e-5)
    again = short.predict(valid.inputs)
    np.testing.assert_array_equal(again.logits[4:], other.logits[4:])


@pytest.mark.parametrize("method", ["clip_linear", "sam_linear"])
def test_features_are_the_same_from_smaller_batches(method: str, caplog: pytest.LogCaptureFixture) -> None:
    images = make_images(make_labels(2, 5, seed=1), seed=1)
    plain, short = (cast(Any, small(method)).encoder for _ in range(2))
    first = next(module for module in short.backbone.modules() if isinstance(module, torch.nn.Conv2d))
    first.register_forward_pre_hook(lambda module, inputs: refuse(inputs[0], 1))
    np.testing.assert_allclose(plain.encode(images), short.encode(images), rtol=1e-4, atol=1e-5)
    assert "memory ran out with 10 images at once; continuing with 5" in caplog.text
    caplog.clear()
    short.encode(images)
    assert caplog.text == ""  # what did not fit is not tried again
