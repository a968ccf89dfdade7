"""Who gets into the console, for how long, and what a page of another site can do there: nothing."""

import datetime as dt
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import pytest

from api.app import create_service
from api.clocks import Clock
from api.http.keys import create
from api.settings import Settings
from api.stores.memory.store import MemoryStore
from tests.api.console.conftest import HOST, Operator, Serving

SOME_ID = "01890a5d-ac96-774b-bcce-b302099a8057"
PAGES = ["/console", "/console/stages/signup", "/console/decisions", f"/console/decisions/{SOME_ID}", "/console/people"]
FORMS = ["/console/decisions", f"/console/decisions/{SOME_ID}/recompute", "/console/people"]
HOUR = 3600.0


def test_a_key_that_may_read_signs_in_and_goes_on_to_the_page_that_was_asked_for(stranger: Operator, key: str) -> None:
    sent_away = stranger.get("/console/stages/signup?f.age=4", follow_redirects=False)
    assert sent_away.status_code == 303
    form = stranger.page(sent_away.headers["location"])
    assert form.fields == {"next": "/console/stages/signup?f.age=4"}
    entered = stranger.sign_in(key, next=form.fields["next"])
    assert (entered.status_code, entered.headers["location"]) == (303, "/console/stages/signup?f.age=4")
    cookie = entered.headers["set-cookie"].lower()
    assert all(word in cookie for word in ("httponly", "samesite=strict", "secure", "path=/console"))
    assert key.partition(".")[2].lower() not in cookie
    assert "Key ana" in stranger.page("/console").text


@pytest.mark.parametrize("path", PAGES)
def test_without_a_session_no_page_is_shown(stranger: Operator, path: str) -> None:
    for cookie in ("", "x", "e30.x", "." * 300, "a" * 4000):
        reply = stranger.get(path, headers={"Cookie": f"journey_console={cookie}"}, follow_redirects=False)
        assert reply.status_code == 303, cookie
        assert reply.headers["location"].startswith("/console/sign-in?next=%2Fconsole")
        assert reply.content == b""


@pytest.mark.parametrize("path", FORMS)
def test_without_a_session_no_form_is_taken(stranger: Operator, path: str) -> None:
    reply = stranger.post(path, data={"csrf": "x", "user": "u"}, follow_redirects=False)
    assert (reply.status_code, reply.headers["location"], reply.content) == (303, "/console/sign-in", b"")


def test_an_api_key_in_a_header_is_no_session(stranger: Operator, key: str) -> None:
    reply = stranger.get("/console", headers={"X-API-Key": key}, follow_redirects=False)
    assert reply.status_code == 303


@pytest.mark.parametrize("wrong", ["", ".", "ana.", "ana.wrong", "nobody.secret", "<b>.x", "é.ü", "x" * 3000])
def test_a_wrong_key_is_told_so_and_begins_no_session(stranger: Operator, wrong: str) -> None:
    reply = stranger.sign_in(wrong)
    assert reply.status_code == 401
    assert "This is not a key of this service." in reply.text
    assert "set-cookie" not in reply.headers
    assert len(wrong) < 2 or wrong not in reply.text


def test_a_key_that_may_not_read_is_told_which_scope_is_missing(desk: Serving, key_file: Path) -> None:
    decides = create(key_file, "shop", ["decide", "admin"])
    with desk(keys=str(key_file)) as client:
        reply = client.sign_in(decides)
        assert (reply.status_code, "set-cookie" in reply.headers) == (403, False)
        assert "scope “read”" in reply.text


def test_an_expired_key_is_told_when_to_who_has_the_secret(
    desk: Serving, key_file: Path, later: Callable[[float], int]
) -> None:
    key = create(key_file, "old", ["read"], expires=dt.datetime(2025, 10, 9, 9, tzinfo=dt.UTC))
    with desk(keys=str(key_file)) as client:
        assert client.sign_in(key).status_code == 303
        client.page("/console")
        later(600)
        assert client.get("/console", follow_redirects=False).status_code == 303  # the session ends with its key
        reply = client.sign_in(key)
        assert (reply.status_code, "expired at 2025-10-09T09:00:00Z" in reply.text) == (401, True)


def test_wrong_keys_of_one_address_are_answered_429_in_the_end(stranger: Operator) -> None:
    statuses = [stranger.sign_in("ana.wrong").status_code for _ in range(62)]
    assert statuses[:60] == [401] * 60
    assert statuses[60:] == [429] * 2
    assert "<h1>Too many requests</h1>" in stranger.sign_in("ana.wrong").text


