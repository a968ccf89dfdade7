"""What the pages say is what the service says elsewhere, and what came from outside is text on them."""

import datetime as dt
import functools
import re
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec
import numpy as np
import pytest

from api.console import decision_pages, rendering, stage_page
from api.console.decision_pages import DecisionList, SearchForm, first_at, search
from api.http.keys import Scope, create
from api.stores.decision_log import DecisionRecord
from api.stores.memory.store import MemoryStore
from api.stores.protocol import Store
from api.stores.sqlite.store import SqliteStore
from bandit import engine, features
from bandit.errors import InvalidRequest
from bandit.guardrails import DAY
from bandit.snapshot import from_zip
from journey_bandit.testing.store_builders import CATALOGUE, HOUR, STAGES, START, ContractLedger, Decide
from tests.api.console.conftest import Operator, PageText, Serving
from tests.api.releases.test_releases import body

HOSTILE, TAG = "<script>alert(1)</script>", "<script>alert(1)"
SECONDS = 3600.0


def traffic(client: Operator, later: Callable[[float], int]) -> list[Any]:
    """Decisions at every stage, rewarded in part; an hour later all but those of the longest window have settled."""
    made = [client.ask(stage, f"u{n % 5}") for n in range(15) for stage in STAGES]
    for n, one in enumerate(made):
        if n % 3 == 0 and one["stage"] != "shown":
            client.tell(one, value=1.0)
    later(SECONDS)
    client.learned()
    if client.key:
        assert client.sign_in(client.key).status_code == 303  # the session has ended
    made += [client.ask("signup", "late", context={"age": 40, "plan": "pro"}) for _ in range(3)]
    return made


def _day(when: str) -> int:
    return int(dt.datetime.fromisoformat(when).timestamp()) // 86_400


def card(page: PageText, stage: str) -> dict[str, str]:
    """Facts of one stage on the overview."""
    cards = [place for place, (name, _) in enumerate(page.facts) if name == "People"]
    begin = cards[STAGES.index(stage)]
    return dict(page.facts[begin : [*cards, len(page.facts)][STAGES.index(stage) + 1]])


def test_the_overview_says_what_the_policies_and_the_ledger_say(
    operator: Operator, later: Callable[[float], int]
) -> None:
    made = traffic(operator, later)
    policies, page = operator.learned(), operator.page("/console")
    assert [name for _, name in page.links if name in STAGES] == list(STAGES)
    for stage in STAGES:
        facts, mine = card(page, stage), [operator.receipt(one) for one in made if one["stage"] == stage]
        assert facts["Decisions"] == str(len(mine))
        today = START // DAY
        assert facts["today (UTC)"] == str(sum(_day(one["decided_at"]) == today for one in mine))
        assert facts["with a nudge"] == str(sum(one["nudge"]["id"] != "none" for one in mine))
        assert facts["Settled"] == str(sum(one["settled"] is not None for one in mine))
        assert facts["Open"] == str(sum(one["settled"] is None for one in mine))
        learned = [one["settled"]["reward"] for one in mine if one["settled"] and one["settled"]["learned"]]
        mean = rendering.figure(sum(learned) / len(learned) if learned else None)
        assert facts["Mean reward"].split(" ")[0] == mean
        policy = policies[stage]
        assert len(learned) == sum(arm["learned"] for arm in policy["arms"])
        assert f"version {policy['version']}" in facts["Live"]
        audit = policy["holdout"]
        if audit is None:
            assert facts["Nudges against none"] == "–"
        else:
            assert facts["Nudges against none"].startswith(rendering.money(audit["difference"], "EUR"))
            ends = [rendering.money(audit[end], "EUR") for end in ("low", "high")]
            assert " to ".join(ends) in facts["Nudges against none"]
            assert f"{audit['people']} with nudges, {audit['holdout']} without" in facts["Nudges against none"]
    assert card(page, "signup")["People"] == "6"
    assert policies["basket"]["holdout"] is not None
    ready = operator.of_app("GET", "/health/ready").json()
    assert page.fact("Version") == ready["version"]
    assert (ready["status"], "Failing" in page.text, "Working" in page.text) == ("ok", False, True)


