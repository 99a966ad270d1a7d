"""Forward passes and losses equal those of the authors' published code to 1e-5; parity/README.md says how."""

from __future__ import annotations

import json
from pathlib import Path
from typing import cast

import numpy as np
import open_clip
import pytest
import torch

from models.detector import BuildContext
from models.effort import EffortDetector
from models.ln_tuned import LnTunedDetector, alignment, uniformity
from models.registry import create_detector, resolve_config
from models.rine import RineDetector, contrastive_loss
from models.training import NetworkDetector, Outputs
from models.weights import file_digest
from tests.models.parity import network, numbers, pixels, published, shapes_of, weights

CLOSE = {"atol": 1e-5, "rtol": 1e-5}
DETECTION = BuildContext(("real", "fake"))
LABELS = torch.tensor([0, 1, 1, 0, 1, 0])


@pytest.fixture(scope="module")
def small_clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The name of a small architecture as OpenAI's: QuickGELU, three blocks."""
    vision = {"image_size": 32, "layers": 3, "width": 64, "head_width": 32, "patch_size": 8}
    text = {"context_length": 8, "vocab_size": 64, "width": 32, "heads": 2, "layers": 1}
    path = tmp_path_factory.mktemp("architectures") / "parity-vit-32.json"
    path.write_text(json.dumps({"embed_dim": 32, "quick_gelu": True, "vision_cfg": vision, "text_cfg": text}))
    open_clip.add_model_config(path)
    return path.stem


def test_rine_refuses_a_tower_without_class_tokens(tmp_path: Path) -> None:
    text = {"context_length": 8, "vocab_size": 64, "width": 32, "heads": 2, "layers": 1}
    vision = {"image_size": 64, "timm_model_name": "test_resnet", "timm_pool": "avg", "timm_proj": "linear"}
    path = tmp_path / "parity-resnet-64.json"
    path.write_text(json.dumps({"embed_dim": 32, "vision_cfg": vision, "text_cfg": text}))
    open_clip.add_model_config(path)
    with pytest.raises(ValueError, match=r"parity-resnet-64 has no blocks with a class token: name a vision transf"):
        rine(path.stem)


def rine(backbone: str) -> RineDetector:
    settings = {"backbone": backbone, "weights": "random", "width": 48, "layers": 2, "resize": "squash"}
    settings |= {"mean": "0.5,0.5,0.5", "std": "0.5,0.5,0.5", "interpolation": "bicubic"}
    detector = cast(RineDetector, create_detector("rine", resolve_config("rine", settings), DETECTION))
    tower = detector.backbone.network.tower
    tower.load_state_dict(weights(shapes_of(tower)))
    detector._network.load_state_dict(weights(shapes_of(detector._network)))
    detector._network.eval()
    return detector


def test_rine(small_clip: str) -> None:
    theirs, detector = published("rine"), rine(small_clip)
    with torch.inference_mode():
        tokens = detector.backbone(numbers("pictures", 6, 3, 32, 32))
        embeddings = detector.embed(tokens)
        logits = detector.classify(embeddings)
    torch.testing.assert_close(tokens, theirs["tokens"], **CLOSE)
    torch.testing.assert_close(embeddings, theirs["embeddings"], **CLOSE)
    torch.testing.assert_close(logits[:, 1] - logits[:, 0], theirs["log_odds"], **CLOSE)
    loss = detector.loss(Outputs(logits, embeddings), LABELS)
    assert float(loss) * len(LABELS) == pytest.approx(theirs["loss"], rel=1e-5)  # theirs is a sum over the batch


def test_contrastive_loss_of_rine() -> None:
    embeddings, labels = numbers("embeddings", 6, 48), torch.tensor([0, 1, 1, 0, 2, 1])
    assert float(contrastive_loss(embeddings, labels)) == pytest.approx(published("rine")["contrastive"], rel=1e-5)


def test_contrastive_loss_has_gradients_where_an_image_is_alone_in_its_class() -> None:
    embeddings = numbers("embeddings", 3, 4).requires_grad_()
    contrastive_loss(embeddings, torch.tensor([0, 1, 1])).backward()
    assert embeddings.grad is not None
    assert np.isfinite(embeddings.grad.numpy()).all()


def of_timm(method: str, folder: Path) -> NetworkDetector:
    """A method on the small transformer, whose weights are in a file, as a user's would be."""
    state = weights(shapes_of(network.parity_vit(num_classes=2)))
    torch.save(state, folder / "weights.pt")
    digest = file_digest(folder / "weights.pt")
    config = resolve_config(method, {"backbone": "parity_vit", "weights": f"file:{digest}"})
    context = BuildContext(("real", "fake"), weight_files={digest: folder / "weights.pt"})
    detector = cast(NetworkDetector, create_detector(method, config, context))
    head = detector._network.get_classifier()
    head.load_state_dict({name.removeprefix("head."): state[name] for name in ("head.weight", "head.bias")})
    detector._network.eval()
    return detector