def test_a_session_ends_half_an_hour_after_the_last_page(operator: Operator, later: Callable[[float], int]) -> None:
    later(0.4 * HOUR)
    operator.page("/console")
    later(0.4 * HOUR)
    operator.page("/console/people")
    later(0.5 * HOUR)
    assert operator.get("/console", follow_redirects=False).status_code == 303


def test_a_page_that_looks_for_news_by_itself_keeps_no_session_alive(
    operator: Operator, later: Callable[[float], int]
) -> None:
    later(0.4 * HOUR)
    operator.page("/console", headers={"X-Console-Refresh": "1"})
    later(0.1 * HOUR)
    assert operator.get("/console", follow_redirects=False).status_code == 303


def test_a_session_ends_after_twelve_hours_whoever_sits_there(
    operator: Operator, later: Callable[[float], int]
) -> None:
    for _ in range(29):
        later(0.41 * HOUR)
        operator.page("/console")
    later(0.2 * HOUR)
    assert operator.get("/console", follow_redirects=False).status_code == 303


def _other_secret(text: str) -> str:
    before = text.partition('sha256 = "')[2][:64]
    return text.replace(before, "0" * 64)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda _: "", id="removed"),
        pytest.param(lambda text: text.replace('"read", ', ""), id="may not read any more"),
        pytest.param(_other_secret, id="has another secret"),
    ],
)
def test_a_session_ends_when_the_file_of_keys_says_so(
    clock: Clock, catalogue_file: Path, key_file: Path, key: str, change: Callable[[str], str]
) -> None:
    settings = Settings(app=str(catalogue_file), salt="salt", keys=str(key_file))
    made = create_service(settings, clock=clock, store=MemoryStore())
    with Operator(made.app, base_url=HOST) as client:
        client.sign_in(key)
        client.page("/console")
        changed = change(key_file.read_text("utf-8"))
        assert changed != key_file.read_text("utf-8")
        key_file.write_text(changed, "utf-8")
        client.blocking_portal.call(made.reload)
        assert client.get("/console", follow_redirects=False).status_code == 303


def test_a_rotated_key_goes_on_until_its_earlier_secret_ends(
    clock: Clock, later: Callable[[float], int], catalogue_file: Path, key_file: Path, key: str
) -> None:
    made = create_service(
        Settings(app=str(catalogue_file), salt="salt", keys=str(key_file)), clock=clock, store=MemoryStore()
    )
    with Operator(made.app, base_url=HOST) as client:
        client.sign_in(key)
        text = key_file.read_text("utf-8")
        before = text.partition('sha256 = "')[2][:64]
        ends = "2025-10-09T09:00:00Z"
        earlier = f'earlier = [{{ sha256 = "{before}", expires = {ends} }}]\n'
        key_file.write_text(_other_secret(text) + earlier, "utf-8")
        client.blocking_portal.call(made.reload)
        client.page("/console")
        later(600)
        assert client.get("/console", follow_redirects=False).status_code == 303


def test_another_service_with_the_same_salt_takes_the_session_and_one_with_another_does_not(
    desk: Serving, key_file: Path, key: str
) -> None:
    """So replicas behind a proxy take each other's."""
    with desk(keys=str(key_file)) as first:
        first.sign_in(key)
        token = first.cookies["journey_console"]
    for salt, status in (("salt", 200), ("another", 303)):
        with desk(keys=str(key_file), salt=salt) as other:
            headers = {"Cookie": f"journey_console={token}"}
            assert other.get("/console", headers=headers, follow_redirects=False).status_code == status


def test_a_token_that_was_changed_anywhere_is_none(operator: Operator) -> None:
    token = operator.cookies["journey_console"]
    operator.cookies.clear()
    for at in range(0, len(token), 7):
        wrong = token[:at] + ("A" if token[at] != "A" else "B") + token[at + 1 :]
        headers = {"Cookie": f"journey_console={wrong}"}
        assert operator.get("/console", headers=headers, follow_redirects=False).status_code == 303, at
    headers = {"Cookie": f"journey_console={token}"}
    assert operator.get("/console", headers=headers, follow_redirects=False).status_code == 200


def test_who_signs_out_is_out(operator: Operator) -> None:
    reply = operator.submit("/console/sign-out")
    assert (reply.status_code, reply.headers["location"]) == (303, "/console/sign-in")
    assert "journey_console" not in operator.cookies
    assert operator.get("/console", follow_redirects=False).status_code == 303


