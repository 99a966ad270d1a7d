"""Reading picture files: accepted formats, refused files, and the meaning of masks."""

from __future__ import annotations

import hashlib
import os
import stat
from contextlib import suppress
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, PngImagePlugin, UnidentifiedImageError
from PIL.JpegImagePlugin import JpegImageFile, get_sampling
from PIL.TiffImagePlugin import TiffImageFile

from data.damage import DAMAGED, FETCH_AGAIN, PNG_SIGNATURE, READ, START, not_a_picture, png_damage
from data.sources.base import WHITE_KEPT

OVERLAY = ".cam.png"  # suffix of Grad-CAM overlays, which are written beside pictures and are not part of a data set
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff")
# Pictures in formats that are not read. They are left aside, but not in silence as other files are.
OTHER_SUFFIXES = (
    ".gif", ".avif", ".jfif", ".jpe", ".heic", ".heif", ".jxl", ".jp2", ".j2k", ".jpx", ".ppm", ".pgm",
    ".pnm", ".tga", ".psd", ".exr", ".hdr", ".dng",
)  # fmt: skip
MAX_PIXELS = 64_000_000  # 8000 x 8000; larger pictures may be decompression bombs
# Bytes of one text or colour profile of a PNG, unpacked. Pillow's own limit of 1 MiB refuses sound pictures that carry
# a workflow; its limit of 64 MiB for all texts of a file stays.
MAX_TEXT = 32 * 2**20

# Increase it when `read_mask` gives other masks than before; 1: below 128 was fake in every file. Methods that learn
# from masks do not have it in their configuration, and then need another key too.
MASK_VERSION = 2
MASK_RULE = (
    "A pixel counts as fake where its mask is not white: below 255, and below 128 in a JPEG or WebP. Of a corpus whose "
    "masks are white where the image is fake, a pixel counts as fake from 128 on."
)

_WHITE, _LOSSY_WHITE = 255, 128
_LOSSY_FORMATS = ("JPEG", "WEBP")
_FORMATS = ("PNG", "BMP", "WEBP", "TIFF")  # beside JPEG
_JPEG = b"\xff\xd8"
_OPAQUE_MODES = ("1", "L", "P", "RGB")
_ALPHA_MODES = ("LA", "La", "PA", "RGBA", "RGBa")
_ORIENTATION = 0x0112  # EXIF tag
_BITS = 258  # TIFF tag: bits per sample
_SUBSAMPLINGS = {0: "4:4:4", 1: "4:2:2", 2: "4:2:0"}  # Pillow's number -> the usual name
# Entries of Pillow's `info` that are the colour profile, details of another entry, or the same in all files of a format
_NO_METADATA = {
    "icc_profile", "jfif_version", "jfif_unit", "jfif_density", "adobe_transform", "progression", "mpoffset", "mptype",
    "loop", "background", "timestamp", "duration", "default_image", "bbox",
}  # fmt: skip
_MOST_NAMES, _LONGEST_NAME = 20, 40


class BadImage(ValueError):
    """A refused picture file. The message says what is wrong and what to do, without the path.

    Attributes:
        what: the problem, in the same words for every file that has it.
        remedy: what to do about it.
        detail: details of this file; may be empty.
    """

    def __init__(self, what: str, remedy: str, detail: str = "") -> None:
        super().__init__(what, remedy, detail)  # all arguments, so that the error can be pickled
        self.what, self.remedy, self.detail = what, remedy, detail

    def __str__(self) -> str:
        return f"{self.what}{f' ({self.detail})' if self.detail else ''}: {self.remedy}"


@dataclass(frozen=True)
class ImageFacts:
    """Facts about one picture file.

    Attributes:
        digest: SHA-256 of the file's bytes, 64 hexadecimal digits.
        width, height: pixels, after EXIF orientation.
        format: the format of the content, whatever the file's name: "PNG", "JPEG", "BMP", "WEBP" or "TIFF".
        mode: Pillow's name of the pixel type on disk, such as "RGB", "L" or "P".
        quantisation: 8 hexadecimal digits of a hash of a JPEG's quantisation tables, which depend on the quality it
            was saved with; empty for other formats.
        num_bytes: size of the file.
        profile: 8 hexadecimal digits of a hash of the colour profile (ICC); empty without one.
        metadata: names of what else the file carries, in alphabetical order: "exif", "xmp", "dpi", "jfif",
            "progressive", the subsampling of a JPEG, the keyword of each text of a PNG; empty if there is nothing.
    """

    digest: str
    width: int
    height: int
    format: str
    mode: str
    quantisation: str = ""
    num_bytes: int = 0
    profile: str = ""
    metadata: str = ""


