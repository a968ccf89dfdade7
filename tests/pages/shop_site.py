"""A shop's page in a real Chromium, and a service that records what the page sends. Two servers, two origins."""

import http.server
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from tests.waiting import PATIENCE, eventually

USUAL: dict[str, Any] = {"viewport": {"width": 1024, "height": 720}, "reduced_motion": "reduce"}

START = 1_800_000_000
"""Seconds since 1970 of pages whose time is stopped: another clock than the service's."""

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "api" / "pages" / "journey.js"
AXE = ROOT / "tests" / "clients" / "node_modules" / "axe-core" / "axe.min.js"
COAT = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 320 180"><rect width="320" height="180" fill="#d9dee8"/>
<path d="M125 40l35-14 35 14 22 30-16 10-8-8v74h-66V72l-8 8-16-10z" fill="#5b6a86"/></svg>"""
APP = """import { Journey } from 'SERVICE/v1/browser/journey.js'
window.Journey = Journey
window.violations = []
window.pauses = [] // milliseconds of timers
window.answered = 0 // requests
const [timer, ask] = [setTimeout, fetch]
window.setTimeout = (act, ms) => (window.pauses.push(ms), timer(act, ms))
window.fetch = (...request) => ask(...request).finally(() => window.answered++)
const against = ({ violatedDirective, blockedURI }) => window.violations.push(`${violatedDirective} ${blockedURI}`)
document.addEventListener('securitypolicyviolation', against)
const changed = ({ type }) => type === 'decided' || window.changes.push(type)
window.start = (options, user = 'u1', more) => {
  window.changes = []
  window.journey = new Journey({ key: 'pub_shop', onChange: changed, patience: PATIENCE, ...options })
  window.journey.identify(user, more)
}
window.ready = true
"""
"""Script of the page. Its patience is that of the tests: a busy machine is no slow service."""
PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Coats</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="stylesheet" href="/shop.css"><link rel="icon" href="data:,">
<script type="module" src="/app.js"></script></head><body><header><a href="/">Northern Coats</a></header>
<main><h1>Wool coat</h1><p>Warm, plain, made to last. <a id="sizes" href="/sizes">Which size fits?</a></p>
<div id="size"></div><p><label>E-mail <input id="mail"></label> <button id="buy">Add to cart</button></p></main>
</body></html>"""
STYLE = """body { font-family: system-ui, sans-serif; margin: 0; line-height: 1.5; color: #1b1d22; background: #fbfaf8 }
header, main { padding: 1rem 1.5rem; max-width: 60rem; margin: auto } a { color: #1d4ed8 }
@media (prefers-color-scheme: dark) { body { background: #121317; color: #eee } a { color: #9db7ff } }"""


class Sent(NamedTuple):
    """Request of a page: `decisions`, `events` or `activations`, and its body."""

    path: str
    body: dict[str, Any]


Answer = tuple[int, Any, dict[str, str]]


class Service:
    """The service as pages see it. `answers` are taken first, one for each request of that path; then all is well."""

    def __init__(self) -> None:
        self.sent: list[Sent] = []
        self.answers: dict[str, list[Callable[[dict[str, Any]], Answer] | Answer]] = {}
        self.decision: dict[str, Any] = {}
        self.images = threading.Event()
        self.images.set()
        self.url = ""
        self.at_once = 0
        """Most requests with events that were answered at one time."""
        self._now = 0
        self._lock = threading.Lock()

    def answer(self, path: str, body: dict[str, Any]) -> Answer:
        """Answer to a request; it is recorded as soon as it is there."""
        with self._lock:
            self._now += path == "events"
            self.at_once = max(self.at_once, self._now)
        try:
            return self._answer(path, body)
        finally:
            with self._lock:
                self._now -= path == "events"

    def _answer(self, path: str, body: dict[str, Any]) -> Answer:
        self.sent.append(Sent(path, body))
        waiting = self.answers.get(path)
        if waiting:
            given = waiting.pop(0)
            return given(body) if callable(given) else given
        if path == "decisions":
            return 200, {"decision_id": body["decision_id"], **self.decision, "now": stamp()}, {}
        if path == "events":
            return 200, {"events": [{"status": 200} for _ in body["events"]]}, {}
        return 200, {}, {}

    def of(self, path: str) -> list[dict[str, Any]]:
        """Bodies of requests of that path so far."""
        return [one.body for one in self.sent if one.path == path]

    def events(self, name: str = "") -> list[dict[str, Any]]:
        """Events that were sent so far, repeats included."""
        return [e for body in self.of("events") for e in body["events"] if not name or e["event"] == name]

    def activated(self) -> list[str]:
        return [body["decision_id"] for body in self.of("activations")]


def stamp(after: float = 0.0) -> str:
    """RFC 3339 of now, `after` seconds later."""
    at = time.time() + after
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at)) + f"{at % 1:.6f}"[1:] + "Z"


def nudge(format: str = "popup", name: str = "low_stock", **content: Any) -> dict[str, Any]:  # noqa: A002
    """Reply of the service that decided for a nudge of this format."""
    words = {
        "locale": "en", "title": "Only {stock} left in your size", "text": "Counted {age} ago.", "button": "Keep mine",
        "alt": "", "image": "", "link": "", "anchor": "#size", "steps": [],
    }  # fmt: skip
    return {
        "stage": "browsing",
        "nudge": {"id": name, "type": "reminder", "format": format, "payload": {"days": 7}},
        "expires_at": stamp(3600),
        "content": words | content,
        "evidence": {"stock": 3, "as_of": stamp(-240)},
    }


