"""The published layouts of corpora, each drawn small: folders, names and lists as their authors have them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from tests.corpora import picture, write_archive, write_csv, write_dolos

SIDE = 64
NUMBERS = {"train": 6, "val": 4, "test": 4}
BOTH = ("0_real", "1_fake")
SPLIT_COUNTS = (6, 4, 4)  # of `NUMBERS`
REAL = "real"

Counts = tuple[int, int, int]  # train, valid, test


@dataclass(frozen=True)
class Layout:
    """One layout, and what a reader should understand of it.

    Attributes:
        draw: writes it into a folder.
        corpus: the corpus that the folder is recognised as.
        fakes: generator -> fakes for training, validation and tests. Where validation images are taken from training
            images, their numbers are -1, and the first is that of both.
        reals: what stands in the place of the generator -> the same of real images; "real": shared by all.
        white: what white in a mask means -> number of masks.
        words: options that `describe` and the launch need.
        launched: further options of the launch alone.
        notes: parts of notes that must be said.
        corpora: further options of `describe`.
    """

    draw: Callable[[Path], object]
    corpus: str
    fakes: Mapping[str, Counts]
    reals: Mapping[str, Counts]
    white: Mapping[str, int]
    words: tuple[str, ...] = ()
    launched: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    corpora: tuple[str, ...] = ()

    @property
    def trained(self) -> list[str]:
        return sorted(name for name, counts in self.fakes.items() if counts[0])

    @property
    def tested(self) -> list[str]:
        return sorted(name for name, counts in self.fakes.items() if counts[2])


# Drawing --------------------------------------------------------------------------------------------------------------


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels)
    if path.suffix.lower() in (".jpg", ".jpeg"):
        image.save(path, format="JPEG", quality=95)
    else:
        image.save(path)


def draw_images(root: Path, paths: Iterable[str]) -> None:
    """Pictures that show nothing in common."""
    for path in paths:
        save(root / path, picture(path, SIDE))


def draw_edit(root: Path, key: str, fake: str, *, real: str = "", mask: str = "", white: int = 255) -> None:
    """A fake whose middle is edited, with its original and its mask, in which the edited region has the level `white`.

    Where the region is, and how large, follows from the key, as in data of any use.
    """
    first = 8 + sum(map(ord, key)) % 24
    region = slice(first, first + 16 + sum(map(ord, key)) % 8)
    pixels = picture(key, SIDE)
    if real:
        save(root / real, pixels)
    edited = pixels.copy()
    edited[region, region] = picture(fake, SIDE)[region, region]
    save(root / fake, edited)
    if mask:
        levels = np.full((SIDE, SIDE), 255 - white, dtype=np.uint8)
        levels[region, region] = white
        save(root / mask, levels)


def each(splits: Mapping[str, int] = NUMBERS) -> list[tuple[str, int]]:
    """(split, number) of each photograph; numbers do not restart."""
    names = [split for split, count in splits.items() for _ in range(count)]
    return [(split, number) for number, split in enumerate(names)]


# Trees of folders -----------------------------------------------------------------------------------------------------


def zero_and_one(root: Path) -> None:
    draw_images(root, (f"{g}/{s}/{c}/{g}_{n:04d}.png" for g in ("biggan", "stargan") for s, n in each() for c in BOTH))


def genimage(root: Path) -> None:
    for generator, inner in (("Stable Diffusion V1.4", "imagenet_ai_0419_sdv4"), ("ADM", "imagenet_ai_0508_adm")):
        for split, number in each({"train": 20, "val": 4}):
            name = f"{generator}/{inner}/{split}"
            of_imagenet = f"{name}/nature/ILSVRC2012_{split}_{number:08d}.JPEG"
            draw_images(root, [f"{name}/ai/{split}_{number:03d}_{generator[:3]}_00035.png", of_imagenet])


def real_and_fake(root: Path) -> None:
    generators = ("stabilityai_sd", "flux-dev")
    draw_images(root, (f"{s}/{g}/{c}/{g}-{n}.png" for g in generators for s, n in each() for c in ("real", "fake")))


def categories_below(root: Path) -> None:
    draw_images(
        root,
        (
            f"{s}/{g}/{category}/{c}/{g}{n}.png"
            for g in ("stylegan", "cyclegan")
            for category in ("bedroom", "cat")
            for s, n in each({"train": 3, "val": 2, "test": 2})
            for c in BOTH
        ),
    )


def diffusionforensics(root: Path) -> None:
    for category, generators in (("imagenet", ("adm", "sdv1")), ("lsun_bedroom", ("adm", "pndm"))):
        for split, number in each():
            draw_images(root, [f"images/{split}/{category}/real/n03982430/{category}_{number}.png"])
            for generator in generators:
                if generator != "pndm" or split == "test":
                    draw_images(root, [f"images/{split}/{category}/{generator}/n03982430/{category}{number}.png"])
            draw_images(root, [f"recons/{split}/{category}/real/n03982430/{category}_{number}_r.png"])


def shared_reals(root: Path) -> None:
    words = {"train": "training", "val": "validation", "test": "testing"}
    for split, number in each():
        draw_images(root, (f"{words[split]}/{c}/{number}.png" for c in ("real", "fake/sd", "fake/gan")))


def reals_of_their_own_folder(root: Path) -> None:
    for split, number in each():
        draw_images(root, (f"{split}/{c}/{number}.png" for c in ("laion/0_real", "sdxl/1_fake", "mj/1_fake")))


def cnndetection(root: Path) -> None:
    draw_trained(root, ("car", "cat", "horse"))
    tested = ("progan/car", "progan/cat", "biggan", "san")
    draw_images(root, (f"test/{name}/{c}/{name[-3:]}{n:05d}.png" for name in tested for n in range(4) for c in BOTH))


def draw_trained(root: Path, categories: Iterable[str]) -> None:
    """A training tree of ProGAN, a folder per LSUN class."""
    draw_images(
        root,
        (f"{s}/{k}/{c}/{n:05d}.png" for k in categories for s, n in each({"train": 4, "val": 3}) for c in BOTH),
    )


def universalfakedetect(root: Path) -> None:
    draw_trained(root / "datasets", ("car", "cat", "horse"))
    draw_images(root, (f"datasets/test/biggan/{c}/b{n}.png" for n in range(4) for c in BOTH))
    folders = ("imagenet/0_real", "laion/0_real", "guided/1_fake", "ldm_200/1_fake", "dalle/1_fake")
    draw_images(root, (f"diffusion_datasets/{name}/{name[:3]}{n}.png" for name in folders for n in range(4)))


def aigibench(root: Path) -> None:
    draw_trained(root, ("car", "cat", "chair", "horse", "sdv1.4"))
    draw_images(root, (f"test/{g}/{c}/{g}{n}.png" for g in ("ProGAN", "FLUX1-dev") for n in range(4) for c in BOTH))


# Lists ----------------------------------------------------------------------------------------------------------------


def draw_rows(root: Path) -> list[dict[str, Any]]:
    """Rows with all columns that a list may have, and their files."""
    rows = []
    for split, number in each():
        name, source = f"{split}/{number:04d}.png", f"photo {number}"
        draw_edit(root, source, f"lama/{name}", real=f"real/{name}", mask=f"masks/{name}")
        facts = {"split": split, "source_id": source}
        rows.append({"path": f"real/{name}", "label": "real", "generator": "", "mask": "", "original": "",
                     "mask_white": "", **facts})  # fmt: skip
        rows.append({"path": f"lama/{name}", "label": "fake", "generator": "lama", "mask": f"masks/{name}",
                     "original": f"real/{name}", "mask_white": "fake", **facts})  # fmt: skip
    return rows


def whole_list(suffix: str) -> Callable[[Path], None]:
    """A list with all columns, as a file of this suffix."""

    def draw(root: Path) -> None:
        save_list(root / f"list.{suffix}", draw_rows(root))

    return draw


def save_list(file: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    kind = file.suffix[1:]
    if kind in ("csv", "tsv"):
        write_csv(file, rows, separator="\t" if kind == "tsv" else ",")
    elif kind == "parquet":
        pd.DataFrame(rows).to_parquet(file)
    else:
        lines = [json.dumps(row) for row in rows]
        file.write_text("\n".join(lines) if kind == "jsonl" else f"[{','.join(lines)}]", encoding="utf-8")


def br_gen(root: Path) -> None:
    lists: dict[str, list[list[str]]] = {"br-gen_train.json": [], "stuff_val.json": [], "real_val.json": []}
    place = "/home/clpbc/BRGen-Stuff-Val"
    for split, number in each({"train": 20, "val": 4}):
        stem = f"COCO_{number:012d}"
        of_fakes, of_reals = ("br-gen_train.json",) * 2 if split == "train" else ("stuff_val.json", "real_val.json")
        for generator in ("MAT", "LaMa"):
            fake = f"Tp/{generator}_Stuff_{stem}.png"
            mask = fake.replace("Tp/", "Gt/").replace(".png", "_mask.png")
            draw_edit(root / "BRGen-Stuff-Val", stem, fake, real=f"Au/{stem}.png", mask=mask)
            lists[of_fakes].append([f"{place}/{fake}", f"{place}/{mask}"])
        lists[of_reals].append([f"{place}/Au/{stem}.png", "Negative"])
    for name, pairs in lists.items():
        (root / name).write_text(json.dumps(pairs))


def benco_by_name(root: Path) -> None:
    lists: dict[str, list[list[str]]] = {}
    for name, numbers in {"CASIA_train": range(6), "CASIA_valid": range(6, 10), "Columbia": range(10, 14)}.items():
        for number in numbers:
            fake, mask, real = (f"{kind}/{name}{number}.png" for kind in ("Tp", "Gt", "Au"))
            draw_edit(root, f"{name}{number}", fake, real=real, mask=mask)
            lists.setdefault(name, []).extend([[fake, mask], [real, "Negative"]])
    for name in ("CASIA_train", "CASIA_valid"):
        (root / f"{name}.json").write_text(json.dumps(lists.pop(name)))
    (root / "test_datasets.json").write_text(json.dumps(lists))


def forensichub(root: Path) -> None:
    for split, count in NUMBERS.items():
        rows = [{"path": f"img/{split}{n}_{label}.png", "label": label} for n in range(count) for label in (0, 1)]
        draw_images(root, (str(row["path"]) for row in rows))
        (root / f"diffusion_{split}.json").write_text(json.dumps(rows))


def hugging_face(suffix: str) -> Callable[[Path], None]:
    """A folder per split, each with its metadata."""

    def draw(root: Path) -> None:
        words, tables = {"train": "train", "val": "validation", "test": "test"}, dict[str, list[dict[str, str]]]()
        for split, number in each():
            folder, names = words[split], (f"{number}.png", f"{number}_sd.png", f"masks/{number}.png")
            draw_edit(root / folder, str(number), names[1], real=names[0], mask=names[2])
            tables.setdefault(folder, []).extend(
                [
                    {"file_name": names[0], "label": "real", "model": "", "mask_file_name": "",
                     "original_id": str(number)},
                    {"file_name": names[1], "label": "fake", "model": "sd2", "mask_file_name": names[2],
                     "original_id": str(number)},
                ]
            )  # fmt: skip
        for folder, rows in tables.items():
            save_list(root / folder / f"metadata.{suffix}", rows)

    return draw


def sagi_d(root: Path) -> None:
    rows = []
    for split, number in each():
        names = [f"{split}/coco/{kind}/{number:012d}.png" for kind in ("inpainted", "masks", "original")]
        draw_edit(root, str(number), names[0], real=names[2], mask=names[1])
        image, mask, original = ("sagid\\" + name.replace("/", "\\") for name in names)
        rows.append({"img_path": image, "mask_path": mask, "src_path": original, "split": split, "type": "sp",
                     "inpainting_model": "brushnet,powerpaint" if number % 2 else "brushnet"})  # fmt: skip
    write_csv(root / "sagid.csv", rows)


def cocoglide(root: Path) -> None:
    """Beside a list of one's own, because CocoGlide is tested only."""
    write_csv(root / "list.csv", [row for row in draw_rows(root) if row["split"] != "test"])
    rows = []
    for number in range(4):
        fake, real = f"fake/glide_inpainting_val2017_{number}_up.png", f"real/dining table_{number}.png"
        mask = f"mask/dining table_{number}_mask.png"
        draw_edit(root / "CocoGlide", f"table {number}", fake, real=real, mask=mask)
        rows.append({"real": real, "fake": fake, "mask": mask, "prompt": "a table, round"})
    write_csv(root / "CocoGlide/table.csv", rows, start="\ufeff")