def test_money_is_said_where_a_unit_of_reward_is_worth_some(operator: Operator, later: Callable[[float], int]) -> None:
    traffic(operator, later)
    page = operator.page("/console")
    mean, _, worth = card(page, "signup")["Mean reward"].partition(" = ")
    assert worth == rendering.money(10.0 * float(mean), "EUR") or abs(float(worth[:-4]) - 10.0 * float(mean)) < 0.01
    assert "EUR" not in card(page, "instant")["Mean reward"]


def test_a_stage_says_of_each_nudge_what_the_policies_and_the_ledger_say(
    operator: Operator, later: Callable[[float], int]
) -> None:
    made = traffic(operator, later)
    policies = operator.learned()
    for stage in STAGES:
        page = operator.page(f"/console/stages/{stage}")
        mine = [operator.receipt(one) for one in made if one["stage"] == stage]
        for arm in policies[stage]["arms"]:
            cell = functools.partial(page.cell, arm["arm"])
            shown = [one for one in mine if one["nudge"]["id"] == arm["arm"]]
            assert cell("Shown") == str(len(shown))
            assert cell("Share") == rendering.percent(len(shown) / len(mine))
            could = sum(arm["arm"] not in one["excluded"] for one in mine)
            assert cell("Of eligible") == rendering.percent(len(shown) / could if could else None)
            assert cell("Settled") == str(sum(one["settled"] is not None for one in shown))
            assert cell("Open") == str(sum(one["settled"] is None for one in shown))
            assert cell("Mean reward") == rendering.figure(arm["mean_reward"])
        excluded = [row for row in page.rows if len(row) == 4 and row[1] in ("no evidence", "holdout")]
        counted = sum(len(one["excluded"]) for one in mine)
        assert sum(int(row[2]) for row in excluded) == counted


def test_the_what_if_draws_as_a_decision_would(operator: Operator, later: Callable[[float], int]) -> None:
    traffic(operator, later)
    page = operator.page("/console/stages/signup?f.age=40&f.plan=pro&f.returning=true&ignored=1")
    given = {"age": 40, "plan": "pro", "returning": True}
    evidence = {"deadline": "2026-01-01T00:00:00Z", "stock": 3}
    decided = operator.ask("signup", "somebody", context=given, evidence=evidence)
    assert decided["excluded"] == {}
    told = {arm: page.cell(arm, "Probability") for arm in decided["propensities"]}
    assert told == {arm: rendering.percent(p) for arm, p in decided["propensities"].items()}
    live = engine.prepare(from_zip(operator.of_app("GET", "/v1/policies/signup/snapshot").content))
    may = np.array([arm in told for arm in live.snapshot.stage_spec.arms])
    best = live.posterior.choose(features.encode(live.schema, given).x, may).propensity
    shown = [page.cell(arm, "Chance of being best") for arm in live.snapshot.stage_spec.arms]
    assert shown == [rendering.percent(p) for p in best.tolist()]
    assert "missing, declared defaults used: plan, returning" in operator.page("/console/stages/signup?f.age=4").text
    wrong = operator.page("/console/stages/signup?f.age=old&f.plan=&f.colour=red")
    assert "context.age" in wrong.text
    assert "context.colour: unknown feature" in wrong.text


def test_a_receipt_on_its_page_is_the_receipt(operator: Operator, later: Callable[[float], int]) -> None:
    made = traffic(operator, later)
    for one in made[:12]:
        page, known = operator.page(f"/console/decisions/{one['decision_id']}"), operator.receipt(one)
        assert one["decision_id"] in page.text
        assert (page.fact("Nudge"), page.fact("Stage")) == (known["nudge"]["id"], one["stage"])
        assert page.fact("Number") == str(known["seq"])
        assert page.fact("Control group") == ("yes" if known["holdout"] else "no")
        assert str(known["u"]) in page.text
        begins = 0.0
        for arm, score in known["arms"].items():
            cells = page.row(f"{arm} drawn" if arm == known["nudge"]["id"] else arm)
            mean, sd, p = score["mean"], score["sd"], score["propensity"]
            low, high = (rendering.figure(mean + side * stage_page.SURE * sd) for side in (-1, 1))
            part = f"{rendering.figure(begins)} to {rendering.figure(begins + p)}" if p else "–"
            figures = [rendering.figure(x) for x in (mean, sd)]
            assert cells == [*figures, f"{low} to {high}", rendering.figure(p), part, known["excluded"].get(arm, "–")]
            begins += p
        for name, value in known["x"].items():
            assert page.row(name) == [rendering.figure(value)]
        if known["settled"]:
            assert f"reward {known['settled']['reward']:g} ({known['settled']['why']})" in page.text
        for outcome in known["outcomes"]:
            assert f"“{outcome['outcome_id']}”, reported by key ana" in page.text.replace(")", "")


