"""The genuine xception41, CLIP and SAM code paths, with weights from local files.

They run on the photographs of GRID_REAL_FACES, a folder in the layout of Dolos; without it, on made pictures.

The published weights are not shipped; files of the published formats are made here from random weights, and go the way
that the real ones would go. Smaller inputs than published keep a CPU's patience.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
import torch

import launch
from analysis.store import open_store
from tests.corpora import write_dolos

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    given = os.environ.get("GRID_REAL_FACES")
    return Path(given) if given else write_dolos(tmp_path_factory.mktemp("faces"), size=256)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    import open_clip
    import timm
    from segment_anything import sam_model_registry

    folder = tmp_path_factory.mktemp("weights")
    files = {
        "xception_pretrained": folder / "xception41.pth",
        "clip_linear": folder / "open_clip_pytorch_model.bin",
        "sam_linear": folder / "sam_vit_b.pth",
    }
    torch.manual_seed(0)
    torch.save(timm.create_model("xception41", num_classes=1000).state_dict(), files["xception_pretrained"])
    torch.save(open_clip.create_model("ViT-B-32-quickgelu").state_dict(), files["clip_linear"])
    torch.save(sam_model_registry["vit_b"]().state_dict(), files["sam_linear"])
    return files


@pytest.mark.long
def test_the_published_methods_run(
    weights: dict[str, Path], faces: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    generators = sorted(path.name for path in (faces / "celebahq" / "fake").iterdir())
    arguments = [
        "dolos", f"--data={faces}", "--limit=4", "--local", "--seeds=0", f"--runs={tmp_path}", "--cpus-per-trial=2",
        f"--train-on={generators[0]}", "--tasks=detection",
        "--methods=xception_scratch,xception_pretrained,clip_linear,sam_linear",
        "--set=xception_scratch.size=96", "--set=xception_pretrained.size=96",
        "--set=clip_linear.backbone=ViT-B-32-quickgelu", "--set=sam_linear.size=128",
        *(f"--weights={method}={path}" for method, path in weights.items()),
    ]  # fmt: skip
    assert launch.main(arguments) == 0, capsys.readouterr().out
    output = capsys.readouterr().out
    for method in weights:
        assert re.search(rf"{method} \[[\w.-]+, weights from ", " ".join(output.split())), method
    results = open_store("dolos", tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}").results()
    accuracies = results[results["metric"] == "accuracy"]
    assert len(accuracies) == 4 * len(generators)  # methods x test generators
    assert accuracies["value"].between(0, 1).all()


def test_weights_of_another_network_stop_the_grid_before_it_starts(
    weights: dict[str, Path], faces: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [
        "dolos", f"--data={faces}", "--limit=4", "--local", "--seeds=0", f"--runs={tmp_path}",
        "--methods=xception_pretrained,sam_linear",
        f"--weights=xception_pretrained={weights['sam_linear']}", f"--weights=sam_linear={weights['clip_linear']}",
    ]  # fmt: skip
    assert launch.main(arguments) == 2
    output = capsys.readouterr().out
    assert "xception_pretrained" in output
    assert "sam_linear" in output
    assert not (tmp_path / "mlflow.db").exists()