def test_ln_tuned(tmp_path: Path) -> None:
    theirs, detector = published("ln_tuned"), cast(LnTunedDetector, of_timm("ln_tuned", tmp_path))
    with torch.inference_mode():
        outputs = detector.outputs(numbers("pictures", 6, 3, 32, 32))
        assert outputs.embeddings is not None
        torch.testing.assert_close(outputs.embeddings, theirs["embeddings"], **CLOSE)
        torch.testing.assert_close(outputs.logits, theirs["logits"], **CLOSE)
        torch.testing.assert_close(detector._network(numbers("pictures", 6, 3, 32, 32)), theirs["logits"], **CLOSE)
        assert float(alignment(outputs.embeddings, LABELS)) == pytest.approx(theirs["alignment"], rel=1e-5)
        assert float(uniformity(outputs.embeddings)) == pytest.approx(theirs["uniformity"], rel=1e-5)
        assert float(detector.loss(outputs, LABELS)) == pytest.approx(theirs["loss"], rel=1e-5)


def test_effort(tmp_path: Path) -> None:
    theirs, detector = published("effort"), cast(EffortDetector, of_timm("effort", tmp_path))
    detector.before_training()
    pictures = numbers("pictures", 6, 3, 32, 32)
    with torch.inference_mode():
        torch.testing.assert_close(detector.outputs(pictures).logits, theirs["first_logits"], **CLOSE)
        assert float(detector.penalty()) == pytest.approx(0, abs=1e-4)
    for block, module in enumerate(detector._network.blocks):
        for linear, letters in ((module.attn.qkv, "qkv"), (module.attn.proj, "o")):
            (directions,) = linear.parametrizations.weight
            with torch.no_grad():
                for part, letter in enumerate(letters):
                    directions.left[part] = numbers(f"{block}.{letter}.left", 64, 1) / 8
                    directions.values[part] = numbers(f"{block}.{letter}.values", 1)
                    directions.right[part] = numbers(f"{block}.{letter}.right", 1, 64) / 8
    with torch.inference_mode():
        features = detector.embed(pictures)
        torch.testing.assert_close(features, theirs["embeddings"], **CLOSE)
        torch.testing.assert_close(detector.classify(features), theirs["logits"], **CLOSE)
        assert float(detector.penalty()) == pytest.approx(theirs["penalty"], rel=1e-5)


def cut_off(method: str) -> NetworkDetector:
    """A method that cuts a network off, in its whole width, on squares of 64 pixels, with weights by their names."""
    detector = cast(NetworkDetector, create_detector(method, resolve_config(method, {"size": 64}), DETECTION))
    detector._network.load_state_dict(weights(shapes_of(detector._network)))
    detector._network.eval()
    return detector


def test_npr() -> None:
    theirs, detector = published("npr"), cut_off("npr")
    with torch.inference_mode():
        embeddings = detector.embed(detector.prepared(pixels("npr", 3, 64, 64, 3)))
        outputs = detector.outputs(detector.prepared(pixels("npr", 3, 64, 64, 3)))
    torch.testing.assert_close(embeddings[:, :64], theirs["embeddings"], **CLOSE)
    torch.testing.assert_close(outputs.logits[:, 1] - outputs.logits[:, 0], theirs["log_odds"], **CLOSE)
    assert float(detector.loss(outputs, LABELS[:3])) == pytest.approx(theirs["loss"], rel=1e-5)


def test_patch_head() -> None:
    theirs, detector = published("patch_head"), cut_off("patch_head")
    pictures = pixels("patch_head", 3, 64, 64, 3)
    with torch.inference_mode():
        outputs = detector.outputs(detector.prepared(pictures))
        assert outputs.cells is not None
        torch.testing.assert_close(outputs.cells, theirs["cells"], **CLOSE)
        torch.testing.assert_close(outputs.logits.exp(), theirs["probabilities"], **CLOSE)
        assert float(detector.loss(outputs, LABELS[:3])) == pytest.approx(theirs["loss"], rel=1e-5)
        masks = (numbers("masks", 3, *outputs.cells.shape[2:]) > 0).long()
        assert float(detector.loss(outputs, masks)) == pytest.approx(theirs["mask_loss"], rel=1e-5)
    maps = detector.maps(pictures.numpy())
    torch.testing.assert_close(torch.from_numpy(maps), theirs["cells"][:, 1] - theirs["cells"][:, 0], **CLOSE)