def test_u_lies_in_the_part_of_the_nudge_that_was_drawn(operator: Operator) -> None:
    for n in range(20):
        one = operator.ask("signup", f"u{n}")
        reply = operator.get(f"/console/decisions/{one['decision_id']}")
        rects = re.findall(r'<rect class="c\d" x="([\d.]+)" y="12" width="([\d.]+)".*?<title>(\w+):', reply.text)
        at = float(re.findall(r'<line class="u" x1="([\d.]+)"', reply.text)[0])
        (drawn,) = [arm for x, width, arm in rects if float(x) - 0.001 <= at <= float(x) + float(width) + 0.001]
        assert drawn == one["nudge"]["id"]
        assert abs(sum(float(width) for _, width, _ in rects) - 1000.0) < 0.01


def test_a_decision_is_recomputed_equal_to_the_bit(
    desk: Serving, later: Callable[[float], int], tmp_path: Path
) -> None:
    with desk(SqliteStore(tmp_path / "ledger.db")) as client:
        made = traffic(client, later)
        for one in (made[0], made[1], made[-1]):
            path = f"/console/decisions/{one['decision_id']}"
            reply = client.submit(f"{path}/recompute", path)
            assert (reply.status_code, "Equal to the bit" in reply.text) == (200, True)
        unknown = "/console/decisions/01890a5d-ac96-774b-bcce-b302099a8057"
        assert client.submit(f"{unknown}/recompute", path).status_code == 404


def test_what_recomputing_does_not_confirm_is_named(operator: Operator, monkeypatch: pytest.MonkeyPatch) -> None:
    one = operator.ask("signup", "u")
    found = MemoryStore.decisions_by_id

    def changed(self: MemoryStore, ids: list[uuid.UUID]) -> dict[uuid.UUID, DecisionRecord]:
        return {
            i: record._replace(decision=msgspec.structs.replace(record.decision, u=0.5, mean=record.decision.mean + 1))
            for i, record in found(self, ids).items()
        }

    monkeypatch.setattr(MemoryStore, "decisions_by_id", changed)
    path = f"/console/decisions/{one['decision_id']}"
    reply = operator.submit(f"{path}/recompute", path)
    assert "something else for: mean, u" in reply.text
    assert "Equal to the bit" not in reply.text


def test_decisions_are_listed_newest_first_and_page_by_page(operator: Operator, monkeypatch: Any) -> None:
    monkeypatch.setattr(decision_pages, "PAGE", 4)
    made = [operator.ask(STAGES[n % 2], f"u{n}")["decision_id"] for n in range(11)]
    listed, path = list[str](), "/console/decisions"
    while path:
        page = operator.page(path)
        ids = [row[-1] for row in page.rows[1:]]
        assert 0 < len(ids) <= 4
        listed += ids
        path = next((to for to, name in page.links if name == "Older"), "")
    assert listed == made[::-1]
    only = operator.page("/console/decisions?stage=basket")
    assert [row[-1] for row in only.rows[1:]] == made[9:1:-2]
    older = next(to for to, name in only.links if name == "Older")
    assert "stage=basket" in older
    assert [row[-1] for row in operator.page(older).rows[1:]] == [made[1]]


def test_the_form_finds_a_users_decisions_and_no_address_has_the_id(operator: Operator) -> None:
    mine = [operator.ask("signup", "ann/ä <b>")["decision_id"] for _ in range(2)]
    operator.ask("signup", "bob")
    reply = operator.submit("/console/decisions", "/console/decisions", user="ann/ä <b>", stage="signup")
    assert reply.status_code == 303
    there = reply.headers["location"]
    assert re.fullmatch(r"/console/decisions\?stage=signup&person=[0-9a-f]{32}", there)
    page = operator.page(there)
    assert [row[-1] for row in page.rows[1:]] == mine[::-1]
    assert "ann" not in page.text
    assert page.fields["person"] in there
    to = operator.submit("/console/decisions", "/console/decisions", id=f" {mine[0]} ").headers["location"]
    assert to == f"/console/decisions/{mine[0]}"
    assert operator.page(to)


