"""`journey-bandit preview`: the files of the page, what it says of each nudge, and how it is served."""

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import msgspec
import pytest
from click.testing import CliRunner, Result

from api.catalogue_files import read_catalogue
from bandit.catalogue.content.model import PAGE_FORMATS
from bandit.errors import CatalogueError, NotFound, RemoteError
from journey_bandit.main import group
from journey_bandit.service.preview import PreviewServer, preview_of, preview_site

APPS = ("fashion", "fintech", "gaming", "subscription", "travel")
SHOP = """app = "shop"
currency = "EUR"
locale = "de"

[pages]
image_hosts = ["https://img.shop.example"]

[stages.look]
reward = { kind = "binary", window = "1h" }
features = {}

[stages.look.nudges.coat]
type = "scarcity"
format = "banner"
evidence = { kind = "stock", at_most = 2 }

[stages.look.nudges.coat.content]
image = "coat.svg"
link = "/cart"
texts.de = { title = "Noch {stock} da", button = "In den Korb" }
texts.ar = { title = "بقي {stock}", button = "السلة" }

[stages.look.nudges.plain]
type = "help"
format = "toast"
payload = { title = "Ask us" }
"""


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """Catalogue with a picture beside it, and one that no nudge shows."""
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "coat.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>", encoding="utf-8")
    (tmp_path / "images" / "other.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>", encoding="utf-8")
    path = tmp_path / "shop.toml"
    path.write_text(SHOP, encoding="utf-8")
    return path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(group, [str(one) for one in arguments])


@contextmanager
def served(app: Path) -> Iterator[httpx.Client]:
    server = PreviewServer(0, lambda: preview_site(str(app)), preview_site(str(app)))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    with server, httpx.Client(base_url=f"http://127.0.0.1:{server.server_port}") as client:
        try:
            yield client
        finally:
            server.shutdown()
            thread.join()


