"""A page to click in: every cell of the matrices, its images, their maps and points.

python -m analysis explore                   prints an address with a token; open it in a browser on this machine
python -m analysis explore --experiment dolos --no-browser

Ctrl-C ends it. The page shows the grid while it runs, too.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import secrets
import socket
import sys
import webbrowser
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from analysis.explore.guard import TOKEN, is_loopback
from analysis.options import add_grid_options
from grid.command_line import Parser
from grid.local_store import StoreError  # not from a module that brings MLflow, so that --help is quick
from grid.uris import sqlite_file

if TYPE_CHECKING:
    import uvicorn
    from rich.console import Console

    from analysis.explore.app import Page
    from analysis.store import Store

STATUSES = "exit status: 0 ended by Ctrl-C; 1 an error that nobody expected; 2 bad input, nothing was started"
OK, FAILED = 0, 1
PORT = 8000


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line of `explore`; see `--help`."""
    parser = Parser(prog="python -m analysis explore", description=__doc__, epilog=STATUSES)
    grid = parser.add_argument_group("which grid")
    add_grid_options(grid)
    grid.add_argument("--spec-version", type=int, metavar="N", help="version of the runs, if there are several")
    pictures = parser.add_argument_group("its pictures and detectors")
    pictures.add_argument("--images", type=Path, metavar="DIR", help="data folder; default: its path when the grid ran")
    pictures.add_argument(
        "--cache", type=Path, metavar="DIR", help="the grid's cache, with the manifest; default: beside a local store"
    )
    pictures.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="of maps; default: cpu")
    pictures.add_argument(
        "--weights", dest="weight_files", type=Path, action="append", default=[], metavar="FILE",
        help="weights of a frozen encoder, if they were a file",
    )  # fmt: skip
    page = parser.add_argument_group("the page")
    page.add_argument(
        "--host", default="127.0.0.1", help="a name or address of this machine itself; default: 127.0.0.1"
    )
    page.add_argument("--port", type=int, metavar="N", help=f"default: {PORT}, or any free port if it is taken; 0: any")
    page.add_argument("--no-browser", action="store_true", help="open no browser")
    options = parser.parse_args(arguments)
    if not is_loopback(options.host):
        parser.error(f"--host {options.host}: only this machine itself, such as 127.0.0.1; use a tunnel through SSH")
    if options.port is not None and not 0 <= options.port < 2**16:
        parser.error(f"--port {options.port}: a number from 0 to {2**16 - 1}")
    return options


def explore(options: argparse.Namespace, console: Console) -> int:
    """Serve the page until Ctrl-C, which ends the process with status 0.

    Raises:
        StoreError: no such grid, device or file of weights, or the port is taken.
    """
    with console.status("reading the grid") if console.is_terminal else contextlib.nullcontext():
        listening, token = listen(options.host, options.port), secrets.token_urlsafe(32)
        server = make_server(make_page(options), token)
    host, port = listening.getsockname()[:2]
    address = f"http://{f'[{host}]' if ':' in host else host}:{port}/?{TOKEN}={token}"
    print(address, flush=True)
    if not options.no_browser and _has_screen():
        webbrowser.open(address)
    with contextlib.suppress(KeyboardInterrupt):  # uvicorn raises it once it has ended in order
        server.run(sockets=[listening])
    # Threads that compute a map or points would hold the end up, for minutes. What they keep is whole or not there.
    os._exit(OK if server.started else FAILED)


def make_server(page: Page, token: str) -> uvicorn.Server:
    """A server of the page, which says nothing but what went wrong."""
    import uvicorn

    log = logging.getLogger("uvicorn")
    log.setLevel(logging.WARNING)

    class Server(uvicorn.Server):
        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            log.setLevel(logging.CRITICAL + 1)  # or each request in progress is logged as an error, with its traceback
            super().handle_exit(sig, frame)

    config = uvicorn.Config(
        page.app(token), access_log=False, log_config=None, server_header=False, date_header=False,
        timeout_graceful_shutdown=1,  # a map may take longer, and nothing is lost with it
    )  # fmt: skip
    return Server(config)


def make_page(options: argparse.Namespace) -> Page:
    """The page of the grid that the options name.

    Raises:
        StoreError: no such grid, device or file of weights.
    """
    from analysis.cam import open_images
    from analysis.detectors import check_device, local_weights
    from analysis.explore.app import Page
    from analysis.explore.detectors import Workshop
    from analysis.explore.live import Live
    from analysis.explore.pictures import Album, Kept
    from analysis.explore.points import Points
    from analysis.store import open_store

    check_device(options.device)
    weight_files = local_weights(options.weight_files)

    def opened(data: str | None) -> Store:
        return open_store(
            options.experiment, tracking_uri=options.tracking_uri, data=data, spec_version=options.spec_version,
            unfinished=True,
        )  # fmt: skip

    logging.getLogger("analysis.store").addFilter(_Once())  # the store is read again and again
    first = opened(options.data)
    readings = iter([first])  # the first reading is the one that is there already
    live = Live(lambda: next(readings, None) or opened(first.data))
    try:
        manifest, problem = open_images(first, root=options.images, cache=options.cache), ""
    except StoreError as error:
        manifest, problem = None, f"No pictures: {error}"
    kept = Kept(_cache_of(first, options.cache) / "explore")
    album = Album(manifest, problem, kept)
    workshop = Workshop(album, kept, device=options.device, weight_files=weight_files)
    return Page(live, album, workshop, Points(kept))


class _Once(logging.Filter):
    """Lets each message through once."""

    def __init__(self) -> None:
        super().__init__()
        self._said: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the message is new."""
        message = record.getMessage()
        new = message not in self._said
        self._said.add(message)
        return new


def _cache_of(store: Store, named: Path | None) -> Path:
    """The grid's cache; for a store on a server the user's own."""
    if named is not None:
        return named
    file = sqlite_file(store.tracking_uri)
    if file is not None:
        return file.parent / "cache"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "inpaint-grid"


def listen(host: str, port: int | None) -> socket.socket:
    """A socket that listens; without a port on the usual one, or on any where that is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for number in (PORT, 0) if port is None else (port,):
        # named as TCP, so that asyncio sends each answer at once (TCP_NODELAY) and not 40 ms later
        listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((host.strip("[]"), number))
            listening.listen()
        except OSError as error:
            listening.close()
            if port is None and number == PORT:
                continue
            raise StoreError(
                f"--port {number}: nothing can listen there ({error.strerror or error}); --port 0 takes any free port"
            ) from error
        return listening
    raise AssertionError("the last number is tried or raised")


def _has_screen() -> bool:
    """Whether a browser with a window can open; one in the terminal would hide the address."""
    if not sys.stdout.isatty():
        return False
    return sys.platform in ("darwin", "win32") or bool({"DISPLAY", "WAYLAND_DISPLAY"} & os.environ.keys())