NONE = {
    "stage": "browsing",
    "nudge": {"id": "none", "type": "none", "format": "none", "payload": {}},
    "expires_at": "2100-01-01T00:00:00Z",
}


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None: ...

    def reply(self, status: int, content: bytes, media: str, headers: dict[str, str]) -> None:
        try:
            self.send_response(status)
            for name, value in {"Content-Type": media, "Content-Length": str(len(content)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True  # the page was closed


class ServiceHandler(Handler):
    def __init__(self, service: Service, *args: Any) -> None:
        self.service = service
        super().__init__(*args)

    def do_GET(self) -> None:
        open_to_all = {"Access-Control-Allow-Origin": "*", "Cache-Control": "no-store"}
        if self.path.partition("?")[0].endswith("/journey.js"):
            self.reply(200, SCRIPT.read_bytes(), "text/javascript", open_to_all)
        elif self.path.endswith(".svg"):
            self.service.images.wait(PATIENCE)
            self.reply(200, COAT.encode(), "image/svg+xml", open_to_all)
        else:
            self.reply(404, b"", "text/plain", open_to_all)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        origin = self.headers.get("Origin", "")
        simple = self.headers["Content-Type"].startswith("text/plain")  # or browsers ask first
        path = self.path.rpartition("/")[2]
        status, answer, headers = self.service.answer(path, body) if simple else (415, {}, {})
        cors = {"Access-Control-Allow-Origin": origin, "Access-Control-Expose-Headers": "Retry-After"}
        self.reply(status, json.dumps(answer).encode(), "application/json", cors | headers)


class SiteHandler(Handler):
    def __init__(self, pages: dict[str, str], csp: Callable[[], str], *args: Any) -> None:
        self.pages, self.csp = pages, csp
        super().__init__(*args)

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        media = {"js": "text/javascript", "css": "text/css"}.get(path.rpartition(".")[2], "text/html; charset=utf-8")
        text = self.pages.get(path, self.pages["/"])
        self.reply(200, text.encode(), media, {"Content-Security-Policy": self.csp(), "Cache-Control": "no-store"})


@contextmanager
def serving(handler: Callable[..., http.server.BaseHTTPRequestHandler]) -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


class Shop:
    """The shop's site and the service, with a browser. Every page has a strict Content-Security-Policy."""

    def __init__(self, browser: Any, shared: Any, service: Service, pages: dict[str, str], url: str) -> None:
        self.browser, self.shared, self.service, self.pages, self.url = browser, shared, service, pages, url
        self.contexts: list[Any] = []
        self.pages_open: list[Any] = []
        self.hosts: set[str] = set()

    def context(self, **options: Any) -> Any:
        made = self.browser.new_context(**(USUAL | options))
        self.contexts.append(made)
        return made

    def page(
        self, path: str = "/", start: str | None = "", context: Any = None, stopped: bool = False, **options: Any
    ) -> Any:
        """A page that has loaded journey.js and has a `journey` of user u1, with `start` as its options in JavaScript.
        `stopped`: time passes there only as `page.clock` says.
        """
        if options or (stopped and not context):  # a clock is that of a whole context
            context = self.context(**options)
        page = (context or self.shared).new_page()
        page.on("request", lambda request: self.hosts.add(re.sub(r"^(\w+://[^/]*).*", r"\1", request.url)))
        self.pages_open.append(page)
        if stopped:
            page.clock.install(time=START)
        self.go(page, path, start)
        if stopped:
            # what `start` began has ended: else what a test does first could go with it, before its time
            page.evaluate("navigator.locks.request('journey-bandit:pub_shop', () => {})")
            page.clock.pause_at(START + 3600)
        return page

    def go(self, page: Any, path: str = "/", start: str | None = "") -> None:
        page.goto(self.url + path, wait_until="load")
        assert eventually(lambda: page.evaluate("window.ready"))
        if start is not None:
            page.evaluate(f"start({start or '{}'})")

    def close(self) -> list[str]:
        """Closes all pages: what they did against the policy."""
        still = [page for page in self.pages_open if not page.is_closed()]
        found = [text for page in still for text in page.evaluate("window.violations ?? []")]
        for one in (*still, *self.contexts):
            one.close()
        return found


def observed(page: Any) -> None:
    """Waits until the browser has told the page how much of the surface is in view."""
    page.evaluate("""new Promise((done) => new IntersectionObserver(done).observe(
        document.querySelector('journey-nudge').shadowRoot.querySelector('[part=surface]')))""")


def visibility(page: Any, state: str) -> None:
    """Hides or shows the tab, as the page is told of it."""
    page.evaluate(f"""Object.defineProperty(document, 'visibilityState', {{value: '{state}', configurable: true}});
        document.dispatchEvent(new Event('visibilitychange'))""")


def surface(page: Any) -> Any:
    return page.locator("journey-nudge [part=surface]")


def ask(page: Any, options: str = "{}") -> bool:
    """Whether a nudge is shown: decides and shows."""
    return bool(page.evaluate(f"journey.nudge({options}).then(Boolean)"))