def community_forensics(root: Path) -> None:
    rows = []
    for split, number in each():
        for generator in ("gen_a", "gen_b"):
            for kind in ("real", "fake"):
                path = f"{split}/{generator}/{kind}/{number}.png"
                rows.append({"ImagePath": path, "Label": int(kind == "fake"), "GeneratorName": generator})
    draw_images(root, (str(row["ImagePath"]) for row in rows))
    write_csv(root / "index.csv", rows)


def deepfakebench(root: Path) -> None:
    content: dict[str, Any] = {}
    for name, letter in (("FF-real", "original"), ("FF-F2F", "manipulated"), ("FF-NT", "neural")):
        of_kind = content.setdefault(name, {})
        for split, number in each({"train": 4, "val": 2, "test": 2}):
            frames = [f"FaceForensics++\\{letter}\\c23\\frames\\{number:03d}\\{frame}.png" for frame in range(2)]
            draw_images(root, (frame.replace("\\", "/") for frame in frames))
            video = f"{number:03d}" if name == "FF-real" else f"{number:03d}_{number + 500}"
            of_kind.setdefault(split, {}).setdefault("c23", {})[video] = {"label": name, "frames": frames}
    (root / "FaceForensics++.json").write_text(json.dumps({"FaceForensics++": content}))