def test_a_folder_has_all_that_a_web_server_needs(shop: Path, tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "preview"
    done = run("preview", "--app", shop, "--output", folder)
    assert done.exit_code == 0, done.exception
    assert f"wrote 9 files to {folder}" in done.output
    names = {"index.html", "frame.html", "preview.js", "frame.js", "style.css", "frame.css"}
    names |= {"journey.js", "catalogue.json", "images/coat.svg"}
    assert {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} == names
    root = Path(__file__).parents[3]
    assert (folder / "journey.js").read_bytes() == (root / "api" / "pages" / "journey.js").read_bytes()
    assert (folder / "images" / "coat.svg").read_bytes() == (shop.parent / "images" / "coat.svg").read_bytes()


@pytest.mark.parametrize("name", ["index.html", "frame.html"])
def test_pages_allow_nothing_inline_and_no_other_host_but_those_of_pictures(shop: Path, name: str) -> None:
    site = preview_site(str(shop))
    page = site.files[name].decode()
    assert f'<meta http-equiv="Content-Security-Policy" content="{site.policy}">' in page
    assert "img-src 'self' data: https://img.shop.example;" in site.policy
    assert site.policy.count("https:") == 1
    assert "default-src 'none'" in site.policy
    assert "unsafe" not in site.policy
    assert not any(inline in page for inline in ("<style", "style=", " on", "POLICY"))


def test_a_nudge_comes_with_its_words_in_every_locale_and_evidence_that_its_rule_accepts(shop: Path) -> None:
    seen = msgspec.to_builtins(preview_of(read_catalogue(str(shop))))
    (stage,) = seen["stages"]
    coat, plain = stage["nudges"]
    assert (seen["app"], seen["title"], seen["locale"]) == ("shop", "shop", "de")
    assert coat["nudge"] == {"id": "coat", "type": "scarcity", "format": "banner", "payload": {}}
    assert {tag: content["title"] for tag, content in coat["contents"].items()} == {
        "de": "Noch {stock} da",
        "ar": "بقي {stock}",
    }
    assert coat["contents"]["ar"]["locale"] == "ar"
    assert coat["contents"]["ar"]["image"] == "/images/coat.svg"
    assert coat["evidence"] == {"stock": 2, "as_of": -110}, "no more than may be claimed"
    assert (plain["contents"], plain["evidence"], plain["shown"]) == ({}, None, True)


@pytest.mark.parametrize("app", APPS)
def test_every_nudge_of_a_shipped_catalogue_is_there(app: str) -> None:
    catalogue = read_catalogue(app)
    seen = preview_of(catalogue)
    assert [stage.name for stage in seen.stages] == list(catalogue.stages)
    samples: dict[str | None, dict[str, int]] = {None: {}, "stock": {"stock": 3}, "deadline": {"deadline": 7200}}
    for stage in seen.stages:
        declared = catalogue.stages[stage.name].nudges
        assert [one.nudge.id for one in stage.nudges] == list(declared)
        for one in stage.nudges:
            own = declared[one.nudge.id]
            assert one.shown == (own.format in PAGE_FORMATS)
            assert (one.nudge.format, one.nudge.payload) == (own.format, own.payload)
            assert list(one.contents) == ([] if own.content is msgspec.UNSET else list(own.content.texts))
            sample = msgspec.to_builtins(one.evidence) or {}
            assert sample.pop("as_of", None) == (None if own.evidence is None else -110)
            assert sample == samples[own.evidence.kind if own.evidence else None]


def test_mistakes_are_those_that_catalogue_check_finds(shop: Path) -> None:
    shop.write_text(SHOP.replace("{stock} da", "{stok} da"), encoding="utf-8")
    ours, theirs = run("preview", "--app", shop, "--output", shop.parent / "out"), run("catalogue", "check", shop)
    assert isinstance(ours.exception, CatalogueError)
    assert str(ours.exception) == str(theirs.exception)
    assert "stok" in str(ours.exception)
    assert not (shop.parent / "out").exists()


def test_an_app_that_is_not_shipped_is_not_found() -> None:
    assert isinstance(run("preview", "--app", "fashon").exception, NotFound)


def test_a_port_that_is_taken_ends_with_what_to_do() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run("preview", "--app", "fashion", "--port", port)
    assert isinstance(done.exception, RemoteError)
    assert f"127.0.0.1:{port}" in str(done.exception)
    assert "--port another one" in str(done.exception)


def test_every_file_is_served_with_the_policy(shop: Path) -> None:
    site = preview_site(str(shop))
    with served(shop) as client:
        for name, content in site.files.items():
            answer = client.get(f"/{name}?stage=look")
            assert (answer.status_code, answer.content) == (200, content)
            assert answer.headers["Content-Security-Policy"] == f"{site.policy}; frame-ancestors 'self'"
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert client.get("/").content == site.files["index.html"]
        assert client.get("/journey.js").headers["Content-Type"] == "text/javascript; charset=utf-8"
        assert client.get("/images/coat.svg").headers["Content-Type"] == "image/svg+xml"
        assert client.get("/images/other.svg").status_code == 404, "no nudge shows it"


def title(client: httpx.Client) -> str:
    stage, *_ = json.loads(client.get("/catalogue.json").content)["stages"]
    return str(stage["nudges"][0]["contents"]["de"]["title"])


def test_who_loads_the_page_again_sees_the_catalogue_as_it_is_now(shop: Path) -> None:
    with served(shop) as client:
        shop.write_text(SHOP.replace("Noch {stock} da", "Nur {stock} da"), encoding="utf-8")
        assert title(client) == "Noch {stock} da", "frames of one page show one catalogue"
        assert client.get("/").status_code == 200
        assert title(client) == "Nur {stock} da"
        shop.write_text(SHOP.replace("{stock} da", "{stok} da"), encoding="utf-8")
        answer = client.get("/")
        assert (answer.status_code, answer.headers["Content-Type"]) == (500, "text/plain; charset=utf-8")
        assert "content.texts.de.title" in answer.text