@pytest.mark.parametrize("path", [*FORMS, "/console/sign-out"])
def test_a_form_that_is_not_of_a_page_of_the_session_is_refused(operator: Operator, path: str) -> None:
    csrf = operator.page("/console").fields["csrf"]
    for sent in ({}, {"csrf": ""}, {"csrf": csrf[:-1]}, {"csrf": "é"}, {"other": csrf}):
        reply = operator.post(path, data={"user": "u", **sent}, follow_redirects=False)
        assert (reply.status_code, "not of a page of your session" in reply.text) == (403, True), sent
    headers = {"Sec-Fetch-Site": "cross-site"}
    reply = operator.post(path, data={"user": "u", "csrf": csrf}, headers=headers, follow_redirects=False)
    assert (reply.status_code, "another site" in reply.text) == (403, True)
    assert operator.page("/console")


def test_the_secret_of_an_earlier_session_opens_no_form_of_the_next(operator: Operator, key: str) -> None:
    csrf = operator.page("/console").fields["csrf"]
    operator.sign_in(key)
    assert operator.post("/console/people", data={"csrf": csrf, "user": "u"}).status_code == 403


def test_another_site_cannot_sign_a_person_in(stranger: Operator, key: str) -> None:
    headers = {"Sec-Fetch-Site": "cross-site"}
    reply = stranger.post("/console/sign-in", data={"key": key}, headers=headers, follow_redirects=False)
    assert (reply.status_code, "set-cookie" in reply.headers) == (403, False)


@pytest.mark.parametrize(
    "elsewhere",
    [
        "https://evil.example", "//evil.example", "/console//evil.example", "/\\evil.example", "/consoleevil",
        "/console\\..\\x", "javascript:alert(1)", "/v1/stages", "", "/console/\r\nSet-Cookie: a=b", "/console/sign-in",
        "/console?next=//evil.example", "/console@evil.example", "/console/../docs//x",
    ],
)  # fmt: skip
def test_nobody_is_sent_elsewhere_after_the_sign_in(stranger: Operator, key: str, elsewhere: str) -> None:
    assert stranger.page(f"/console/sign-in?next={quote(elsewhere, safe='')}").fields == {"next": "/console"}
    reply = stranger.sign_in(key, next=elsewhere)
    assert reply.headers["location"] == "/console"


def test_what_is_no_form_is_refused(operator: Operator) -> None:
    for content, status in ((b"\xff=\xfe", 403), (b"csrf=%ff", 403), (b"a=1&" * 100, 403), (b"x" * 20_000, 413)):
        reply = operator.post("/console/people", content=content)
        assert (reply.status_code, reply.headers["content-type"].partition(";")[0]) == (status, "text/html"), content


def test_a_trial_asks_for_no_key_and_says_so(desk: Serving) -> None:
    with desk() as client:
        assert client.get("/console/sign-in", follow_redirects=False).headers["location"] == "/console"
        assert "Trial (--dev): no key is asked" in client.page("/console").text
        assert client.submit("/console/people", "/console/people", user="u").status_code == 200
        assert client.post("/console/people", data={"user": "u"}).status_code == 403


def test_the_session_of_a_trial_is_none_where_keys_are_needed(desk: Serving, key_file: Path, key: str) -> None:
    with desk() as trial:
        trial.page("/console")
        token = trial.cookies["journey_console"]
    with desk(keys=str(key_file)) as client:
        headers = {"Cookie": f"journey_console={token}"}
        assert client.get("/console", headers=headers, follow_redirects=False).status_code == 303


def test_a_cookie_that_did_not_come_is_left_alone(stranger: Operator) -> None:
    """Browsers keep it back when the person follows a link from another site; the session goes on."""
    assert "set-cookie" not in stranger.get("/console", follow_redirects=False).headers
    headers = {"Cookie": "journey_console=old"}
    assert "Max-Age=0" in stranger.get("/console", headers=headers, follow_redirects=False).headers["set-cookie"]


def test_a_person_without_encryption_is_told_that_no_session_will_be_kept(stranger: Operator) -> None:
    words = "will not keep the session"
    assert words not in stranger.page("/console/sign-in").text
    stranger.base_url = stranger.base_url.copy_with(scheme="http")
    assert words in stranger.page("/console/sign-in").text
    assert words not in stranger.page("/console/sign-in", headers={"X-Forwarded-Proto": "https"}).text
