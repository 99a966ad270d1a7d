"""What is wrong with a file that is no sound picture, read off its bytes."""

from __future__ import annotations

import struct
import zlib
from io import BufferedReader

READ = "PNG, JPEG, BMP, WebP or TIFF"
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
START = 512  # bytes at a file's start that `not_a_picture` needs
DAMAGED = "truncated or damaged"
FETCH_AGAIN = "fetch the file again"

_CONVERT = "convert it to PNG, the same way for real and fake"
_TEXT = bytes({7, 8, 9, 10, 12, 13, 27, *range(0x20, 0x7F)})
_PICTURES = {
    b"GIF8": "GIF",
    b"II+\0": "BigTIFF",
    b"MM\0+": "BigTIFF",
    b"\xff\x0a": "JPEG XL",
    b"\0\0\0\x0cJXL ": "JPEG XL",
    b"\0\0\0\x0cjP  ": "JPEG 2000",
    b"\xff\x4f\xff\x51": "JPEG 2000",
    b"8BPS": "Photoshop",
    b"%PDF": "PDF",
    b"\0\0\1\0": "icon",
    b"\x76\x2f\x31\x01": "OpenEXR",
    b"#?RADIANCE": "Radiance HDR",
    b"DDS ": "DDS",
    b"qoif": "QOI",
    **{b"P%d%s" % (number, end): "PNM" for number in range(1, 8) for end in (b"\n", b" ", b"\r", b"\t")},
}
_BRANDS = {b"avif": "AVIF", b"avis": "AVIF"} | dict.fromkeys(
    (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"), "HEIC"
)
_ARCHIVES = {b"PK\3\4": "ZIP", b"\x1f\x8b": "gzip", b"7z\xbc\xaf": "7z", b"Rar!": "RAR", b"\xfd7zXZ": "xz"}


def not_a_picture(start: bytes) -> tuple[str, str] | None:
    """What the file is and what to do about it, if its first `START` bytes are those of something else than a picture.

    None: they may be those of a PNG, JPEG, BMP, WebP or TIFF picture.
    """
    text = start.lstrip().lower()
    if not start:
        return "empty file", FETCH_AGAIN
    if not start.strip(b"\0"):
        return "zero bytes in place of a picture", FETCH_AGAIN
    if start.startswith(b"version https://git-lfs"):
        return "Git LFS pointer, not the picture itself", "run `git lfs pull` in the repository that it came from"
    if b"<svg" in text and text.startswith((b"<svg", b"<?xml", b"<!doctype svg")):
        return f"SVG file, not a {READ} picture", _CONVERT
    if text.startswith((b"<!doctype", b"<html", b"<head", b"<body", b"<?xml", b"<error")):
        return "web page saved as a picture", f"{FETCH_AGAIN}: the server answered with an error or a page"
    for names, what, remedy in (
        (_PICTURES, f"file, not a {READ} picture", _CONVERT),
        (_ARCHIVES, "archive, not a picture", "unpack it"),
        ({b"\x93NUMPY": "NumPy"}, f"array, not a {READ} picture", _CONVERT),
    ):
        for signature, name in names.items():
            if start.startswith(signature):
                return f"{name} {what}", remedy
    if start[4:8] == b"ftyp":
        name = _BRANDS.get(start[8:12], "film or other ISO media")
        return f"{name} file, not a {READ} picture", _CONVERT
    if not start.startswith(b"BM") and not start.translate(None, _TEXT):
        return "text file, not a picture", FETCH_AGAIN
    return None


def png_damage(file: BufferedReader) -> tuple[str, str, str] | None:
    """(what, remedy, detail) of the first damaged chunk of a PNG file; None if all chunks are sound."""
    file.seek(len(PNG_SIGNATURE))
    while True:
        head = file.read(8)
        if len(head) < 8:
            return DAMAGED, FETCH_AGAIN, "the file ends before its end mark"
        length, kind = struct.unpack(">I4s", head)
        if not (kind.isascii() and kind.isalpha()):
            return DAMAGED, FETCH_AGAIN, f"no chunk begins at byte {file.tell() - 8}"
        body, checksum = file.read(length), file.read(4)
        name = kind.decode()
        if len(body) < length or len(checksum) < 4:
            return DAMAGED, FETCH_AGAIN, f"the file ends within a chunk {name}"
        if zlib.crc32(kind + body) != int.from_bytes(checksum, "big"):
            if kind[0] & 0x20:  # a small first letter: a decoder does not need the chunk
                remedy = f"{FETCH_AGAIN}, or save it again without its text and other side chunks"
                return "side chunk with a wrong checksum", remedy, f"{name}; the pixels are elsewhere in the file"
            return DAMAGED, FETCH_AGAIN, f"a chunk {name} has a wrong checksum"
        if kind == b"IEND":
            return None
