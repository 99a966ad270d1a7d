from __future__ import annotations

import hashlib
import os
import pickle
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from data import images
from data.images import BadImage, decode, probe, read_mask
from tests.corpora import picture, write_image


def refused(path: Path, words: str) -> None:
    """Both ways in refuse the file, in words that name a remedy and not the path."""
    for read in (decode, probe, read_mask):
        with pytest.raises(BadImage, match=words) as caught:
            read(path)
        assert str(path) not in str(caught.value)
        assert caught.value.remedy in str(caught.value)


def png_16_bit(path: Path, colour_type: int = 2) -> Path:
    """A 2 x 1 PNG with 16 bits per channel, which Pillow cannot write as RGB."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    channels = {0: 1, 2: 3}[colour_type]
    header = struct.pack(">IIBBBBB", 2, 1, 16, colour_type, 0, 0, 0)
    body = zlib.compress(b"\0" + b"\x12\x34" * 2 * channels)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b""))
    return path


@pytest.mark.parametrize("suffix", [".png", ".bmp"])
def test_rgb_comes_back_as_it_was_written(tmp_path: Path, suffix: str) -> None:
    pixels = picture("a")[:, :9]
    result = decode(write_image(tmp_path / f"a{suffix}", pixels))
    assert result.dtype == np.uint8
    assert result.shape == (16, 9, 3)
    assert result.flags.c_contiguous
    assert result.flags.writeable
    np.testing.assert_array_equal(result, pixels)


@pytest.mark.parametrize(("suffix", "options"), [(".jpg", {"quality": 90}), (".webp", {"lossless": True})])
def test_lossy_formats_are_read(tmp_path: Path, suffix: str, options: dict[str, object]) -> None:
    Image.fromarray(picture("a", 64)).save(tmp_path / f"a{suffix}", **options)
    assert np.abs(decode(tmp_path / f"a{suffix}").astype(int) - picture("a", 64)).mean() < 3


@pytest.mark.parametrize("mode", ["1", "L", "P"])
def test_one_bit_grey_and_palette_become_rgb_without_loss(tmp_path: Path, mode: str) -> None:
    image = Image.fromarray(picture("a")).convert(mode)
    image.save(tmp_path / "a.png")
    expected = np.array(image.convert("RGB"))
    np.testing.assert_array_equal(decode(tmp_path / "a.png"), expected)
    assert len(np.unique(expected)) > 1
    assert probe(tmp_path / "a.png").mode == mode


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_opaque_alpha_is_dropped_and_transparency_is_refused(tmp_path: Path, mode: str) -> None:
    image = Image.fromarray(picture("a")).convert(mode)
    image.save(tmp_path / "opaque.png")
    np.testing.assert_array_equal(decode(tmp_path / "opaque.png"), np.array(image.convert("RGB")))
    image.putpixel((3, 3), (0,) * (len(mode) - 1) + (254,))
    image.save(tmp_path / "clear.png")
    refused(tmp_path / "clear.png", "transparent")


def test_a_transparent_palette_entry_is_refused_only_when_a_pixel_uses_it(tmp_path: Path) -> None:
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, 255, 0, 0])
    image.save(tmp_path / "unused.png", transparency=0)
    np.testing.assert_array_equal(decode(tmp_path / "unused.png"), np.full((4, 4, 3), (255, 0, 0)))
    image.save(tmp_path / "used.png", transparency=1)
    refused(tmp_path / "used.png", "transparent")


def test_a_transparent_colour_of_an_rgb_picture_is_refused(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4), (1, 2, 3)).save(tmp_path / "a.png", transparency=(1, 2, 3))
    refused(tmp_path / "a.png", "transparent")


def test_cmyk_is_refused(tmp_path: Path) -> None:
    Image.new("CMYK", (8, 8)).save(tmp_path / "a.jpg")
    refused(tmp_path / "a.jpg", "CMYK")


@pytest.mark.parametrize("colour_type", [0, 2])
def test_16_bits_are_refused_although_pillow_reads_them(tmp_path: Path, colour_type: int) -> None:
    path = png_16_bit(tmp_path / "a.png", colour_type)
    with Image.open(path) as image:
        image.load()
    refused(path, "16 bits")


@pytest.mark.parametrize(("mode", "what"), [("I;16", "16 bits"), ("I", "16 bits"), ("F", "16 bits")])
def test_wide_pixels_in_other_formats_are_refused(tmp_path: Path, mode: str, what: str) -> None:
    Image.new(mode, (4, 4)).save(tmp_path / "a.tif")
    refused((tmp_path / "a.tif").rename(tmp_path / "a.png"), what)


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_deflate", "packbits"])
@pytest.mark.parametrize("mode", ["RGB", "L", "1", "P"])
def test_tiff_pictures_are_read_as_their_pixels(tmp_path: Path, mode: str, compression: str | None) -> None:
    image = Image.fromarray(picture("a")).convert(mode)
    for name in ("a.tif", "b.TIFF"):
        image.save(tmp_path / name, format="TIFF", compression=compression)
        assert (decode(tmp_path / name) == np.array(image.convert("RGB"))).all()
        assert probe(tmp_path / name).format == "TIFF"


def test_a_tiff_of_several_pages_or_cut_off_is_refused_and_a_turned_one_is_turned(tmp_path: Path) -> None:
    pages = [Image.fromarray(picture(name)) for name in "ab"]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    refused(tmp_path / "a.tif", "several pictures")
    pages[0].save(tmp_path / "b.tif")
    (tmp_path / "b.tif").write_bytes((tmp_path / "b.tif").read_bytes()[:300])
    refused(tmp_path / "b.tif", "")
    Image.new("CMYK", (4, 4)).save(tmp_path / "c.tif")
    refused(tmp_path / "c.tif", "CMYK")
    turned = Image.fromarray(picture("a")[:, :9])
    turned.save(tmp_path / "d.tif", tiffinfo={0x0112: 6})
    assert (decode(tmp_path / "d.tif") == np.rot90(picture("a")[:, :9], -1)).all()


@pytest.mark.parametrize("suffix", [".png", ".webp"])
def test_animations_are_refused(tmp_path: Path, suffix: str) -> None:
    frames = [Image.fromarray(picture(name)) for name in "ab"]
    frames[0].save(tmp_path / f"a{suffix}", save_all=True, append_images=frames[1:])
    refused(tmp_path / f"a{suffix}", "several pictures")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int) -> None:
    pixels = picture("a")[:, :9]
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    turned = pixels.swapaxes(0, 1) if orientation > 4 else pixels
    flips = {1: (), 2: (1,), 3: (0, 1), 4: (0,), 5: (), 6: (1,), 7: (0, 1), 8: (0,)}[orientation]
    np.testing.assert_array_equal(decode(tmp_path / "a.png"), np.flip(turned, flips))
    facts = probe(tmp_path / "a.png")
    assert (facts.height, facts.width) == turned.shape[:2]


@pytest.mark.parametrize("suffix", [".png", ".webp"])
def test_exif_data_without_sense_turn_nothing(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    Image.fromarray(picture("a")).save(path, exif=b"Exif\0\0nonsense and more of it", lossless=True)
    np.testing.assert_array_equal(decode(path), picture("a"))


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".webp"])
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(share=st.floats(0, 1, exclude_max=True))
def test_a_truncated_file_is_refused_unless_every_pixel_is_there(tmp_path: Path, suffix: str, share: float) -> None:
    path = write_image(tmp_path / f"whole{suffix}", picture("a"))
    cut = tmp_path / f"cut{suffix}"
    data = path.read_bytes()
    cut.write_bytes(data[: int(share * len(data))])
    try:
        pixels = decode(cut)
    except BadImage:
        return
    np.testing.assert_array_equal(pixels, decode(path))
    assert share * len(data) > len(data) - 32  # a PNG's last checksum and its end mark


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(data=st.binary(max_size=64), start=st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"BM", b"RIFF"]))
def test_bytes_that_are_no_picture_are_refused(tmp_path: Path, data: bytes, start: bytes) -> None:
    (tmp_path / "a.png").write_bytes(start + data)
    with pytest.raises(BadImage):
        probe(tmp_path / "a.png")


def test_a_file_that_cannot_be_opened_is_refused(tmp_path: Path) -> None:
    refused(tmp_path / "missing.png", "cannot be opened")
    (tmp_path / "empty.png").touch()
    refused(tmp_path / "empty.png", "empty")


# Side data and foreign content


def with_text(path: Path, *megabytes: int) -> Path:
    info = PngInfo()
    for number, size in enumerate(megabytes):
        info.add_itxt(f"workflow{number}", "x" * (size * 2**20), zip=True)
    Image.fromarray(picture("a")).save(path, pnginfo=info)
    return path


def test_a_sound_png_with_megabytes_of_text_or_of_a_colour_profile_is_read(tmp_path: Path) -> None:
    Image.fromarray(picture("a")).save(tmp_path / "profile.png", icc_profile=bytes(3 * 2**20))
    for path in (with_text(tmp_path / "text.png", 3, 3), tmp_path / "profile.png"):
        np.testing.assert_array_equal(decode(path), picture("a"))
        assert path.stat().st_size < 20_000  # packed, as a bomb would be


def test_text_that_unpacks_without_end_is_refused(tmp_path: Path) -> None:
    refused(with_text(tmp_path / "a.png", 33), "more than 32 MiB.*without them")


def test_the_damaged_chunk_of_a_png_is_named(tmp_path: Path) -> None:
    info = PngInfo()
    info.add_itxt("workflow", "x" * 1000)
    Image.fromarray(picture("a", 64)).save(tmp_path / "a.png", pnginfo=info)
    whole = (tmp_path / "a.png").read_bytes()

    def changed(kind: bytes, offset: int = 6) -> Path:
        content = bytearray(whole)
        content[whole.index(kind) + offset] ^= 255
        (tmp_path / "changed.png").write_bytes(content)
        return tmp_path / "changed.png"

    refused(changed(b"iTXt"), "side chunk with a wrong checksum .iTXt")
    refused(changed(b"IHDR"), "truncated or damaged .a chunk IHDR has a wrong checksum")
    refused(changed(b"IDAT", 50), "truncated or damaged .a chunk IDAT has a wrong checksum")
    (tmp_path / "cut.png").write_bytes(whole[: whole.index(b"IDAT") + 20])
    refused(tmp_path / "cut.png", "truncated or damaged .the file ends within a chunk IDAT")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 123\n", "Git LFS pointer.*`git lfs pull`"),
        (b"\n<!DOCTYPE html><html><body>404</body></html>", "web page saved as a picture"),
        (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "web page saved as a picture"),
        (b'<?xml version="1.0"?><svg width="8"></svg>', "SVG file"),
        (b'{"message": "Not Found"}', "text file"),
        (bytes(4096), "zero bytes"),
        (b"PK\x03\x04 and more", "ZIP archive.*unpack it"),
        (b"\x93NUMPY\x01\x00", "NumPy array"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC file.*convert it to PNG"),
        (b"\0\0\0\x18ftypqt  \0\0\0\0", "film or other ISO media file"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL file"),
    ],
)
def test_what_is_no_picture_is_called_by_its_name(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "a.png").write_bytes(content)
    refused(tmp_path / "a.png", words)


@pytest.mark.parametrize("name", ["GIF", "AVIF", "PDF", "JPEG2000"])
def test_another_format_under_the_name_of_a_png_is_named(tmp_path: Path, name: str) -> None:
    Image.fromarray(picture("a")).save(tmp_path / "a.png", format=name)
    refused(tmp_path / "a.png", f"{name.replace('2000', ' 2000')} file, not a PNG.*convert it to PNG")


def test_of_a_phones_photograph_with_a_second_picture_the_first_is_read(tmp_path: Path) -> None:
    first, second = (Image.fromarray(picture(name)) for name in "ab")
    first.save(tmp_path / "plain.jpg", quality=90)
    first.save(tmp_path / "phone.jpg", format="MPO", save_all=True, append_images=[second], quality=90)
    with Image.open(tmp_path / "phone.jpg") as image:
        assert (image.format, image.n_frames) == ("MPO", 2)
    np.testing.assert_array_equal(decode(tmp_path / "phone.jpg"), decode(tmp_path / "plain.jpg"))
    facts = [probe(tmp_path / name) for name in ("phone.jpg", "plain.jpg")]
    assert facts[0].format == facts[1].format == "JPEG"
    assert facts[0].quantisation == facts[1].quantisation != ""


def test_bombs_are_refused_before_they_are_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_image(tmp_path / "a.png", picture("a"))
    monkeypatch.setattr(images, "MAX_PIXELS", 16 * 16 - 1)
    monkeypatch.setattr(images, "_to_rgb", lambda image: pytest.fail("decoded"))
    refused(path, "million pixels")


def test_pillows_own_alarm_about_bombs_is_a_refusal_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_image(tmp_path / "a.png", picture("a"))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    refused(path, "million pixels")


def test_a_name_that_lies_is_read_and_reported(tmp_path: Path) -> None:
    Image.fromarray(picture("a")).save(tmp_path / "a.png", format="JPEG")
    facts = probe(tmp_path / "a.png")
    assert (facts.format, facts.width, facts.height, facts.mode) == ("JPEG", 16, 16, "RGB")
    assert facts.digest == hashlib.sha256((tmp_path / "a.png").read_bytes()).hexdigest()
    assert images.file_digest(tmp_path / "a.png") == facts.digest


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA"])
def test_a_mask_is_true_where_the_file_is_black(tmp_path: Path, mode: str) -> None:
    grey = np.full((4, 6), 255, dtype=np.uint8)
    grey[1:3, 2:5] = 0
    Image.fromarray(grey).convert(mode).save(tmp_path / "m.png")
    mask = read_mask(tmp_path / "m.png")
    assert mask.dtype == bool
    np.testing.assert_array_equal(mask, grey == 0)


def test_every_value_below_white_is_fake_as_the_authors_of_dolos_read_masks(tmp_path: Path) -> None:
    grey = np.array([[0, 1, 127, 128, 254, 255]], dtype=np.uint8)
    for name in ("m.png", "m.bmp"):
        write_image(tmp_path / name, grey)
        assert read_mask(tmp_path / name).tolist() == [[True, True, True, True, True, False]]
    write_image(tmp_path / "c.png", np.array([[[0, 0, 255], [0, 255, 0], [255, 255, 255]]], dtype=np.uint8))
    assert read_mask(tmp_path / "c.png").tolist() == [[True, True, False]]


@pytest.mark.parametrize("name", ["m.jpg", "m.webp", "m.png"])
def test_a_mask_of_a_lossy_format_is_cut_at_128_whatever_its_name(tmp_path: Path, name: str) -> None:
    rng = np.random.default_rng(0)
    grey = np.full((32, 32), 250, dtype=np.uint8)
    grey[8:24, 8:24] = 5
    grey = (grey + rng.integers(-5, 6, grey.shape)).astype(np.uint8)
    Image.fromarray(grey).save(tmp_path / name, format="WEBP" if name == "m.webp" else "JPEG", quality=95)
    np.testing.assert_array_equal(read_mask(tmp_path / name), grey < 128)


def test_the_error_survives_pickling() -> None:
    error = pickle.loads(pickle.dumps(BadImage("broken", "mend it", "at 3")))
    assert (error.what, error.remedy, error.detail, str(error)) == (
        "broken",
        "mend it",
        "at 3",
        "broken (at 3): mend it",
    )


def test_a_pipe_is_no_picture_and_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(BadImage, match="not a file"):
        probe(tmp_path / "pipe.png")