@pytest.mark.parametrize(
    "query",
    ["person=xyz", "person=00", "before=x", "before=-1", "before=" + "9" * 40, "since=yesterday", "until=%00"],
)
def test_a_search_that_cannot_be_read_is_told_so(operator: Operator, query: str) -> None:
    page = operator.page(f"/console/decisions?{query}", 400)
    assert query.partition("=")[0] in page.text


def test_what_is_not_there_is_a_page_that_says_so(operator: Operator) -> None:
    for path in ("/console/stages/none", "/console/decisions/x", "/console/decisions/" + str(uuid.UUID(int=5))):
        assert "There is no such page" in operator.page(path, 404).text
    for path in ("/console/nope", "/console/static/nope.js", "/console/static/..%2fconsole.py"):
        reply = operator.get(path)
        assert (reply.status_code, reply.headers["content-type"].partition(";")[0]) == (404, "text/html")
    reply = operator.put("/console/decisions")
    assert (reply.status_code, "cannot be done here" in reply.text) == (405, True)


def _at(number: int) -> int:
    """Times as decisions get them: a little out of order."""
    return START + number * HOUR


@pytest.fixture
def ledger(store: Store, claimed: Callable[..., ContractLedger], decide: Decide) -> ContractLedger:
    """Forty decisions, one each hour."""
    made = claimed(store)
    made.decided(*(decide(n, user=f"u{n % 4}", at=_at(n)) for n in range(1, 41)))
    return made


def numbers(found: DecisionList) -> list[int]:
    return [row.seq for row in found.rows]


def test_times_bound_a_search(ledger: ContractLedger) -> None:
    store = ledger.store
    assert [first_at(store, _at(n), 40) for n in (0, 1, 17, 40, 41)] == [1, 1, 17, 40, 41]
    since, until = "2025-10-09T13:53:20", "2025-10-09T18:53:20"  # five and ten hours after the start
    assert numbers(search(store, SearchForm(since=since, until=until))) == [9, 8, 7, 6, 5]
    assert numbers(search(store, SearchForm(since=since, before="7"))) == [6, 5]
    assert numbers(search(store, SearchForm(until=since))) == [4, 3, 2, 1]
    assert search(store, SearchForm(since="2030-01-01")).rows == []
    person = ledger.store.decisions_after(4, 1)[0].decision.user.hex()
    assert numbers(search(store, SearchForm(since=since, until=until, person=person))) == [9, 5]
    with pytest.raises(InvalidRequest, match="since"):
        search(store, SearchForm(since="then"))


def test_a_search_looks_at_no_more_than_so_many_and_says_where_it_stopped(
    ledger: ContractLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decision_pages, "SPAN", 10)
    before, seen, pages = "", list[int](), 0
    while True:
        found = search(ledger.store, SearchForm(before=before, since="2025-10-09T13:53:20"))
        seen, pages = seen + numbers(found), pages + 1
        if found.older is None:
            break
        assert found.cut
        before = str(found.older)
    assert seen == list(range(40, 4, -1))
    assert pages == 4
    nobody = search(ledger.store, SearchForm(stage="basket"))
    assert (nobody.rows, nobody.older, nobody.cut) == ([], 31, True)


def test_a_person_is_where_the_journey_says(operator: Operator) -> None:
    made = [operator.ask("signup", "ann")["decision_id"] for _ in range(3)]
    journey = operator.of_app("GET", "/v1/users/ann/journey").json()
    reply = operator.submit("/console/people", "/console/people", user="ann")
    assert reply.status_code == 200
    page = PageText(reply.text)
    assert (page.fact("Stage"), page.fact("Moment")) == (journey["stage"], journey["moment"] or "not now")
    assert page.fact("Why") == journey["why"]
    assert page.fact("May be shown") == ", ".join(journey["eligible"])
    assert [row[-1] for row in page.rows if len(row) == 8][1:] == made[::-1]
    assert dict(row for row in page.rows if len(row) == 2).items() >= journey["excluded"].items()


