"""OpenFeature's web provider in a real browser, from a page of another origin: what CORS allows is what it needs."""

import functools
import http.server
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.waiting import PATIENCE

HERE = Path(__file__).parent
PROVIDER = "/node_modules/@openfeature/ofrep-web-provider"
IMPORTS = {
    "@openfeature/web-sdk": "/node_modules/@openfeature/web-sdk/dist/esm/index.js",
    "@openfeature/core": "/node_modules/@openfeature/core/dist/esm/index.js",
    "@openfeature/ofrep-web-provider": f"{PROVIDER}/index.esm.js",
    "@openfeature/ofrep-core": f"{PROVIDER}/node_modules/@openfeature/ofrep-core/index.esm.js",
}
PAGE = """<!doctype html><pre id="told"></pre>
<script type="importmap">{"imports": IMPORTS}</script>
<script type="module">
import { OpenFeature } from '@openfeature/web-sdk'
import { OFREPWebProvider } from '@openfeature/ofrep-web-provider'
const seen = []
const counting = async (request, options) => {
  const reply = await fetch(request, options)
  seen.push([reply.status, reply.headers.get('etag')])
  return reply
}
const provider = new OFREPWebProvider({
  baseUrl: 'URL', headers: [['X-API-Key', 'KEY']], fetchImplementation: counting, pollInterval: 50,
  cacheMode: 'disabled',
})
try {
  await OpenFeature.setContext({ targetingKey: 'USER', cart: 80.5 })
  await OpenFeature.setProviderAndWait(provider)
  const found = OpenFeature.getClient().getObjectDetails('checkout', { default: true })
  while (seen.length < 3) await new Promise((done) => setTimeout(done, 20))
  document.getElementById('told').textContent = JSON.stringify({ seen, found })
} catch (error) {
  document.getElementById('told').textContent = JSON.stringify({ error: String(error) })
}
</script>"""


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def browse(tmp_path: Path, browser: Any, node: Callable[..., str]) -> Iterator[Callable[[str], Any]]:
    """browse(page): what the page wrote into #told, from a server of its own."""
    (tmp_path / "node_modules").symlink_to(HERE / "node_modules")
    handler = functools.partial(Quiet, directory=str(tmp_path))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()

    def show(page: str) -> Any:
        (tmp_path / "index.html").write_text(page, encoding="utf-8")
        context = browser.new_context()
        try:
            opened = context.new_page()
            opened.set_default_timeout(1000 * PATIENCE)
            opened.goto(f"http://127.0.0.1:{server.server_port}/index.html")
            told = opened.locator("#told")
            told.filter(has_text="{").wait_for()
            return json.loads(told.inner_text())
        finally:
            context.close()

    yield show
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_page_of_another_origin_reads_flags_and_etags(shop: Any, browse: Callable[[str], Any]) -> None:
    page = PAGE.replace("IMPORTS", json.dumps(IMPORTS)).replace("URL", shop.url)
    told = browse(page.replace("KEY", shop.key).replace("USER", "in-a-browser"))
    assert "error" not in told, told
    found, (first, second, *_) = told["found"], told["seen"]
    assert (found["reason"], first[0], second[0]) == ("SPLIT", 200, 304)
    assert first[1] == second[1] is not None  # the page may read the tag
    receipt = shop.receipt(found["flagMetadata"]["decisionId"])
    assert receipt["nudge"]["id"] == found["variant"]


def test_a_page_is_told_nothing_where_its_origin_is_not_declared(running: Any, browse: Callable[[str], Any]) -> None:
    page = PAGE.replace("IMPORTS", json.dumps(IMPORTS)).replace("URL", running.url)
    assert "error" in browse(page.replace("KEY", running.key).replace("USER", "in-a-browser"))
