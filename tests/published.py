"""Published corpora, each drawn small: the names of files and folders as their authors give them."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from tests.corpora import picture

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
OPENSDI = pa.schema(
    [("key", pa.string()), ("image", IMAGE), ("mask", IMAGE), ("label", pa.int64())],
    metadata={"huggingface": json.dumps({"info": {"features": {"label": {"names": ["real", "fake"]}}}})},
)


def encoded(pixels: np.ndarray, kind: str = "PNG", **options: Any) -> bytes:
    """The bytes of a picture's file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def edited(name: str, original: str, size: int) -> tuple[np.ndarray, np.ndarray]:
    """(a photograph whose middle is another picture, its mask: white in the middle)."""
    middle = slice(size // 4, size - size // 4)
    pixels, mask = picture(original, size), np.zeros((size, size), dtype=np.uint8)
    pixels[middle, middle] = picture(name, size)[middle, middle]
    mask[middle, middle] = 255
    return pixels, mask


def write_parquet(
    path: Path, rows: Sequence[Mapping[str, Any]], schema: pa.Schema | None = None, **options: Any
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(list(rows), schema), path, **options)
    return path


def write_tar(path: Path, members: Iterable[tuple[str, bytes | tarfile.TarInfo]], mode: str = "w") -> Path:
    """A tar file of (name, content); a `TarInfo` as content is added as it is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for name, content in members:
            if isinstance(content, tarfile.TarInfo):
                tar.addfile(content)
            else:
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return path


def opensdi_row(key: str, label: int, size: int = 16, *, mask: bool = False) -> dict[str, Any]:
    """A row as in OpenSDI's Parquet files."""
    pixels, white = edited(key, f"original of {key}", size) if mask else (picture(key, size), None)
    return {
        "key": key,
        "image": {"bytes": encoded(pixels), "path": key.rpartition("/")[2]},
        "mask": None if white is None else {"bytes": encoded(white), "path": "mask.png"},
        "label": label,
    }


def opensdi_rows(generator: str, first: int, number: int, size: int = 16) -> list[dict[str, Any]]:
    """Partial edits, wholly made images and twice as many real ones, ordered by class as in the published files."""
    names = [f"{first + index:09d}.jpg" for index in range(4 * number)]
    rows = [opensdi_row(f"partial/{generator}/fake/{name}", 1, size, mask=True) for name in names[:number]]
    rows += [opensdi_row(f"entire/{generator}/fake/{name}", 1, size) for name in names[number : 2 * number]]
    return rows + [opensdi_row(f"entire/{generator}/real/{name}", 0, size) for name in names[2 * number :]]


def write_opensdi(root: Path, size: int = 16, *, num_train: int = 12, num_test: int = 2) -> Path:
    """OpenSDI_train (sd15 in two files) beside OpenSDI_test (sd15 and flux)."""
    for shard in range(2):
        rows = opensdi_rows("sd15", 1000 * (shard + 1), num_train // 2, size)
        write_parquet(root / f"OpenSDI_train/data/sd15-{shard:05d}-of-00002.parquet", rows, OPENSDI)
    for number, generator in enumerate(("sd15", "flux")):
        rows = opensdi_rows(generator, 10_000 * (number + 1), num_test, size)
        write_parquet(root / f"OpenSDI_test/data/{generator}-00000-of-00001.parquet", rows, OPENSDI)
    return root


def save(path: Path, pixels: np.ndarray, kind: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    options = {"quality": 95, "subsampling": 0} if path.suffix.lower() in (".jpg", ".jpeg") else {}
    Image.fromarray(pixels).save(path, kind or None, **options)
    return path


def resized(pixels: np.ndarray, size: int) -> np.ndarray:
    return np.array(Image.fromarray(pixels).resize((size, size), Image.Resampling.NEAREST))


TGIF_SPLITS = {"training": 12, "validation": 3, "testing": 3}
TGIF = ("sd2-sp", "ps-sp", "sd2-fr", "sdxl-fr", "flux-fr")


def tgif_name(tool: str, photograph: int, kind: str, number: int = 0) -> str:
    """A fake's name, as in the authors' README."""
    own = f"{photograph}_mask_{kind}.png"
    return {
        "sd2-sp": f"{own}_ps_mask.png_sd2_{number}.png", "ps-sp": f"{own}_ps_{number}.png",
        "sd2-fr": f"{own}_sd2-512_{number}.png", "sdxl-fr": f"{own}_sdxl-1024_{number}.png",
        "flux-fr": f"{own}_flux-1024_{number}.png",
    }[tool]  # fmt: skip


def write_tgif(
    root: Path, tools: Iterable[str] = ("sd2-sp", "ps-sp"), size: int = 16, splits: Mapping[str, int] = TGIF_SPLITS
) -> Path:
    """TGIF as its archives extract: pasted-back images have the photograph's size, regenerated ones another."""
    photograph = 100
    kinds = {"": size, "_512": size + 8, "_1024": size + 16, "flux": size + 12}
    of_tool = {"sd2-sp": "", "ps-sp": "", "sd2-fr": "_512", "sdxl-fr": "_1024", "flux-fr": "flux"}
    for split, count in splits.items():
        for index in range(count):
            photograph += 1
            place = f"{split}/{('cat', 'hair drier')[index % 2]}"
            original, edit = picture(str(photograph), size), edited(f"edit of {photograph}", str(photograph), size)
            for end, pixels in kinds.items():
                if end not in {of_tool[tool] for tool in tools}:
                    continue
                folders = ("original-flux", "masks-flux") if end == "flux" else ("orig", "masks")
                end = "_1024" if end == "flux" else end
                save(root / f"{folders[0]}/{place}/{photograph}_orig{end}.png", resized(original, pixels))
                name = f"{photograph}_mask_bbox{end}.png" if end else f"{photograph}_mask_bbox.png_ps_mask.png"
                save(root / f"{folders[1]}/{place}/{name}", resized(edit[1], pixels))
            for tool in tools:
                fake = edited(f"{tool} of {photograph}", str(photograph), size)[0]
                fake = resized(fake, kinds[of_tool[tool]])
                fake = fake if tool.endswith("-sp") else np.where(fake < 250, fake + 2, fake).astype(np.uint8)
                save(root / f"{tool}/{place}/{tgif_name(tool, photograph, 'bbox')}", fake)
    return root


INPX = {
    "CelebAHQ": ("12345", "12345_hair"), "CityScapes": ("aachen_000001_000019", "aachen_000001_000019_instance_7"),
    "OpenImages": ("0123456789abcdef", "0123456789abcdef_m01g317_2"), "SUN_RGBD": ("img_0042", "img_0042_3"),
}  # fmt: skip


def write_inpx(
    root: Path, models: Iterable[str] = ("OpenJourney", "Kandinsky_2_2"), size: int = 16, *, num_train: int = 6
) -> Path:
    """INP-X below a folder of any name: `num_train` photographs of each data set in train-data, one in test-data."""
    for split, count in (("train-data", num_train), ("test-data", 1)):
        base = root / "mounted/inpainting_exchange" / split
        for data_set, (name, part) in INPX.items():
            for index in range(count):
                # another photograph: the first characters change, and the length stays
                old, new = name[:2], f"{'tx'[split == 'test-data']}{index}"
                original, edit = name.replace(old, new, 1), part.replace(old, new, 1)
                save(base / f"data/originals/{data_set}/{original}.jpg", picture(f"{data_set}{original}", size))
                for model in models:
                    pixels, mask = edited(f"{model}{edit}", f"{data_set}{original}", size)
                    shifted = np.where(pixels < 250, pixels + 4, pixels).astype(np.uint8)
                    for folder, end, content in (
                        ("standard_inpainting", "", shifted),
                        ("inpainting_exchange", "_simple", pixels),
                    ):
                        save(base / f"data/{folder}/{data_set}/{edit}_{data_set}_{model}{end}.jpg", content)
                    save(base / f"masks/{data_set}_masks/{edit}.jpg", mask)
        (base / "masks/mask_sizes.csv").write_text("filename,mask_ratio,size_class\n", encoding="utf-8")
    return root


def write_brgen(
    folder: Path, names: Iterable[str], generators: Iterable[str] = ("MAT", "LaMa"), size: int = 16
) -> Path:
    """Au, Tp and Gt of BR-Gen: each photograph edited by each generator."""
    for name in names:
        save(folder / f"Au/{name}.png", picture(name, size))
        for generator in generators:
            pixels, mask = edited(f"{generator}/{name}", name, size)
            save(folder / f"Tp/{generator}_Stuff_{name}.png", pixels)
            save(folder / f"Gt/{generator}_Stuff_{name}_mask.png", mask)
    return folder


def write_classic(folder: Path, count: int, size: int = 16, *, first: int = 0) -> Path:
    """Au, Tp and Gt of a classic set: tampered images are .tif, and their names lead to no image in Au."""
    for number in range(first, first + count):
        save(folder / f"Au/Au_ani_{number:05d}.jpg", picture(f"{folder.name} real {number}", size))
        pixels, mask = edited(f"{folder.name} edit {number}", f"{folder.name} source {number}", size)
        save(folder / f"Tp/Tp_S_NNN_{number:05d}.tif", pixels)
        save(folder / f"Gt/Tp_S_NNN_{number:05d}_gt.png", mask)
    return folder
