"""A review in the browser: a page, its pictures, and flags that come back; for this machine only.

Nothing of an address is a path: pictures are asked for by number, everything else is not found. A request must name
this server as its host (no other page may reach it through a name that points here), and a change must carry the
page's own token.
"""

import json
import logging
import secrets
import threading
from collections.abc import Callable, Sequence
from functools import lru_cache
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from medexp.errors import CaseError, ConfigurationError
from medexp.viewers.flags import Flags
from medexp.viewers.page import review_page
from medexp.viewers.slides import Picture, Slide

log = logging.getLogger(__name__)

HOST = "127.0.0.1"  # a choice of no configuration and no environment
_LARGEST_BODY = 1 << 14
_KEPT_PICTURES = 12


class Review:
    """A review that is being served; a context manager that ends it.

    Args:
        slides: At least one.
        flags: Where flags go.
        title: Of the page.
        interval_s: How long a slide stays.
        alpha: Opacity of the masks.
        port: 0: any that is free.

    Raises:
        ConfigurationError: The port is taken.
    """

    def __init__(
        self,
        slides: Sequence[Slide],
        flags: Flags,
        *,
        title: str,
        interval_s: float | int,
        alpha: float | int,
        port: int,
    ) -> None:
        self.slides, self.flags, self.title = tuple(slides), flags, title
        self.interval_s, self.alpha = float(interval_s), float(alpha)
        self.token, self.nonce = secrets.token_urlsafe(24), secrets.token_urlsafe(24)
        self.ended = threading.Event()
        self.picture = lru_cache(maxsize=_KEPT_PICTURES)(self._picture)
        try:
            self._server = ThreadingHTTPServer((HOST, port), _handler_of(self))
        except OSError as error:
            message = f"view.port: expected a free port, got {port} ({error.strerror})"
            raise ConfigurationError(f"{message}; 0 finds one") from error
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._server.server_address[1])

    @property
    def address(self) -> str:
        """What to open."""
        return f"http://{HOST}:{self.port}/"

    def __enter__(self) -> "Review":
        self._thread.start()
        return self

    def __exit__(self, *reason: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def page(self) -> str:
        """Return the page."""
        return review_page(
            [slide.name for slide in self.slides],
            title=self.title,
            interval_s=self.interval_s,
            alpha=self.alpha,
            token=self.token,
            nonce=self.nonce,
        )

    def _picture(self, index: int, kind: str) -> bytes:
        picture = Picture.of(self.slides[index])
        return picture.image_png() if kind == "image" else picture.mask_png()


def _handler_of(review: Review) -> type[BaseHTTPRequestHandler]:
    class Handler(_Handler):
        served = review

    return Handler


class _Handler(BaseHTTPRequestHandler):
    served: Review
    server_version, sys_version = "medexp", ""
    protocol_version = "HTTP/1.1"
    timeout = 30  # seconds; an idle connection does not hold a thread for ever

    def do_GET(self) -> None:
        if not self._is_ours():
            return
        kind, _, rest = self.path.removeprefix("/").partition("/")
        if self.path == "/":
            self._answer(HTTPStatus.OK, "text/html; charset=utf-8", self.served.page().encode())
        elif self.path == "/flags":
            self._json({str(index): reason for index, reason in self.served.flags.reasons().items()})
        elif kind in {"image", "mask"} and (index := self._index(rest.removesuffix(".png"))) is not None:
            self._send_picture(index, kind)
        else:
            self._refuse(HTTPStatus.NOT_FOUND)

    def do_POST(self) -> None:
        body = self._body() if self._is_ours() else None
        if body is None:
            return
        if not secrets.compare_digest(self.headers.get("X-Token", "").encode(), self.served.token.encode()):
            self._refuse(HTTPStatus.FORBIDDEN)
        elif self.path == "/quit":
            self._json({})
            self.served.ended.set()
        elif self.path == "/flag":
            self._flag(body)
        else:
            self._refuse(HTTPStatus.NOT_FOUND)

    def _flag(self, body: dict[str, Any]) -> None:
        index, reason = self._index(str(body.get("index"))), body.get("reason")
        if index is None or not (reason is None or isinstance(reason, str)):
            self._refuse(HTTPStatus.BAD_REQUEST)
            return
        if reason is None:
            self.served.flags.remove(index)
        else:
            self.served.flags.set(index, reason)
        self._json({str(place): text for place, text in self.served.flags.reasons().items()})

    def _send_picture(self, index: int, kind: str) -> None:
        try:
            content = self.served.picture(index, kind)
        except CaseError as error:
            log.warning("%s", error)
            self._refuse(HTTPStatus.INTERNAL_SERVER_ERROR)
            return
        self._answer(HTTPStatus.OK, "image/png", content)

    def _index(self, text: str) -> int | None:
        is_number = text.isascii() and text.isdigit() and len(text) < 10
        return int(text) if is_number and int(text) < len(self.served.slides) else None

    def _is_ours(self) -> bool:
        """Refuse whoever came by another name than this server's."""
        port = self.served.port
        if self.headers.get("Host") in {f"{HOST}:{port}", f"localhost:{port}"}:
            return True
        self._refuse(HTTPStatus.FORBIDDEN)
        return False

    def _body(self) -> dict[str, Any] | None:
        length = self.headers.get("Content-Length", "")
        if not length.isdigit() or int(length) > _LARGEST_BODY:
            self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
            return None
        try:
            content = json.loads(self.rfile.read(int(length)) or b"{}")
        except ValueError:
            content = None
        if not isinstance(content, dict):
            self._refuse(HTTPStatus.BAD_REQUEST)
            return None
        return content

    def _json(self, content: Any) -> None:
        self._answer(HTTPStatus.OK, "application/json", json.dumps(content).encode())

    def _refuse(self, status: HTTPStatus) -> None:
        self.close_connection = True
        self._answer(status, "text/plain; charset=utf-8", status.phrase.encode())

    def _answer(self, status: HTTPStatus, kind: str, content: bytes) -> None:
        self.send_response(status)
        headers = {
            "Content-Type": kind,
            "Content-Length": str(len(content)),
            "Cache-Control": "no-store",
            "Content-Security-Policy": "default-src 'none'; img-src 'self' data:; connect-src 'self'; "
            f"style-src 'nonce-{self.served.nonce}'; script-src 'nonce-{self.served.nonce}'; base-uri 'none'; "
            "form-action 'none'; frame-ancestors 'none'",
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
        }
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        log.debug(format, *args)


def wait_for(review: Review, *, opened: Callable[[str], Any] | None) -> None:
    """Serve until the reviewer quits, here or on the page; `opened` shows the address to a browser."""
    log.info("review: %s (Esc or q on the page ends it, so does Ctrl-C here)", review.address)
    if opened is not None:
        opened(review.address)
    try:
        review.ended.wait()
    except KeyboardInterrupt:
        log.info("ended by the keyboard; every flag is written")