def file_digest(path: Path) -> str:
    """SHA-256 of the file's bytes, 64 hexadecimal digits. Raises `OSError` if the file cannot be read."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def decode(path: Path) -> np.ndarray:
    """Decode a picture: uint8 (H, W, 3), RGB, C-contiguous.

    Palette, 1-bit and grey pictures become RGB without loss. A fully opaque alpha channel is dropped. EXIF orientation
    is applied. A colour profile is ignored: the samples are not changed. Of a JPEG file that holds a second picture
    (MPO, as phones write it), the first is taken.

    Raises:
        BadImage: unreadable, damaged or no picture; CMYK, 16-bit, float, transparent or animated; more than
            `MAX_PIXELS`, or a text of more than `MAX_TEXT`.
    """
    with _opened(path) as file:
        return np.array(_decode(file)[0])


def read_mask(path: Path, *, white: str = WHITE_KEPT, size: tuple[int, int] | None = None) -> np.ndarray:
    """Read a mask: bool (H, W), **True where the image is fake**.

    Args:
        path: the mask's file.
        white: what white means; see `fake_levels`.
        size: (width, height) of the image; a mask of another size is resized to it, nearest pixel. None: its own.

    Raises:
        BadImage: as for `decode`.
    """
    with _opened(path) as file:
        picture, header = _decode(file)
    grey = picture.convert("L")
    fake = fake_levels(white, header["format"], int(np.asarray(grey).max()))
    mask: np.ndarray = fake[np.asarray(grey if size is None else fitted(grey, size))]
    return mask


def fake_levels(white: str, file_format: str, highest: int) -> np.ndarray:
    """Which luminances of a mask mean fake: bool (256,).

    White means kept in Dolos, as in its authors' loader (github.com/bit-ml/dolos): any luminance below 255 is fake. In
    a JPEG or WebP, whose white is not exact, a luminance below 128 is fake. In nearly all other corpora white means
    fake: a luminance of 128 or more is fake. Some save such masks with the levels 0 and 1; then 1 is fake.

    Args:
        white: `WHITE_KEPT` or `WHITE_FAKE`.
        file_format: as in `ImageFacts`.
        highest: the highest luminance of the mask.
    """
    levels = np.arange(256)
    if white == WHITE_KEPT:
        return levels < white_from(file_format)
    return levels >= (1 if highest == 1 else _LOSSY_WHITE)


def fits(mask: tuple[int, int], image: tuple[int, int]) -> bool:
    """Whether a mask has the shape of its image, so that it can be resized to it; both as (width, height).

    One pixel more or less, of the smaller picture, is rounding.
    """
    small, large = sorted((mask, image))
    return abs(large[1] * small[0] / large[0] - small[1]) <= 1 or abs(large[0] * small[1] / large[1] - small[0]) <= 1


def fitted(mask: Image.Image, size: tuple[int, int]) -> Image.Image:
    """A mask in the size (width, height) of its image, by the nearest pixel; a mask of that size is not changed."""
    return mask if mask.size == size else mask.resize(size, Image.Resampling.NEAREST)


def white_from(file_format: str) -> int:
    """The luminance in a mask from which on a pixel counts as unchanged; the format as in `ImageFacts`."""
    return _LOSSY_WHITE if file_format in _LOSSY_FORMATS else _WHITE


def probe(path: Path) -> ImageFacts:
    """Facts about a picture file. All of it is decoded, so that a truncated file is found.

    Raises:
        BadImage: as for `decode`.
    """
    return read(path)[0]


def read(path: Path) -> tuple[ImageFacts, Image.Image]:
    """(facts about a picture file, its picture in mode RGB). Errors as in `decode`."""
    with _opened(path) as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        file.seek(0)
        picture, header = _decode(file)
        num_bytes = os.fstat(file.fileno()).st_size
    return ImageFacts(digest, picture.width, picture.height, num_bytes=num_bytes, **header), picture


def _opened(path: Path) -> BufferedReader:
    try:
        if not stat.S_ISREG(Path(path).stat().st_mode):  # reading a pipe or a device may never end
            raise BadImage("not a file", "give the picture's file")
        return Path(path).open("rb")
    except OSError as error:
        raise BadImage("cannot be opened", "check that it exists and may be read", error.strerror or "") from error


def _decode(file: BufferedReader) -> tuple[Image.Image, dict[str, str]]:
    """An open file, from its start -> its picture in mode RGB, and the facts in its header."""
    start = file.read(START)
    file.seek(0)
    if other := not_a_picture(start):
        raise BadImage(*other)
    try:
        with _opened_image(file, start) as image:
            _refuse(image, start)
            tables = getattr(image, "quantization", None)
            header = {
                "format": image.format or "",
                "mode": image.mode,
                "quantisation": _short_digest(repr(sorted(tables.items())).encode()) if tables else "",
            }
            pixels = _to_rgb(image)  # a PNG may have texts and EXIF data behind its pixels
            header |= {"profile": _short_digest(image.info.get("icc_profile")), "metadata": _metadata(image)}
            return pixels, header
    except (BadImage, MemoryError):
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_large() from error
    except Exception as error:  # decoders raise OSError, SyntaxError, ValueError, struct.error and more
        raise _damage(file, start, error) from error


def _opened_image(file: BufferedReader, start: bytes) -> Image.Image:
    if start.startswith(_JPEG):
        # `Image.open` takes a phone's photograph with a second picture behind it (MPO) for an animation. This
        # reads the first picture, which is the photograph.
        return JpegImageFile(file)
    PngImagePlugin.MAX_TEXT_CHUNK = MAX_TEXT
    return Image.open(file, formats=_FORMATS)


def _damage(file: BufferedReader, start: bytes, error: Exception) -> BadImage:
    """The refusal of a file of which a decoder raised this error."""
    if "MAX_TEXT" in str(error):
        what = f"a text or colour profile of more than {MAX_TEXT // 2**20} MiB, or more than 64 MiB of them together"
        return BadImage(what, "save it again without them, the same way for real and fake")
    damage = png_damage(file) if start.startswith(PNG_SIGNATURE) else None
    if damage is not None:
        return BadImage(*damage)
    if isinstance(error, UnidentifiedImageError) or (isinstance(error, SyntaxError) and start.startswith(_JPEG)):
        return BadImage(f"not a {READ} picture, or its header is broken", f"{FETCH_AGAIN} or convert it")
    return BadImage(DAMAGED, FETCH_AGAIN, str(error))


def _refuse(image: Image.Image, start: bytes) -> None:
    """Refuse a picture for what its header says, before any pixel is decoded."""
    if image.width * image.height > MAX_PIXELS:
        raise _too_large(f"{image.width} x {image.height}")
    if (frames := getattr(image, "n_frames", 1)) > 1:
        what, remedy = "animated, or several pictures in one file", "save one of them as a picture of its own"
        raise BadImage(what, remedy, f"{frames} pictures")
    # Pillow opens 16-bit RGB files as 8-bit and silently drops the low bits, so this reads the file's header.
    bits = image.tag_v2.get(_BITS, (1,)) if isinstance(image, TiffImageFile) else (1,)
    if max(bits) > 8 or (start.startswith(PNG_SIGNATURE) and start[12:16] == b"IHDR" and start[24] > 8):
        raise BadImage("16 bits per channel", "convert it to 8 bits, the same way for real and fake")
    if image.mode == "CMYK":
        raise BadImage("CMYK colours", "convert it to RGB with its colour profile")
    if image.mode not in _OPAQUE_MODES + _ALPHA_MODES:
        raise BadImage(f"pixels of type {image.mode}", "convert it to 8-bit RGB, the same way for real and fake")


def _short_digest(content: bytes | None) -> str:
    return hashlib.sha256(content).hexdigest()[:8] if content else ""


def _metadata(image: Image.Image) -> str:
    """`ImageFacts.metadata` of a picture that is loaded."""
    names = {str(name) for name in image.info} - _NO_METADATA
    if isinstance(image, JpegImageFile) and (subsampling := _SUBSAMPLINGS.get(get_sampling(image))):
        names.add(f"subsampling {subsampling}")
    shown = ["".join(letter if letter.isprintable() else "?" for letter in name) for name in sorted(names)]
    return ", ".join(name[:_LONGEST_NAME] for name in shown[:_MOST_NAMES])


def _to_rgb(image: Image.Image) -> Image.Image:
    image.load()
    with suppress(SyntaxError):  # invalid EXIF data are ignored, as in any viewer
        if image.getexif().get(_ORIENTATION, 1) != 1:
            image = ImageOps.exif_transpose(image)
    if image.mode in _ALPHA_MODES or "transparency" in image.info:
        image = image.convert("RGBA")
        if np.asarray(image.getchannel("A")).min() < 255:
            raise BadImage("transparent pixels", "put it on the background that it was made for and save it as RGB")
    return image.convert("RGB")


def _too_large(detail: str = "") -> BadImage:
    return BadImage(f"more than {MAX_PIXELS // 1_000_000} million pixels", "shrink it or leave it out", detail)
