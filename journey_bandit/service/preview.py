"""Command `journey-bandit preview`: every nudge of a catalogue as journey.js draws it, in a page that is served here or
written to a folder. The files of the page are in `preview_pages`; frame.js makes the reply of a decision up from
catalogue.json, which stands here as types.
"""

import importlib.resources
import re
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import click
import msgspec

from api.catalogue_files import images, read_catalogue
from api.decisions.pages import IMAGES, PageView
from api.messages.browser import ContentOut
from api.messages.decisions import NudgeOut
from bandit.catalogue.content.model import PAGE_FORMATS
from bandit.catalogue.model import Catalogue, Nudge
from bandit.errors import JourneyBanditError, RemoteError

_HOST = "127.0.0.1"
_STOCK, _DEADLINE = 3, 2 * 3600  # of the samples: units; seconds from now
_LOOKED_UP = 110  # seconds ago; pages say two minutes, of whole minutes never less than it is
_MEDIA = {"html": "text/html", "js": "text/javascript", "css": "text/css", "json": "application/json"}
_MEDIA |= {"svg": "image/svg+xml", "png": "image/png", "jpg": "image/jpeg", "jpeg": "image/jpeg"}
_MEDIA |= {"webp": "image/webp", "avif": "image/avif"}


class SampleEvidence(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Evidence as a request could bring it: units left, or seconds until the offer ends, looked up `as_of` seconds from
    now (negative: ago).
    """

    stock: int | None = None
    deadline: int | None = None
    as_of: int


class PreviewNudge(msgspec.Struct, frozen=True, kw_only=True):
    """Nudge in the preview. `shown`: whether pages show its format at all. `contents` by locale; empty for a nudge that
    is drawn from its payload.
    """

    nudge: NudgeOut
    description: str
    shown: bool
    contents: dict[str, ContentOut]
    evidence: SampleEvidence | None


class PreviewStage(msgspec.Struct, frozen=True, kw_only=True):
    """Stage in the preview, with its nudges as declared."""

    name: str
    description: str
    nudges: list[PreviewNudge]


class PreviewCatalogue(msgspec.Struct, frozen=True, kw_only=True):
    """Catalogue in the preview: the content of catalogue.json. `formats`: those that pages show."""

    app: str
    title: str
    locale: str
    formats: list[str]
    stages: list[PreviewStage]


@click.command()
@click.option("--app", required=True, help="A shipped catalogue (fashion, travel, …) or FILE.toml.")
@click.option("--port", default=8081, show_default=True, help="0 takes any free port.")
@click.option(
    "--output", type=click.Path(path_type=Path, file_okay=False), help="Write a folder that any web server can show."
)
def preview(app: str, port: int, output: Path | None) -> None:
    """Show every nudge of a catalogue as pages show it: in each format, light and dark, left to right and right to
    left, narrow and wide, in every locale; with made-up evidence. Serves a page until Ctrl-C, or writes it (--output).

    A catalogue with mistakes ends with all of them, as in `catalogue check`. The catalogue is read anew when the page
    is loaded again.
    """
    site = preview_site(app)
    if output is None:
        _serve(app, site, port)
        return
    for name, content in site.files.items():
        path = output / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    click.echo(f"wrote {len(site.files)} files to {output}; any web server can show them:")
    click.echo(f"  python -m http.server --bind {_HOST} --directory {output}")


class PreviewSite(NamedTuple):
    """The page: its files by their path in its folder, and its Content-Security-Policy, which index.html and frame.html
    name, too.
    """

    files: Mapping[str, bytes]
    policy: str


def preview_site(app: str) -> PreviewSite:
    """Page that previews the catalogue that `app` names.

    Raises CatalogueError with every mistake of the catalogue, NotFound for a name that is not shipped, OSError if a
    file cannot be read.
    """
    found = read_catalogue(app)
    pages, scripts = (importlib.resources.files(package) for package in ("journey_bandit.service", "api.pages"))
    own = {path.name: path.read_bytes() for path in pages.joinpath("preview_pages").iterdir()}
    policy = content_policy(found)
    files = {
        name: text.replace(b"POLICY", policy.encode()) if name.endswith(".html") else text for name, text in own.items()
    }
    files |= {
        "journey.js": scripts.joinpath("journey.js").read_bytes(),
        "catalogue.json": msgspec.json.encode(preview_of(found)),
    }
    files |= {f"images/{name}": image.content for name, image in images(app, found).items()}
    return PreviewSite(files, policy)


def content_policy(found: Catalogue) -> str:
    """Content-Security-Policy of the page: everything is its own, but for pictures of the declared hosts."""
    hosts = " ".join(["'self'", "data:", *found.pages.image_hosts])
    own = "script-src 'self'; style-src 'self'; connect-src 'self'; frame-src 'self'"
    none = "base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'"
    return f"default-src 'none'; {own}; img-src {hosts}; {none}"


def preview_of(found: Catalogue) -> PreviewCatalogue:
    """What the page shows of a catalogue."""
    stages = [
        PreviewStage(
            name=name,
            description=stage.description,
            nudges=[_nudge(found, key, nudge) for key, nudge in stage.nudges.items()],
        )
        for name, stage in found.stages.items()
    ]
    formats = [name for name in PAGE_FORMATS if name != "gamified"]  # the older word for one of the others
    title = found.title or found.app
    return PreviewCatalogue(app=found.app, title=title, locale=found.locale, formats=formats, stages=stages)


def _nudge(found: Catalogue, name: str, nudge: Nudge) -> PreviewNudge:
    shown, contents = PageView().shows(nudge), _contents(nudge, found.locale)
    return PreviewNudge(
        nudge=NudgeOut(id=name, type=nudge.type, format=nudge.format, payload=nudge.payload),
        description=nudge.description,
        shown=shown,
        contents=contents,
        evidence=_evidence(nudge),
    )


def _contents(nudge: Nudge, fallback: str) -> dict[str, ContentOut]:
    """Content of a nudge in every locale that it declares, pictures of the catalogue's folder by their path here."""
    if isinstance(nudge.content, msgspec.UnsetType):
        return {}
    made = {tag: PageView(locale=tag).content(nudge, fallback) for tag in nudge.content.texts}
    own = re.compile(rf"^{re.escape(IMAGES)}/")
    return {
        tag: msgspec.structs.replace(content, image=own.sub("/images/", content.image))
        for tag, content in made.items()
        if not isinstance(content, msgspec.UnsetType)
    }


def _evidence(nudge: Nudge) -> SampleEvidence | None:
    """Evidence that the nudge's rule accepts; None for a nudge that makes no claim."""
    if nudge.evidence is None:
        return None
    if nudge.evidence.kind == "deadline":
        return SampleEvidence(deadline=_DEADLINE, as_of=-_LOOKED_UP)
    return SampleEvidence(stock=min(_STOCK, nudge.evidence.at_most or _STOCK), as_of=-_LOOKED_UP)


class PreviewHandler(BaseHTTPRequestHandler):
    """Handler of one request for a file of the page. The page itself (/) makes all of them anew."""

    protocol_version = "HTTP/1.1"
    server: "PreviewServer"

    def log_message(self, *_: Any) -> None:
        """Nothing: one line for each of hundreds of frames helps nobody."""

    def do_GET(self) -> None:
        """Answer with the file, 404, or the mistakes that the catalogue has now."""
        name = urlsplit(self.path).path.removeprefix("/") or "index.html"
        try:
            if name == "index.html":
                self.server.site = self.server.made()
        except (JourneyBanditError, OSError) as error:
            return self._answer(500, f"error: {error}\n".encode(), "text/plain")
        content = self.server.site.files.get(name)
        if content is None:
            return self._answer(404, b"there is no such file\n", "text/plain")
        return self._answer(200, content, _MEDIA[name.rpartition(".")[2]])

    def _answer(self, status: int, content: bytes, media: str) -> None:
        self.send_response(status)
        text = media.startswith(("text/", "application/"))
        self.send_header("Content-Type", f"{media}; charset=utf-8" if text else media)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Content-Security-Policy", f"{self.server.site.policy}; frame-ancestors 'self'")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(content)


class PreviewServer(ThreadingHTTPServer):
    """Server of the page, on this machine alone. `made` makes the page; `site` is the one that was made last."""

    def __init__(self, port: int, made: Callable[[], PreviewSite], site: PreviewSite) -> None:
        self.made, self.site = made, site
        super().__init__((_HOST, port), PreviewHandler)


def _serve(app: str, site: PreviewSite, port: int) -> None:
    try:
        server = PreviewServer(port, lambda: preview_site(app), site)
    except (OSError, OverflowError) as error:
        fix = "stop what listens there, or give --port another one (0 takes any)"
        raise RemoteError(f"the preview cannot be served at {_HOST}:{port}: {error}; {fix}") from error
    with server:
        click.echo(f"preview of {app} at http://{_HOST}:{server.server_port}/")
        click.echo("Ctrl-C stops it.")
        server.serve_forever()