def trufor(root: Path) -> None:
    for split, number in each():
        fake, real = f"sd2-sp/hair drier/{number}_mask_bbox.png_sd2_0.png", f"orig/hair drier/{number}.png"
        mask = f"masks/hair drier/{number}_mask_bbox.png"
        draw_edit(root, str(number), fake, real=real, mask=mask)
        with (root / f"sd2-sp_{split}.txt").open("a") as file:
            file.write(f"{fake} {mask} 1\n{real} None 0\n")


# All of them ----------------------------------------------------------------------------------------------------------

_EDITED = {"lama": SPLIT_COUNTS}, {REAL: SPLIT_COUNTS}, {"fake": 14}
_OF_FORMATS = ("--accept-audit", "headers,pixels")  # real images are JPEG, fakes are PNG, as published
_SOURCE = ("--source-from", r"^(\d+)")

LAYOUTS: dict[str, Layout] = {
    "0_real and 1_fake": Layout(
        zero_and_one, "folders", dict.fromkeys(("biggan", "stargan"), SPLIT_COUNTS),
        dict.fromkeys(("biggan", "stargan"), SPLIT_COUNTS), {},
    ),
    "nature and ai (GenImage)": Layout(
        genimage, "folders", dict.fromkeys(("ADM", "Stable Diffusion V1.4"), (20, -1, 4)),
        dict.fromkeys(("ADM", "Stable Diffusion V1.4"), (20, -1, 4)), {}, launched=_OF_FORMATS,
        notes=("the validation folders are the test images, as in GenImage", "training images became validation"),
    ),
    "real and fake (Community Forensics)": Layout(
        real_and_fake, "folders", dict.fromkeys(("flux-dev", "stabilityai_sd"), SPLIT_COUNTS),
        dict.fromkeys(("flux-dev", "stabilityai_sd"), SPLIT_COUNTS), {},
    ),
    "categories below the generators": Layout(
        categories_below, "folders", dict.fromkeys(("cyclegan", "stylegan"), (6, 4, 4)),
        dict.fromkeys(("cyclegan", "stylegan"), (6, 4, 4)), {},
    ),
    "categories above the generators (DiffusionForensics)": Layout(
        diffusionforensics, "folders", {"adm": (12, 8, 8), "sdv1": (6, 4, 4), "pndm": (0, 0, 4)},
        {REAL: (12, 8, 8)}, {},
        notes=("the folders beside real were read as the generators", "reconstructions beside images/"),
    ),
    "shared reals; training, validation, testing": Layout(
        shared_reals, "folders", {"gan": SPLIT_COUNTS, "sd": SPLIT_COUNTS}, {REAL: SPLIT_COUNTS}, {},
        notes=("the folders in fake were read as the generators",),
    ),
    "shared reals in a folder of their own": Layout(
        reals_of_their_own_folder, "folders", {"mj": SPLIT_COUNTS, "sdxl": SPLIT_COUNTS}, {REAL: SPLIT_COUNTS}, {},
        notes=("the real images in laion are shared by all generators",),
    ),
    "CNNDetection's training tree beside its test tree": Layout(
        cnndetection, "folders", {"progan": (12, 9, 8), "biggan": (0, 0, 4), "san": (0, 0, 4)},
        {"progan": (12, 9, 8), "biggan": (0, 0, 4), "san": (0, 0, 4)}, {}, notes=("LSUN classes",),
    ),
    "UniversalFakeDetect beside a training tree": Layout(
        universalfakedetect, "folders",
        {"progan": (12, 9, 0), **dict.fromkeys(("biggan", "dalle", "guided", "ldm_200"), (0, 0, 4))},
        {"progan": (12, 9, 0), "biggan": (0, 0, 4), "guided": (0, 0, 4), "dalle+ldm_200": (0, 0, 4)}, {},
        notes=("laion: dalle, ldm_200", "only trained on, because they have no test images: progan"),
    ),
    "AIGIBench": Layout(
        aigibench, "folders", {"ProGAN": (16, 12, 4), "sdv1.4": (4, 3, 0), "FLUX1-dev": (0, 0, 4)},
        {"ProGAN": (16, 12, 4), "sdv1.4": (4, 3, 0), "FLUX1-dev": (0, 0, 4)}, {},
        notes=("only trained on, because they have no test images: sdv1.4",),
    ),
    "Dolos": Layout(
        lambda root: write_dolos(root, counts={"train": 6, "valid": 4, "test": 4}, size=SIDE), "dolos",
        {"lama": SPLIT_COUNTS, "ldm": SPLIT_COUNTS}, {REAL: SPLIT_COUNTS}, {"kept": 28},
    ),
    "Dolos' p2 and repaint-p2": Layout(
        lambda root: write_archive(root, {"train": 6, "valid": 4, "test": 4}, SIDE), "dolos",
        dict.fromkeys(("p2", "repaint-p2"), SPLIT_COUNTS), {REAL: SPLIT_COUNTS}, {"kept": 14},
        words=("--generators", "p2,repaint-p2"),
    ),
    "Dolos' ffhq": Layout(
        lambda root: write_archive(root, {"train": 6, "valid": 4, "test": 4}, SIDE), "dolos_ffhq",
        dict.fromkeys(("p2", "repaint-p2"), SPLIT_COUNTS), {REAL: SPLIT_COUNTS}, {"kept": 14},
        corpora=("--corpus", "dolos_ffhq"),
    ),
    **{f"list.{suffix}": Layout(whole_list(suffix), "manifest", *_EDITED)
       for suffix in ("csv", "tsv", "json", "jsonl", "parquet")},
    "IMDL-BenCo's pairs (BR-Gen)": Layout(
        br_gen, "manifest", dict.fromkeys(("LaMa", "MAT"), (20, -1, 4)), {REAL: (20, -1, 4)}, {"fake": 48},
        words=("--list", "br-gen_train.json,stuff_val.json,real_val.json", "--generator-from", "^([^_]+)_",
               "--source-from", "(COCO_[0-9]+)"),
        notes=("the list names no test images", "found without their first folders: home/clpbc"),
    ),
    "IMDL-BenCo's lists by name": Layout(
        benco_by_name, "manifest", {"CASIA": (6, 4, 0), "Columbia": (0, 0, 4)},
        {REAL: (6, 4, 0), "Columbia": (0, 0, 4)}, {"fake": 14},
        words=("--list", "CASIA_train.json,CASIA_valid.json,test_datasets.json"),
    ),
    "ForensicHub": Layout(
        forensichub, "manifest", {"diffusion": SPLIT_COUNTS}, {REAL: SPLIT_COUNTS}, {},
        words=("--list", "diffusion_train.json,diffusion_val.json,diffusion_test.json"),
    ),
    **{f"Hugging Face metadata.{suffix}": Layout(
        hugging_face(suffix), "manifest", {"sd2": SPLIT_COUNTS}, {REAL: SPLIT_COUNTS}, {"fake": 14})
       for suffix in ("csv", "jsonl", "parquet")},
    "SAGI-D": Layout(
        sagi_d, "manifest", {"brushnet": (3, 2, 2), "brushnet-then-powerpaint": (3, 2, 2)}, {REAL: SPLIT_COUNTS},
        {"fake": 14}, notes=("the 14 originals of its fakes are the real images",),
    ),
    "CocoGlide beside a list": Layout(
        cocoglide, "manifest", {"lama": (6, 4, 0), "table": (0, 0, 4)}, {REAL: SPLIT_COUNTS}, {"fake": 14},
        words=("--list", "list.csv,CocoGlide/table.csv"), notes=("its images are only tested",),
    ),
    "Community Forensics' index.csv": Layout(
        community_forensics, "manifest", dict.fromkeys(("gen_a", "gen_b"), SPLIT_COUNTS),
        dict.fromkeys(("gen_a", "gen_b"), SPLIT_COUNTS), {},
    ),
    "DeepfakeBench": Layout(
        deepfakebench, "manifest", dict.fromkeys(("FF-F2F", "FF-NT"), (8, 4, 4)), {REAL: (8, 4, 4)}, {},
        notes=("FF-real is real",),
    ),
    "TruFor's lines": Layout(
        trufor, "manifest", {"sd2-sp": SPLIT_COUNTS}, {REAL: SPLIT_COUNTS}, {"fake": 14},
        words=("--list", "sd2-sp_train.txt,sd2-sp_val.txt,sd2-sp_test.txt", *_SOURCE),
    ),
}  # fmt: skip
