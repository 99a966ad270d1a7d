"""Distances of a frozen encoder's features under noise and blur, and the choice among them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from models.detector import BuildContext, Examples, FitSession, fake_scores
from models.geometry import Geometry
from models.registry import create_detector, resolve_config
from models.similarity import BLURS, NOISES, DistanceDetector, DistanceEncoder

NOTHING = Examples(np.empty((0, 4), dtype=np.float32), np.empty(0, dtype=np.int64))


class Means:
    """Mean and deviation of the pixels, as an encoder of squares of 32 pixels."""

    key, num_features, geometry, device = "means", 2, Geometry(32), "cpu"

    def encode(self, pixels: np.ndarray | Sequence[np.ndarray]) -> np.ndarray:
        values = np.asarray(pixels)[..., :3].reshape(len(pixels), -1).astype(np.float32)
        return np.stack([values.mean(axis=1), values.std(axis=1)], axis=1)


def pictures(number: int = 3, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(40, 200, (number, 32, 32, channels), dtype=np.uint8)


def test_a_distance_per_strength_which_grows_with_it() -> None:
    encoder = DistanceEncoder(Means(), blurs=BLURS)
    distances = encoder.encode(pictures())
    assert distances.shape == (3, encoder.num_features) == (3, len(NOISES) + len(BLURS))
    assert distances.dtype == np.float32
    assert (distances >= -1e-6).all()
    assert (np.diff(distances[:, len(NOISES) :], axis=1) > 0).all()  # more blur, less deviation
    assert distances[0, 0] < distances[0, len(NOISES) - 1]


def test_distances_follow_from_the_picture_alone() -> None:
    encoder, given = DistanceEncoder(Means()), pictures()
    np.testing.assert_array_equal(encoder.encode(given)[1:], encoder.encode(given[1:]))


def test_what_is_filled_up_stays_so() -> None:
    given = pictures(channels=4)
    given[..., 3] = 0
    seen: list[np.ndarray] = []

    class Watching(Means):
        def encode(self, pixels: np.ndarray | Sequence[np.ndarray]) -> np.ndarray:
            seen.append(np.asarray(pixels))
            return super().encode(pixels)

    DistanceEncoder(Watching(), blurs=BLURS).encode(given)
    assert len(seen) == 1 + len(NOISES) + len(BLURS)
    assert all((batch[..., 3] == 0).all() for batch in seen)
    assert all((batch[..., :3] != given[..., :3]).any() for batch in seen[1:])


def test_keys_say_what_is_disturbed() -> None:
    assert DistanceEncoder(Means()).key != DistanceEncoder(Means(), blurs=BLURS).key != Means.key


@pytest.mark.parametrize("direction", [1, -1])
def test_strength_and_direction_are_chosen_on_validation(direction: int) -> None:
    """The third of four distances tells them apart, and fakes move less than real images in one case."""
    labels = np.array([0, 1] * 20)
    rng = np.random.default_rng(0)
    distances = rng.uniform(0.4, 0.6, (40, 4)).astype(np.float32)
    distances[:, 2] = 0.5 + direction * (labels - 0.5) * 0.1 + rng.uniform(-0.02, 0.02, 40)
    encoder = DistanceEncoder(Means())
    detector = DistanceDetector(encoder, [range(4)], ("real", "fake"), weights_note="none")
    detector.fit(NOTHING, Examples(distances, labels), FitSession())
    scores = fake_scores(detector.predict(distances).logits)
    assert scores[labels == 1].min() > 0 > scores[labels == 0].max()


def test_the_smaller_of_two_distances_counts() -> None:
    labels = np.array([0, 1] * 20)
    distances = np.ones((40, 2), dtype=np.float32)
    distances[labels == 1, 0] = 0.2  # some fakes move little under noise, the others under blur
    distances[::4, :] = 1.0
    distances[1::4, 0], distances[1::4, 1] = 1.0, 0.2
    detector = DistanceDetector(
        DistanceEncoder(Means(), noises=[0.1], blurs=[1.0]), [[0], [1]], ("real", "fake"), weights_note="none"
    )
    detector.fit(NOTHING, Examples(distances, labels), FitSession())
    scores = fake_scores(detector.predict(distances).logits)
    assert scores[labels == 1].min() > scores[labels == 0].max()


@pytest.mark.parametrize("method", ["rigid", "minder"])
@pytest.mark.parametrize(("library", "backbone"), [("timm", "test_resnet"), ("open_clip", "demo-vit-64")])
def test_any_backbone_of_two_libraries(method: str, library: str, backbone: str) -> None:
    settings = {"library": library, "backbone": backbone, "weights": "random", "size": 64}
    detector = create_detector(method, resolve_config(method, settings), BuildContext(("real", "fake")))
    distances = detector.inputs([np.random.default_rng(0).integers(0, 256, (70, 64, 3), dtype=np.uint8)])
    assert distances.shape == (1, 4 if method == "rigid" else 8)
    assert np.isfinite(distances).all()
