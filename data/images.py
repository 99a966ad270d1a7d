"""Reading picture files: what is accepted, what is refused, and what a mask means."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

OVERLAY = ".cam.png"  # how the names of Grad-CAM overlays end, which are written beside pictures and are none
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
MAX_PIXELS = 64_000_000  # decompression bombs: 8000 x 8000 and not more

_FORMATS = ("PNG", "JPEG", "BMP", "WEBP")
_OPAQUE_MODES = ("1", "L", "P", "RGB")
_ALPHA_MODES = ("LA", "La", "PA", "RGBA", "RGBa")
_ORIENTATION = 0x0112  # EXIF tag
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_FETCH_AGAIN = "fetch the file again"


class BadImage(ValueError):
    """A picture file that is refused. The message says what is wrong and what to do, and leaves out the path.

    Attributes:
        what: what is wrong, the same words for every file with the same trouble.
        remedy: what to do about it.
        detail: what differs from file to file; may be empty.
    """

    def __init__(self, what: str, remedy: str, detail: str = "") -> None:
        super().__init__(what, remedy, detail)  # all of them, so that the error can be pickled
        self.what, self.remedy, self.detail = what, remedy, detail

    def __str__(self) -> str:
        return f"{self.what}{f' ({self.detail})' if self.detail else ''}: {self.remedy}"


@dataclass(frozen=True)
class ImageFacts:
    """What is known about one picture file.

    Attributes:
        digest: SHA-256 of the file's bytes, 64 hexadecimal digits.
        width, height: pixels, as a person sees the picture (after EXIF orientation).
        format: what the file really is, whatever its name says: "PNG", "JPEG", "BMP" or "WEBP".
        mode: Pillow's name of the pixel type on disk, such as "RGB", "L" or "P".
        quantisation: of a JPEG, 8 hexadecimal digits that stand for its quantisation tables and so for the quality it
            was saved with; else empty.
    """

    digest: str
    width: int
    height: int
    format: str
    mode: str
    quantisation: str = ""


def file_digest(path: Path) -> str:
    """SHA-256 of the file's bytes, 64 hexadecimal digits. Raises `OSError` when it cannot be read."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def decode(path: Path) -> np.ndarray:
    """The picture as a person sees it: uint8 (H, W, 3), RGB, C-contiguous.

    Palette, 1-bit and grey pictures become RGB without loss, a fully opaque alpha channel is dropped, EXIF orientation
    is applied, and a colour profile is ignored (the samples are taken as they are).

    Raises:
        BadImage: unreadable or truncated; CMYK, 16-bit, float, transparent or animated; more than `MAX_PIXELS`.
    """
    with _opened(path) as file:
        return _decode(file)


def read_mask(path: Path) -> np.ndarray:
    """A mask as bool (H, W), **True where the image is fake**.

    On disk it is the other way round: white (255) is unchanged, black (0) is fake; a luminance under 128 is fake.

    Raises:
        BadImage: as for `decode`.
    """
    return np.asarray(Image.fromarray(decode(path)).convert("L")) < 128


def probe(path: Path) -> ImageFacts:
    """Digest, size and real format of a picture file, which is decoded to the end so that truncation is found.

    Raises:
        BadImage: as for `decode`.
    """
    with _opened(path) as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        file.seek(0)
        header: dict[str, str] = {}
        pixels = _decode(file, header)
    return ImageFacts(digest, pixels.shape[1], pixels.shape[0], **header)


def _opened(path: Path) -> BufferedReader:
    try:
        return Path(path).open("rb")
    except OSError as error:
        raise BadImage("cannot be opened", "check that it exists and may be read", error.strerror or "") from error


def _decode(file: BufferedReader, facts: dict[str, str] | None = None) -> np.ndarray:
    """An open file at its start -> uint8 (H, W, 3). What the header tells is written into `facts`."""
    start = file.read(32)
    file.seek(0)
    if not start:
        raise BadImage("empty file", _FETCH_AGAIN)
    try:
        with Image.open(file, formats=_FORMATS) as image:
            _refuse(image, start)
            if facts is not None:
                tables = getattr(image, "quantization", None)
                quantisation = hashlib.sha256(repr(sorted(tables.items())).encode()).hexdigest()[:8] if tables else ""
                facts.update(format=image.format or "", mode=image.mode, quantisation=quantisation)
            return _to_rgb(image)
    except BadImage:
        raise
    except UnidentifiedImageError as error:
        names = "PNG, JPEG, BMP or WebP"
        raise BadImage(f"not a {names} picture, or its header is broken", f"{_FETCH_AGAIN} or convert it") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_large() from error
    except Exception as error:  # decoders raise OSError, SyntaxError, ValueError, struct.error and more
        raise BadImage("truncated or damaged", _FETCH_AGAIN, str(error)) from error


def _refuse(image: Image.Image, start: bytes) -> None:
    """Everything that the header tells, before a pixel is decoded."""
    if image.width * image.height > MAX_PIXELS:
        raise _too_large(f"{image.width} x {image.height}")
    if getattr(image, "n_frames", 1) > 1:
        raise BadImage("animated, or several pictures in one file", "save one of them as a picture of its own")
    # Pillow opens 16-bit RGB files as 8-bit and drops the low bits without a word, so the file's own header is asked.
    if start.startswith(_PNG_SIGNATURE) and start[12:16] == b"IHDR" and start[24] > 8:
        raise BadImage("16 bits a channel", "convert it to 8 bits, the same way for real and fake")
    if image.mode == "CMYK":
        raise BadImage("CMYK colours", "convert it to RGB with its colour profile")
    if image.mode not in _OPAQUE_MODES + _ALPHA_MODES:
        raise BadImage(f"pixels of type {image.mode}", "convert it to 8-bit RGB, the same way for real and fake")


def _to_rgb(image: Image.Image) -> np.ndarray:
    image.load()
    with suppress(SyntaxError):  # EXIF data that make no sense turn nothing, here as in any viewer
        if image.getexif().get(_ORIENTATION, 1) != 1:
            image = ImageOps.exif_transpose(image)
    if image.mode in _ALPHA_MODES or "transparency" in image.info:
        image = image.convert("RGBA")
        if np.asarray(image.getchannel("A")).min() < 255:
            raise BadImage("transparent pixels", "put it on the background that it was made for and save it as RGB")
    return np.array(image.convert("RGB"))


def _too_large(detail: str = "") -> BadImage:
    return BadImage(f"more than {MAX_PIXELS // 1_000_000} million pixels", "shrink it or leave it out", detail)
