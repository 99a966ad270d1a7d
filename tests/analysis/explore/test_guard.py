"""Who the page of `explore` answers to, and what it never gives away."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import struct
import zlib
from pathlib import Path

import pytest
from PIL import Image

from analysis.explore.app import MAX_BYTES
from analysis.explore.pictures import Album, Kept
from analysis.explore.refusals import Refused
from analysis.explore.scores import Images
from analysis.store import Store
from data.manifest import Manifest
from tests.analysis.explore.server import TOKEN, Client

ADDRESSES = ("/", "/static/main.js", "/api/grid", "/thumbnail/0", "/picture/0", "/mask/1", "/api/photograph/0")


# The token -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("address", ADDRESSES)
@pytest.mark.parametrize("cookie", ["", "explore-{port}=", "explore-{port}=wrong", "explore-1=" + TOKEN, "é", ";;="])
def test_without_the_token_nothing_is_shown(page: Client, address: str, cookie: str) -> None:
    answer = page.send(address, headers={"Cookie": cookie.format(port=page.port)})
    assert answer.status == 403
    assert b"Open the address that the command printed" in answer.body
    assert len(answer.body) < 200


@pytest.mark.parametrize("token", ["", "wrong", TOKEN + "x", TOKEN[:-1], "%C3%A9", "%00"])
def test_a_wrong_token_gets_no_cookie(page: Client, token: str) -> None:
    answer = page.send(f"/?token={token}", headers={"Cookie": ""})
    assert answer.status == 403
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize("site", ["none", "same-origin", "cross-site"])  # as from a terminal in a browser
def test_the_token_becomes_a_cookie_and_leaves_the_address(page: Client, site: str) -> None:
    answer = page.send(f"/?token={TOKEN}", headers={"Cookie": "", "Sec-Fetch-Site": site})
    assert answer.status == 200
    assert b'content="0; url=/"' in answer.body
    assert TOKEN.encode() not in answer.body
    cookie, *attributes = answer.headers["set-cookie"].split("; ")
    assert {"HttpOnly", "Path=/", "SameSite=strict"} <= set(attributes)
    assert page.send("/", headers={"Cookie": cookie}).status == 200


def test_the_token_opens_nothing_but_the_entry(page: Client) -> None:
    for address in ADDRESSES[1:]:
        assert page.send(f"{address}?token={TOKEN}", headers={"Cookie": ""}).status == 403
    assert page.send(f"/?token={TOKEN}", method="POST", body=b"", headers={"Cookie": ""}).status == 403


# Other sites ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "0.0.0.0", "[::ffff", ""]
)
def test_another_name_for_this_machine_is_refused(page: Client, host: str) -> None:
    for address in (*ADDRESSES, f"/?token={TOKEN}"):
        assert page.send(address, headers={"Host": host}).status == 421


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:9999", "[::1]:80", "LOCALHOST:1"])
def test_a_tunnel_may_use_any_port(page: Client, host: str) -> None:
    assert page.send("/", headers={"Host": host}).status == 200


@pytest.mark.parametrize(
    "headers", [{"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}, {"Origin": "http://evil.example"},
                {"Origin": "null"}, {"Origin": "http://127.0.0.1:1"}],
)  # fmt: skip
def test_another_site_cannot_use_the_cookie(page: Client, headers: dict[str, str]) -> None:
    assert page.send("/thumbnail/0", headers=headers).status == 403
    assert page.send("/api/score/run", method="POST", body=b"x", headers=headers).status == 403


def test_every_answer_forbids_scripts_and_frames_of_others(page: Client) -> None:
    answers = [page.get(address) for address in (*ADDRESSES, "/no/such/page")]
    answers += [page.send("/", headers={"Cookie": ""}), page.send("/", headers={"Host": "evil.example"})]
    for answer in answers:
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'; script-src 'self';" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        assert not [name for name in answer.headers if name.startswith("access-control")]
        assert "server" not in answer.headers


# Paths ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "/static/../app.py", "/static/..%2fapp.py", "/static/%2e%2e%2fapp.py", "/static/..%5capp.py",
        "/static//etc/passwd", "/static/%2fetc%2fpasswd", "/../../../etc/passwd", "//etc/passwd", "/static/",
        "/static/%00", "/thumbnail/../../etc/passwd", "/thumbnail/..%2f..%2fetc%2fpasswd", "/thumbnail/%2e%2e",
        "/picture/celebahq%2freal%2ftest%2f00016.png", "/mask/-1", "/map/..%2f..%2fetc/0", "/map/..%2f../0",
        "/api/maps/..%2f..%2fetc", "/api/points/..%2f..%2f..%2fmlflow.db",
    ],
)  # fmt: skip
def test_no_path_leads_to_a_file(page: Client, path: str) -> None:
    answer = page.send(path)
    assert answer.status in (400, 404)
    assert b"root:" not in answer.body
    assert b"import" not in answer.body


def test_a_picture_outside_the_data_folder_is_not_read(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "PNG")
    names = ["inside.png", "../outside.png", str(tmp_path / "outside.png"), "link.png"]
    (folder / "inside.png").write_bytes(buffer.getvalue())
    (tmp_path / "outside.png").write_bytes(buffer.getvalue())
    (tmp_path / "secret").write_text("secret")
    (folder / "link.png").symlink_to(tmp_path / "secret")
    album, images = made_album(folder, names, hashlib.sha256(buffer.getvalue()).hexdigest())
    assert album.pixels(images, 0, "clean").shape == (8, 8, 3)
    for image, said in ((1, "not in the data folder"), (2, "not in the data folder"), (3, "has changed")):
        for read in (album.pixels, album.thumbnail, album.large):
            with pytest.raises(Refused, match=said):
                read(images, image, "clean")
    with pytest.raises(Refused, match="not in the data folder"):
        album.mask(images, 1)


def test_masks_are_read_as_their_corpus_says_in_every_folder_of_the_data(tmp_path: Path) -> None:
    import pandas as pd

    folder, further = tmp_path / "data", tmp_path / "more"
    for place in (folder, further):
        place.mkdir()
    picture = Image.new("RGB", (8, 8), (90, 80, 70))
    picture.save(folder / "a.png")
    drawn = Image.new("L", (4, 4))
    drawn.paste(255, (0, 0, 4, 1))  # white: a quarter
    drawn.save(further / "m.png")
    digests = {name: hashlib.sha256(name.read_bytes()).hexdigest() for name in (folder / "a.png", further / "m.png")}
    row = {
        "path": "a.png", "label": 1, "generator": "lama", "source_id": "a", "split": "test", "mask": "more:m.png",
        "digest": digests[folder / "a.png"], "mask_digest": digests[further / "m.png"], "width": 8, "height": 8,
        "mask_white": "fake",
    }  # fmt: skip
    table = pd.DataFrame([row])
    manifest = Manifest(folder, "list", table, further={"more": further})
    mask = Album(manifest, "", Kept(tmp_path / "kept")).mask(Images(table, {}), 0)
    assert mask is not None
    assert mask.shape == (8, 8)
    assert mask.mean() == 0.25


def made_album(folder: Path, names: list[str], digest: str) -> tuple[Album, Images]:
    import pandas as pd

    table = pd.DataFrame(
        {
            "path": names, "label": 1, "generator": "lama", "source_id": names, "split": "test", "mask": names,
            "digest": digest, "mask_digest": digest, "width": 8, "height": 8,
        }
    )  # fmt: skip
    manifest = Manifest(folder, "dolos", table)
    return Album(manifest, "", Kept(folder / "kept")), Images(table, {})


def test_a_file_that_has_changed_is_not_shown(tracked: Store, tmp_path: Path) -> None:
    from analysis.cam import open_images

    manifest = open_images(tracked)
    images = Images(tracked.scores(tracked.runs()["run_id"].iloc[0]), {})
    path = tmp_path / images.path[0]
    path.parent.mkdir(parents=True)
    Image.new("RGB", (64, 64)).save(path)
    album = Album(dataclasses.replace(manifest, root=tmp_path), "", Kept(tmp_path / "kept"))
    with pytest.raises(Refused, match=r"has changed since the manifest was built; .*--images DIR"):
        album.thumbnail(images, 0, "clean")


# Uploads -------------------------------------------------------------------------------------------------------------


def png(width: int, height: int, lines: bytes) -> bytes:
    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines, 9)) + chunk(b"IEND", b"")


def animation() -> bytes:
    buffer = io.BytesIO()
    frames = [Image.new("RGB", (64, 64), (shade, 0, 0)) for shade in (0, 200)]
    frames[0].save(buffer, "WEBP", save_all=True, append_images=frames[1:], lossless=True)
    return buffer.getvalue()


BAD = {
    "empty": (b"", 400, "the file is empty"),
    "text": (b"no picture at all", 415, "not a"),
    "svg": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", 415, "not a"),
    "bomb": (png(30_000, 30_000, b"\0" * 1000), 415, "more than 64 million pixels"),
    "cut": (png(64, 64, b"\0" * 100), 415, "cannot be used"),
    "animation": (animation(), 415, "2 pictures"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_file_that_is_no_sound_picture_is_refused_in_words(page: Client, tracked: Store, name: str) -> None:
    content, status, words = BAD[name]
    answer = page.send(f"/api/score/{detection_run(tracked)}", method="POST", body=content)
    assert answer.status == status
    assert words in answer.error


def test_a_picture_that_is_too_large_is_refused_before_it_is_read(page: Client, tracked: Store) -> None:
    address = f"/api/score/{detection_run(tracked)}"
    told = page.send(address, method="POST", body=b"x", headers={"Content-Length": str(MAX_BYTES + 1)})
    untold = page.send(address, method="POST", body=iter([b"x" * 2**20] * (MAX_BYTES // 2**20 + 1)))
    for answer in (told, untold):
        assert answer.status == 413
        assert answer.error.startswith("a picture has at most 64 MiB here")


def detection_run(store: Store) -> str:
    runs = store.runs()
    return str(runs.loc[(runs["task"] == "detection") & (runs["method"] == "residual_linear"), "run_id"].iloc[0])


def test_uploads_are_the_only_thing_that_may_be_sent(page: Client, tracked: Store) -> None:
    assert page.send("/api/grid", method="POST", body=b"{}").status == 405
    assert page.send(f"/api/score/{detection_run(tracked)}").status == 405
    assert page.send("/thumbnail/0", method="DELETE").status == 405
