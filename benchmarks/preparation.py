"""How near the preparation of pictures is to that of the networks' authors, and how far off another one is.

    python -m benchmarks.preparation        half a minute; weights are random, so nothing is downloaded

Of towers of open_clip whose weights come from a file or are random: the largest difference of a pixel from open_clip's
own transform with the published values, and how far features lie off if pictures are prepared as for OpenAI's CLIP. Of
SAM, on pictures of 192 x 256: the largest difference of the neck from `SamPredictor.set_image`, and how far the average
lies off if the part that fills the picture up is in it. "Off" is |difference| / |feature|, the mean over pictures of
smooth noise. docs/preparation.md has the values.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from PIL import Image
from torch import nn

from models.backbones import load_backbone
from models.backbones.base import BackboneRequest
from models.encoding import FrozenEncoder
from models.geometry import Geometry

TOWERS = ("ViT-B-16-SigLIP", "ViT-B-16-SigLIP2", "PE-Core-T-16-384", "MobileCLIP-S1")
SHAPE = (192, 256)
NUM_PICTURES = 4


def pictures(count: int) -> list[np.ndarray]:
    """Smooth noise, uint8 (192, 256, 3) each."""
    generator = np.random.default_rng(0)
    coarse = generator.integers(0, 256, (count, 12, 16, 3), dtype=np.uint8)
    return [np.array(Image.fromarray(one).resize(SHAPE[::-1], Image.Resampling.BICUBIC)) for one in coarse]


def off(features: np.ndarray, wanted: np.ndarray) -> float:
    """Mean over rows of |features - wanted| / |wanted|."""
    return float(np.mean(np.linalg.norm(features - wanted, axis=1) / np.linalg.norm(wanted, axis=1)))


def of_tower(name: str) -> tuple[float, float]:
    """(largest difference of a normalised pixel from open_clip's, share that features are off with OpenAI's values)."""
    import open_clip
    from open_clip.transform import PreprocessCfg, image_transform_v2

    backbone = load_backbone("open_clip", BackboneRequest(name, "random"))
    ours = backbone.preprocessing
    tag = open_clip.get_pretrained_cfg(name, open_clip.list_pretrained_tags_by_model(name)[0])
    fields = {field: tag[field] for field in ("mean", "std", "interpolation", "resize_mode")}
    transform = image_transform_v2(PreprocessCfg(size=ours.size, **fields), is_train=False)
    found = torch.stack(
        [ours.normalise(torch.tensor(ours.geometry.apply(one))[None])[0] for one in pictures(NUM_PICTURES)]
    )
    wanted = torch.stack([transform(Image.fromarray(one)) for one in pictures(NUM_PICTURES)])
    openai = open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD
    guess = dataclasses.replace(ours, mean=openai[0], std=openai[1], interpolation="bicubic", policy="crop")
    guessed = torch.cat(
        [guess.normalise(torch.tensor(guess.geometry.apply(one))[None]) for one in pictures(NUM_PICTURES)]
    )
    with torch.inference_mode():
        return float((found - wanted).abs().max()), off(backbone(guessed).numpy(), backbone(found).numpy())


def of_sam() -> tuple[float, float]:
    """(largest difference of the neck from SAM's own predictor, share that the average is off with the filled part)."""
    from segment_anything import SamPredictor
    from segment_anything.modeling import Sam

    backbone = load_backbone("sam", BackboneRequest("demo", "random"))
    encoder = FrozenEncoder(backbone)
    predictor = SamPredictor(Sam(backbone.network, nn.Identity(), nn.Identity()))
    assert encoder.geometry is not None
    filled: Geometry = dataclasses.replace(encoder.geometry, alpha=False)
    differences, ours, before = [], [], []
    for picture in pictures(NUM_PICTURES):
        predictor.set_image(picture)
        square = encoder.geometry.apply(picture)
        with torch.inference_mode():
            neck = backbone.network(backbone.preprocessing.normalise(torch.tensor(square)[None])[:, :3])
        differences.append(float((neck - predictor.features).abs().max()))
        ours.append(encoder.encode(square[None])[0])
        before.append(encoder.encode(filled.apply(picture)[None])[0])
    return max(differences), off(np.stack(before), np.stack(ours))


def main() -> None:
    """Print a line per network."""
    print("network, largest difference from the authors' own, off in another preparation")
    for name in TOWERS:
        difference, share = of_tower(name)
        print(f"{name}, {difference:.1e}, {share:.0%}")
    difference, share = of_sam()
    print(f"SAM (demo) on 192 x 256, {difference:.1e}, {share:.0%}")


if __name__ == "__main__":
    main()
