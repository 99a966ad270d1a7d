"""The addresses of the page: ids and names of the grid in, JSON and pictures out, never a path."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from analysis.explore.detectors import Workshop
from analysis.explore.guard import Guard
from analysis.explore.live import Live, overview
from analysis.explore.pictures import PNG, WEBP, Album
from analysis.explore.points import Points
from analysis.explore.refusals import Refused, unknown
from analysis.explore.rows import MISTAKES, Filter, Rows, condition_of
from grid.tasks import WHOLE

STATIC = Path(__file__).resolve().parent / "static"
KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
MAX_BYTES = 64 * 2**20  # of a picture that is dropped
_FOREVER = "private, max-age=31536000, immutable"  # the page adds the data set's digest to addresses of pictures


class Page:
    """The page of one grid.

    Args:
        live: the grid.
        album: its pictures.
        workshop: its detectors.
        points: its projections.
    """

    def __init__(self, live: Live, album: Album, workshop: Workshop, points: Points) -> None:
        self._live, self._album, self._workshop, self._points = live, album, workshop, points
        self._rows = Rows()
        self._overviews: dict[tuple[int, str | None, str | None], dict[str, Any]] = {}  # of the newest version
        # One at a time, in the order of the requests, so that maps do not take all threads from the thumbnails.
        self._turn = asyncio.Lock()

    def app(self, token: str) -> Guard:
        """The application, behind its guard."""
        files = {path.name: path.read_bytes() for path in STATIC.iterdir() if path.suffix in KINDS}

        def static(request: Request) -> Response:
            name = request.path_params.get("name", "index.html")
            if name not in files:
                raise unknown("file", repr(name))
            return Response(files[name], media_type=KINDS[Path(name).suffix])

        routes = [
            Route("/", static),
            Route("/static/{name}", static),
            Route("/api/grid", self._grid),
            Route("/api/images", self._images),
            Route("/api/photograph/{image:int}", self._photograph),
            Route("/api/maps/{run}", self._map_kind),
            Route("/api/points/{run}", self._points_of),
            Route("/api/score/{run}", self._score, methods=["POST"]),
            Route("/thumbnail/{image:int}", partial(self._picture, WEBP, self._album.thumbnail)),
            Route("/picture/{image:int}", partial(self._picture, PNG, self._album.large)),
            Route("/mask/{image:int}", self._mask),
            Route("/map/{run}/{image:int}", self._map),
        ]

        handlers: dict[Any, Callable[[Request, Exception], Response]] = {Refused: _refusal, Exception: _unexpected}
        return Guard(Starlette(routes=routes, exception_handlers=handlers), token)

    def _grid(self, request: Request) -> Response:
        self._live.refresh()
        snapshot, asked = self._live.now(), request.query_params
        key = (snapshot.version, asked.get("metric"), asked.get("condition"))
        shown = self._overviews.get(key)
        if shown is None:
            shown = overview(snapshot, asked.get("metric"), asked.get("condition"))
            newest = {other: kept for other, kept in self._overviews.items() if other[0] == snapshot.version}
            self._overviews = newest | {key: shown}
            self._rows.shelf.read_ahead(snapshot)
        return JSONResponse(shown | {"problem": snapshot.problem, "pictures": self._album.problem})

    def _images(self, request: Request) -> Response:
        asked = request.query_params
        chosen = Filter(
            cell=asked.get("cell", WHOLE),
            made_by=asked.get("made_by", ""),
            answer=_one_of(asked.get("answer", ""), ("", "right", "wrong")),
            area_from=_share(asked.get("from")),
            area_to=_share(asked.get("to")),
            sort=asked.get("sort", MISTAKES),
            page=_number(asked.get("page", "1")),
        )
        condition, metric = condition_of(asked.get("condition")), asked.get("metric", "")
        return JSONResponse(
            self._rows.page(self._live.now(), asked.get("run", ""), condition, metric, chosen)
        )  # fmt: skip

    def _photograph(self, request: Request) -> Response:
        asked = request.query_params
        condition, metric = condition_of(asked.get("condition")), asked.get("metric", "")
        image = int(request.path_params["image"])
        return JSONResponse(self._rows.photograph(self._live.now(), image, condition, metric))

    def _points_of(self, request: Request) -> Response:
        snapshot = self._live.now()
        images, kind = self._rows.shelf.images(snapshot), request.query_params.get("by", "tsne")
        return JSONResponse(self._points.get(snapshot, images, request.path_params["run"], kind))

    def _picture(self, kind: str, draw: Callable[..., bytes], request: Request) -> Response:
        images = self._rows.shelf.images(self._live.now())
        condition = condition_of(request.query_params.get("condition"))
        return _drawn(draw(images, int(request.path_params["image"]), condition), kind)

    def _mask(self, request: Request) -> Response:
        images = self._rows.shelf.images(self._live.now())
        return _drawn(self._album.drawn_mask(images, int(request.path_params["image"])), PNG)

    async def _map_kind(self, request: Request) -> Response:
        run = request.path_params["run"]
        return JSONResponse(await self._in_turn(request, lambda: self._workshop.map_kind(self._live.now(), run)))

    async def _map(self, request: Request) -> Response:
        run, image = request.path_params["run"], int(request.path_params["image"])
        condition = condition_of(request.query_params.get("condition"))

        def draw() -> tuple[bytes, bool]:
            snapshot = self._live.now()
            return self._workshop.map(snapshot, self._rows.shelf.images(snapshot), run, image, condition)

        content, flat = await self._in_turn(request, draw)
        answer = _drawn(content, WEBP)
        answer.headers["Explore-Map"] = "flat" if flat else "uneven"
        return answer

    async def _score(self, request: Request) -> Response:
        content = await _body(request)
        run = request.path_params["run"]
        async with self._turn:
            found = await run_in_threadpool(lambda: self._workshop.score(self._live.now(), run, content))
        return JSONResponse(found)

    async def _in_turn(self, request: Request, work: Callable[[], Any]) -> Any:
        """Do work with a detector once it is this request's turn, unless nobody waits for it any more."""
        async with self._turn:
            if await request.is_disconnected():
                raise Refused(499, "the browser does not wait for this any more")
            return await run_in_threadpool(work)