@pytest.mark.parametrize("scopes", [("read", "events"), ("read", "events", "admin")], ids=" ".join)
def test_what_events_say_is_shown_to_who_may_export(desk: Serving, key_file: Path, scopes: tuple[Scope, ...]) -> None:
    key, app = create(key_file, "eve", list(scopes)), Path(__file__).parents[2] / "journey_shop.toml"
    with desk(app=str(app), keys=str(key_file)) as client:
        client.key = key
        client.sign_in(key)
        sent = {"event_id": "e-1", "event": "Product Viewed", "user_id": "ann", "properties": {"product_id": "p-417"}}
        told = client.of_app("POST", "/v1/events", json={"events": [sent]}).json()
        assert told["events"][0]["status"] == 200
        reply = client.submit("/console/people", "/console/people", user="ann")
        assert "<td>viewed</td>" in reply.text
        assert ("product: p-417" in reply.text) == ("p-417" in reply.text) == ("admin" in scopes)
        assert ("needs a key with the scope “admin”" in reply.text) == ("admin" not in scopes)
        assert ("(not shown)" in reply.text) == ("admin" not in scopes)


def hostile_catalogue() -> str:
    text = CATALOGUE.replace('type = "help"', f'type = "{HOSTILE}"').replace(
        'format = "popup"', f'format = "{HOSTILE}"'
    )
    return text.replace("[stages.signup]\n", f'[stages.signup]\ndescription = "{HOSTILE}"\n').replace(
        'app = "shop"', f'app = "shop"\ntitle = "{HOSTILE}"'
    )


def test_what_came_from_outside_is_text_on_every_page(desk: Serving, tmp_path: Path) -> None:
    file = tmp_path / "hostile.toml"
    file.write_text(hostile_catalogue(), encoding="utf-8")
    with desk(app=str(file)) as client:
        one = client.ask("signup", HOSTILE)
        client.tell(one, value=1.0, outcome_id=HOSTILE)
        paths = ["/console", "/console/stages/signup", f"/console/stages/signup?f.{HOSTILE}={HOSTILE}&f.plan={HOSTILE}"]
        paths += [f"/console/decisions?nudge={HOSTILE}", f"/console/decisions/{one['decision_id']}"]
        paths += [f"/console/stages/{quote(TAG, safe='')}", f"/console/decisions/{quote(TAG, safe='')}"]
        replies = [client.get(path) for path in paths]
        replies.append(client.submit("/console/people", "/console/people", user=HOSTILE))
        for path, reply in zip([*paths, "person"], replies, strict=True):
            assert "alert(1)" in reply.text, path
            assert "<script>" not in reply.text, path
            assert TAG in PageText(reply.text).text or "value=" in reply.text, path


def test_every_page_has_the_headers_and_nothing_inline(operator: Operator, later: Callable[[float], int]) -> None:
    one = traffic(operator, later)[0]
    paths = [
        "/console",
        "/console/stages/signup?f.age=3",
        "/console/decisions",
        f"/console/decisions/{one['decision_id']}",
    ]
    paths += [
        "/console/people",
        "/console/sign-in",
        "/console/nope",
        "/console/stages/x",
        "/console/decisions?before=x",
    ]
    replies = [operator.get(path) for path in paths] + [
        operator.submit("/console/people", user="u0"),
        operator.submit("/console/sign-out"),
        operator.post("/console/people", data={"csrf": "x"}),
    ]
    for reply in replies:
        headers, where = reply.headers, reply.url
        assert headers["content-security-policy"] == (
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
            "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
        ), where
        assert (headers["x-content-type-options"], headers["referrer-policy"]) == ("nosniff", "same-origin"), where
        assert headers["cache-control"] == "no-store", where
        assert headers["content-type"] == "text/html; charset=utf-8", where
        if not reply.content:
            continue
        for tag, given in PageText(reply.text).tags:
            assert not [name for name in given if name == "style" or name.startswith("on")], (where, tag)
            assert tag != "style", where
            assert tag != "script" or given.get("src") == "/console/static/console.js", where
            for name in ("href", "src", "action"):
                assert given.get(name, "/").startswith(("/console", "data:,", "#", "/")), (where, given)  # type: ignore[union-attr]
                assert not given.get(name, "/").startswith("//"), (where, given)  # type: ignore[union-attr]


def test_files_of_pages_are_kept_by_browsers_until_they_change(operator: Operator) -> None:
    for name, media in rendering.MEDIA.items():
        path = f"/console/static/{name}"
        reply = operator.get(path)
        assert reply.headers["content-type"].partition(";")[0] == media
        assert operator.get(path, headers={"If-None-Match": reply.headers["etag"]}).status_code == 304
        assert "http" not in reply.text


