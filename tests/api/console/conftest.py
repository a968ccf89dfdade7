"""The console of a running service: people who sign in, and pages that are read as people read them."""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from litestar.testing import TestClient

from api.app import create_app
from api.clocks import Clock
from api.http.keys import SCOPES, create
from api.settings import Settings
from api.stores.memory.store import MemoryStore
from api.stores.protocol import Store
from tests.api.conftest import Caller

HOST = "https://desk.example"
_VOID = {"meta", "link", "input", "br", "img"}


class PageText(HTMLParser):
    """What a page says: facts (of description lists, by their names, one section after the other), rows of tables by
    their first cell, links, hidden fields of forms, and all text.
    """

    def __init__(self, html: str):
        super().__init__()
        self.text, self.links, self.tags = "", list[tuple[str, str]](), list[tuple[str, dict[str, str | None]]]()
        self.facts, self.rows, self.fields = list[tuple[str, str]](), list[list[str]](), dict[str, str]()
        self._open = list[tuple[str, list[str]]]()
        self.feed(html)
        assert self._open == [], "every element is closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.append((tag, given))
        if tag == "input" and given.get("type") == "hidden":
            self.fields[str(given["name"])] = str(given["value"])
        if tag == "a":
            self.links.append((str(given["href"]), ""))
        if tag == "tr":
            self.rows.append([])
        if tag not in _VOID and not (tag in ("rect", "line") and self.get_starttag_text().endswith("/>")):  # type: ignore[union-attr]
            self._open.append((tag, []))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data
        for _, words in self._open:
            words.append(data)

    def handle_endtag(self, tag: str) -> None:
        opened, words = self._open.pop()
        assert opened == tag
        said = re.sub(r"\s+", " ", "".join(words)).strip()
        if tag in ("td", "th"):
            self.rows[-1].append(said)
        elif tag == "dt":
            self.facts.append((said, ""))
        elif tag == "dd":
            self.facts[-1] = (self.facts[-1][0], said)
        elif tag == "a":
            self.links[-1] = (self.links[-1][0], said)

    def row(self, name: str) -> list[str]:
        """The first row whose first cell says so, without that cell."""
        return next(row[1:] for row in self.rows if row and row[0] == name)

    def cell(self, name: str, heading: str) -> str:
        """Cell under a heading, of the first row with that name in a table with such a column."""
        for place, row in enumerate(self.rows):
            heads = next((above for above in reversed(self.rows[:place]) if heading in above), None)
            if row and row[0] == name and heads is not None and len(heads) == len(row):
                return row[heads.index(heading)]
        raise AssertionError(f"no row {name!r} with a cell {heading!r}")

    def fact(self, name: str, of: int = 0) -> str:
        return [said for known, said in self.facts if known == name][of]


class Operator(Caller):
    """A person with a browser at the console; the session is in the cookies."""

    key: str = ""

    def sign_in(self, key: str, **more: str) -> Any:
        return self.post("/console/sign-in", data={"key": key, **more}, follow_redirects=False)

    def page(self, path: str, status: int = 200, headers: Mapping[str, str] | None = None) -> PageText:
        """A page of whoever is signed in."""
        reply = self.get(path, headers=headers, follow_redirects=False)
        assert reply.status_code == status, reply.text
        return PageText(reply.text)

    def submit(self, path: str, on: str = "/console", **fields: str) -> Any:
        """A form of a page of the session."""
        csrf = self.page(on).fields["csrf"]
        return self.post(path, data={"csrf": csrf, **fields}, follow_redirects=False)

    def of_app(self, method: str, path: str, **more: Any) -> Any:
        """A request of an app with its key, and without the cookies of the person."""
        kept, self.cookies = self.cookies, {}
        try:
            return self.request(method, path, headers={"X-API-Key": self.key} if self.key else {}, **more)
        finally:
            self.cookies = kept

    def ask(self, stage: str = "signup", user: str = "u", **more: Any) -> Any:
        reply = self.of_app("POST", "/v1/decisions", json={"stage": stage, "user_id": user, **more})
        assert reply.status_code == 200, reply.text
        return reply.json()

    def tell(self, decision: Any, kind: str = "reward", **more: Any) -> Any:
        told = {"decision_id": decision["decision_id"], "kind": kind, **more}
        reply = self.of_app("POST", "/v1/outcomes", json=told)
        assert reply.status_code == 200, reply.text
        return reply.json()

    def learned(self) -> Any:
        reply = self.of_app("GET", "/v1/policies", params={"wait": True})
        assert reply.status_code == 200, reply.text
        return {policy["stage"]: policy for policy in reply.json()["policies"]}

    def receipt(self, decision: Any) -> Any:
        return self.of_app("GET", f"/v1/decisions/{decision['decision_id']}").json()


Serving = Callable[..., AbstractContextManager[Operator]]


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    return tmp_path / "keys.toml"


@pytest.fixture
def key(key_file: Path) -> str:
    """A key that may do what an app does, and read."""
    return create(key_file, "ana", list(SCOPES))


@pytest.fixture
def desk(clock: Clock, catalogue_file: Path) -> Serving:
    """desk(store=, keys=, …): a person at the console of a running service, without keys unless a file is given."""

    @contextmanager
    def serve(store: Store | None = None, **settings: Any) -> Iterator[Operator]:
        chosen = {"app": str(catalogue_file), "salt": "salt", "dev": "keys" not in settings, **settings}
        app = create_app(Settings(**chosen), clock=clock, store=store or MemoryStore())
        with Operator(app, base_url=HOST, raise_server_exceptions=False) as client:
            yield client

    return serve


@pytest.fixture
def operator(desk: Serving, key_file: Path, key: str) -> Iterator[Operator]:
    """A person who is signed in with the key."""
    with desk(keys=str(key_file)) as running:
        running.key = key
        assert running.sign_in(key).status_code == 303
        yield running


@pytest.fixture
def stranger(desk: Serving, key_file: Path, key: str) -> Iterator[Operator]:
    """A person who is not signed in."""
    with desk(keys=str(key_file)) as running:
        running.key = key
        yield running


@pytest.fixture
def boss(desk: Serving, key_file: Path) -> Iterator[Operator]:
    """A person who is signed in with a key that may change things."""
    made = create(key_file, "boss", [*SCOPES, "admin"])
    with desk(keys=str(key_file)) as running:
        running.key = made
        assert running.sign_in(made).status_code == 303
        yield running


__all__ = ["HOST", "Operator", "PageText", "Serving", "TestClient"]