async def _body(request: Request) -> bytes:
    """The picture that was sent. Raises `Refused` as soon as it is known to be too large."""
    too_large = Refused(413, f"a picture has at most {MAX_BYTES // 2**20} MiB here; `predict` takes larger ones")
    told = request.headers.get("content-length", "")
    if told.isdecimal() and int(told) > MAX_BYTES:
        raise too_large
    content = bytearray()
    try:
        async for part in request.stream():
            content += part
            if len(content) > MAX_BYTES:
                raise too_large
    except ClientDisconnect as error:
        raise Refused(499, "the browser went away") from error
    if not content:
        raise Refused(400, "the file is empty")
    return bytes(content)


def _refusal(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return JSONResponse({"error": str(error)}, error.status)


def _unexpected(request: Request, error: Exception) -> Response:
    """Says where the cause is; Starlette then raises the error, and the log has its traceback."""
    said = "an error that nobody expected; the terminal of the command has its traceback"
    return JSONResponse({"error": said}, 500)


def _drawn(content: bytes, kind: str) -> Response:
    return Response(content, media_type=kind, headers={"Cache-Control": _FOREVER})


def _one_of(text: str, words: tuple[str, ...]) -> str:
    if text not in words:
        raise Refused(400, f"{text!r} is none of: {', '.join(filter(None, words))}")
    return text


def _number(text: str) -> int:
    if not text.isdecimal() or len(text) > 9:
        raise Refused(400, f"{text!r} is no number of a page")
    return int(text)


def _share(text: str | None) -> float | None:
    """An edited area in [0, 1]; None: none was given."""
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:
        raise Refused(400, f"an edited area lies between 0 and 1, got {text!r}")
    return value