def test_no_page_is_inspected_by_the_openapi_document(operator: Operator) -> None:
    assert "console" not in operator.get("/docs/openapi.json").text


def test_a_failing_service_is_called_so(operator: Operator, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "Failing" not in operator.page("/console").text
    monkeypatch.setattr(MemoryStore, "log_bytes", lambda _: 10**12)
    page = operator.page("/console")
    assert "Working, with warnings" in page.text
    assert "write-ahead log" in page.text


def test_what_an_operator_should_look_at_is_on_the_overview(desk: Serving, tmp_path: Path) -> None:
    """A budget that is used up."""
    file = tmp_path / "poor.toml"
    poor = 'format = "popup"\nbudget = { amount = 0.5, per = "1d" }\ncost = 0.5'
    file.write_text(CATALOGUE.replace('format = "popup"\ncost = 0.5', poor), encoding="utf-8")
    with desk(app=str(file)) as client:
        assert "is used up" not in client.page("/console").text
        for n in range(60):
            client.ask("signup", f"u{n}")
        page = client.page("/console")
        (budget,) = client.learned()["signup"]["budgets"]
        assert budget["left"] == 0.0
        assert "Budget of “call” is used up until 2025-10-10 00:00 UTC." in page.text
        row = client.page("/console/stages/signup").row("call")
        assert row[-2].startswith("0.50 EUR committed, 0.00 EUR left")


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (rendering.figure(0.123456), "0.1235"), (rendering.figure(12345.6), "12,346"), (rendering.figure(None), "–"),
        (rendering.figure(float("nan")), "–"), (rendering.percent(0.12345), "12.3 %"),
        (rendering.percent(1.0), "100 %"),
        (rendering.money(1234.5, "EUR"), "1,234.50 EUR"), (rendering.money(-0.0123, "EUR"), "-0.0123 EUR"),
        (rendering.whole(1234567), "1,234,567"), (rendering.period(90), "1.5 min"), (rendering.period(5), "5 s"),
    ],
)  # fmt: skip
def test_how_numbers_are_written(written: str, expected: str) -> None:
    assert written == expected


def test_the_what_if_compares_what_else_might_decide(boss: Operator, later: Callable[[float], int]) -> None:
    traffic(boss, later)
    before = from_zip(boss.of_app("GET", "/v1/policies/signup/snapshot").content)
    told = body(before, "7")
    assert boss.of_app("PUT", "/v1/policies/signup/release", json=told).status_code == 200
    for n in range(20):
        asked = boss.ask("signup", f"more{n}", context={"age": 40})
        boss.tell(asked, value=float(n % 2))
    later(SECONDS)
    boss.learned()
    assert boss.sign_in(boss.key).status_code == 303
    page = boss.page("/console/stages/signup?f.age=40")
    live, now = (
        {arm: page.cell(arm, name) for arm in before.stage_spec.arms} for name in ("shop-signup 7", "learned so far")
    )
    assert live == {arm: page.cell(arm, "Probability") for arm in before.stage_spec.arms}
    prepared = engine.prepare(before)
    x = features.encode(prepared.schema, {"age": 40.0}).x
    shares = engine.choose(prepared, x, np.ones(len(before.stage_spec.arms), np.bool_)).propensity.tolist()
    assert list(live.values()) == [rendering.percent(p) for p in shares]
    assert now != live


def test_the_what_if_has_the_version_that_somebody_went_back_to(boss: Operator) -> None:
    """It was released first, and decides again."""
    snapshot = from_zip(boss.of_app("GET", "/v1/policies/signup/snapshot").content)
    for n in range(1, 7):
        told = body(snapshot, str(n), approved_at=f"2025-10-09T0{n}:00:00Z")
        assert boss.of_app("PUT", "/v1/policies/signup/release", json=told).status_code == 200
    back = {"approved_by": "ana", "reason": "refunds rose", "to": "1"}
    assert boss.of_app("POST", "/v1/policies/signup/rollback", json=back).status_code == 200
    page = boss.page("/console/stages/signup?f.age=40")
    heads = next(row for row in page.rows if "learned so far" in row)
    assert heads[heads.index("learned so far") + 1 :] == [f"shop-signup {n}" for n in (1, 6, 5, 4)]
