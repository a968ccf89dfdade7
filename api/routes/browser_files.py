"""Routes for files that pages load, under /v1/browser: journey.js with its types, and the images of the catalogue.

`journey.js` may change with the service; `journey-HASH.js` is the same text under a name that never changes its
content, so that browsers keep it and pages may pin it.
"""

import gzip
import hashlib
import importlib.resources
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from litestar import Request, Response, get
from litestar.exceptions import NotFoundException
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath

from api.catalogue_files import Image
from api.components import CurrentParts
from api.decisions.pages import IMAGES

_FOLDER = IMAGES.rpartition("/")[0]
_NONE = re.compile(r";q=0(\.0*)?$")
_MINUTES, _FOREVER = "public, max-age=300", "public, max-age=31536000, immutable"

_FOR_PAGES = {  # of any origin; a picture that is opened by itself runs nothing
    "Access-Control-Allow-Origin": "*",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'",
    "Cross-Origin-Resource-Policy": "cross-origin",
    "X-Content-Type-Options": "nosniff",
}


class BrowserFile(NamedTuple):
    """File as browsers load it: its bytes, and packed by gzip if that is shorter; media type, ETag, and for how long it
    is kept.
    """

    content: bytes
    packed: bytes | None
    media: str
    etag: str
    kept: str


def browser_file(content: bytes, media: str, kept: str) -> BrowserFile:
    """File of these bytes, packed once for all who load it."""
    packed = gzip.compress(content, 9, mtime=0)
    etag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    return BrowserFile(content, packed if len(packed) < len(content) else None, media, etag, kept)


def script_files() -> dict[str, BrowserFile]:
    """journey.js, its types, and journey.js under the name of its hash, by name."""
    folder = importlib.resources.files("api.pages")
    script = _slim(folder.joinpath("journey.js").read_text(encoding="utf-8")).encode()
    types = folder.joinpath("journey.d.ts").read_bytes()
    number = hashlib.sha256(script).hexdigest()[:12]
    return {
        "journey.js": browser_file(script, "text/javascript", _MINUTES),
        f"journey-{number}.js": browser_file(script, "text/javascript", _FOREVER),
        "journey.d.ts": browser_file(types, "text/plain", _MINUTES),
    }


def _slim(text: str) -> str:
    """The script without indentation, blank lines and lines of comment: an eighth less to send. No text of it spans
    lines but the style sheet, to which indentation means nothing.
    """
    lines = (line.strip() for line in text.splitlines())
    return "".join(f"{line}\n" for line in lines if line and not line.startswith("//"))


def routes(current: CurrentParts) -> list[HTTPRouteHandler]:
    """Route handlers of one service. Files have no secrets: any page may load them."""
    scripts, made = script_files(), dict[Image, BrowserFile]()

    @get(f"{_FOLDER}/{{name:str}}", include_in_schema=False, opt={"public": True})
    async def script(request: Request[Any, Any, Any], name: FromPath[str]) -> Response[bytes]:
        if name not in scripts:
            raise NotFoundException
        return answered(request, scripts[name], _FOR_PAGES)

    @get(f"{IMAGES}/{{name:str}}", include_in_schema=False, opt={"public": True})
    async def image(request: Request[Any, Any, Any], name: FromPath[str]) -> Response[bytes]:
        found = current.parts.images.get(name)
        if found is None:
            raise NotFoundException
        if found not in made:
            made[found] = browser_file(found.content, found.media, _MINUTES)
        return answered(request, made[found], _FOR_PAGES)

    return [script, image]


def answered(request: Request[Any, Any, Any], file: BrowserFile, more: Mapping[str, str]) -> Response[bytes]:
    """The file, packed for who takes that; 304 for who has it. `more`: headers of its own."""
    headers = {"Cache-Control": file.kept, "ETag": file.etag, "Vary": "Accept-Encoding", **more}
    known = [one.strip().removeprefix("W/") for one in request.headers.get("if-none-match", "").split(",")]
    if file.etag in known or "*" in known:
        return Response(b"", status_code=304, headers=headers)
    takes = request.headers.get("accept-encoding", "").lower().replace(" ", "").split(",")
    packed = file.packed if any(one.partition(";")[0] == "gzip" and not _NONE.search(one) for one in takes) else None
    if packed is not None:
        headers["Content-Encoding"] = "gzip"
    return Response(packed or file.content, media_type=file.media, headers=headers)
