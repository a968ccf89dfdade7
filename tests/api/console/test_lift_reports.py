"""Lift reports of the console: made while somebody looks, and the same as `journey-bandit monitor` prints."""

import asyncio
import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner

from api.app import create_service
from api.clocks import Clock
from api.console import ledger_counts, rendering
from api.console.ledger_counts import LedgerCounts
from api.console.lift_reports import LiftReports
from api.settings import Settings
from api.stores.decision_log import LedgerPosition
from api.stores.protocol import Store
from bandit.catalogue.model import Catalogue
from bandit.errors import RemoteError
from journey_bandit import child_commands
from journey_bandit.child_commands import monitoring
from journey_bandit.evaluation.monitor import monitor as command
from tests.api.conftest import Desk
from tests.api.console.conftest import HOST, Operator
from tests.waiting import PATIENCE, eventually

Working = Callable[..., AbstractContextManager[Desk]]
HOUR = 7200.0

REPORT: dict[str, Any] = {
    "n": 12,
    "money": None,
    "over_none": {"value": 0.25, "interval": [0.1, 0.4], "sequence": [-0.5, None]},
    "lift": None,
    "people": None,
    "routing": {"evidence": 300.0, "alarms": [7]},
    "refused": [{"reason": "deterministic", "detail": "no holdout", "needed": "a holdout"}],
    "over_none_refused": [{"reason": "ess", "detail": "too few of one kind", "needed": "more"}],
    "notes": [],
    "unknown": "ignored",
}


class Monitored:
    """Monitor that counts what it is asked."""

    def __init__(self, *problems: str):
        self.asked, self.problems = list[str](), problems

    async def __call__(self, stage: str) -> bytes:
        self.asked.append(stage)
        if stage in self.problems:
            raise RemoteError("the ledger is locked")
        return json.dumps(REPORT).encode()


def declared(catalogue: Catalogue) -> list[str]:
    return [name for name, stage in catalogue.stages.items() if not stage.has_request_actions]


def test_each_stage_is_monitored_once_for_the_same_settlements(
    store: Store, working: Working, catalogue: Catalogue, later: Callable[[float], int]
) -> None:
    names = declared(catalogue)
    made = Monitored(names[0])
    reports = LiftReports(store, lambda: catalogue, made, pace=lambda: 100.0)
    assert reports.known == {}
    asyncio.run(reports.round())
    assert made.asked == names
    assert list(reports.known) == names
    first, second = list(reports.known.values())[:2]
    assert (first.report, first.problem, first.age) == (None, "the ledger is locked", 0.0)
    assert second.report is not None
    assert second.report.routing.alarms == [7]
    made.problems = ()
    asyncio.run(reports.round())
    assert made.asked == [*names, names[0]], "what failed is tried again"
    assert reports.known[names[0]].problem == ""
    asyncio.run(reports.round())
    assert made.asked == [*names, names[0]]
    with working(store) as desk:
        desk.ask(1, "basket")
        later(HOUR)
        desk.learn()
    asyncio.run(reports.round())
    assert made.asked == [*names, names[0], *names]


def test_another_declaration_is_monitored_anew(store: Store, catalogue: Catalogue) -> None:
    made, served = Monitored(), [catalogue]
    reports = LiftReports(store, lambda: served[-1], made)
    asyncio.run(reports.round())
    dearer = msgspec.structs.replace(catalogue.stages["basket"], description="another")
    served.append(msgspec.structs.replace(catalogue, stages={**catalogue.stages, "basket": dearer}))
    asyncio.run(reports.round())
    assert made.asked == [*declared(catalogue), "basket"]


def test_a_ledger_that_cannot_be_read_is_tried_again(
    store: Store, catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> LedgerPosition:
        raise OSError("disk")

    made = Monitored()
    reports = LiftReports(store, lambda: catalogue, made)
    with monkeypatch.context() as patch:
        patch.setattr(store, "last", broken)
        asyncio.run(reports.round())
    assert made.asked == []
    asyncio.run(reports.round())
    assert made.asked == declared(catalogue)


def test_the_child_ends_with_who_waits_and_after_its_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child_commands, "_CHILD", "import sys, time; print('begun', file=sys.stderr); time.sleep(600)")
    started, start = list[asyncio.subprocess.Process](), asyncio.create_subprocess_exec

    async def begin(*command: str, **more: Any) -> asyncio.subprocess.Process:
        started.append(await start(*command, **more))
        return started[-1]

    async def left() -> None:
        task = asyncio.create_task(report("basket"))
        while not started:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    monkeypatch.setattr(asyncio, "create_subprocess_exec", begin)
    report: Any = monitoring(f"sqlite:///{tmp_path / 'none.db'}")
    asyncio.run(left())
    monkeypatch.setattr(child_commands, "_SECONDS", 0.01)
    with pytest.raises(RemoteError, match="it was not done after"):
        asyncio.run(asyncio.wait_for(report("basket"), PATIENCE))
    assert [child.returncode for child in started] == [-9, -9]


def test_packages_of_the_folder_are_not_taken_for_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "api").mkdir()
    (tmp_path / "api" / "__init__.py").write_text("raise SystemExit('theirs')", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    report = monitoring(f"sqlite:///{tmp_path / 'none.db'}")
    assert report is not None
    with pytest.raises(RemoteError, match=r"none\.db"):
        asyncio.run(asyncio.wait_for(report("basket"), PATIENCE))


def test_a_stage_whose_monitor_prints_something_else_says_so(store: Store, catalogue: Catalogue) -> None:
    async def nonsense(_: str) -> bytes:
        return b"[]"

    reports = LiftReports(store, lambda: catalogue, nonsense)
    asyncio.run(reports.round())
    assert {one.report for one in reports.known.values()} == {None}
    assert all(one.problem.startswith("ValidationError: Expected `object`") for one in reports.known.values())


def test_nothing_is_monitored_before_somebody_looks_or_long_after(store: Store, catalogue: Catalogue) -> None:
    now, paused, made = 0.0, list[float](), Monitored()

    async def pause(seconds: float) -> None:
        nonlocal now
        paused.append(seconds)
        now += 400.0
        reports._through.clear()

    async def life() -> None:
        async with reports.running():
            for _ in range(5):
                await asyncio.sleep(0)
            assert made.asked == []
            reports.look_on()
            while len(paused) < 2:
                await asyncio.sleep(0.001)
            for _ in range(100):
                await asyncio.sleep(0.001)

    reports = LiftReports(store, lambda: catalogue, made, pace=lambda: now, pause=pause)
    asyncio.run(life())
    assert paused == [60.0, 60.0]  # at 0 and 400 s; at 800 nobody had looked for 600
    assert made.asked == 2 * declared(catalogue)


def test_pages_show_what_the_command_prints(
    clock: Clock, catalogue_file: Path, tmp_path: Path, later: Callable[[float], int]
) -> None:
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    settings = Settings(app=str(catalogue_file), store=url, salt="salt", dev=True)
    made = create_service(settings, clock=clock, monitor=monitoring(url))
    with Operator(made.app, base_url=HOST, raise_server_exceptions=False) as client:
        for n in range(400):
            asked = client.ask("basket", f"u{n}")
            if n % 3 == 0:
                client.tell(asked, value=1.0)
        later(HOUR)
        client.learned()
        client.get("/console")
        found = eventually(lambda: shown(client))
        done = CliRunner().invoke(command, ["--stage", "basket", "--json"], env={"JOURNEY_BANDIT_LEDGER": url})
        said = json.loads(done.stdout)
        assert said["n"] == 400
        people = said["people"]
        assert (people["people"] + people["holdout"], people["holdout"] > 50) == (400, True)
        ends = " to ".join(rendering.money(people[end], "EUR") for end in ("low", "high"))
        assert found["Nudges against none"].startswith(rendering.money(people["difference"], "EUR"))
        assert f"95 %: {ends}; {people['people']} with nudges" in found["Nudges against none"]
        for name, key in (("Live less no nudge", "over_none"), ("Live less holdout", "lift")):
            ends = said[key].get("sequence") or said[key]["interval"]
            words = [rendering.money(value, "EUR") for value in (said[key]["value"], *ends)]
            assert found[name].startswith(f"{words[0]} a decision 95 %, ")
            assert f": {words[1]} to {words[2]}; 400 decisions" in found[name]
        stage = dict(client.page("/console/stages/basket").facts)
        assert stage["Live less holdout"].split(";")[0] == found["Live less holdout"].split(";")[0]


def shown(client: Operator) -> dict[str, str]:
    """Facts of the stage "basket", as soon as it has a report."""
    page = client.page("/console")
    facts = dict(page.facts[[name for name, _ in page.facts].index("People") :])
    cards = [place for place, (name, _) in enumerate(page.facts) if name == "People"]
    facts = dict(page.facts[cards[1] : cards[2]])
    return {} if "being computed" in facts["Live less no nudge"] else facts


def test_an_alarm_of_routing_is_an_alarm_of_the_stage(
    clock: Clock, catalogue_file: Path, tmp_path: Path, later: Callable[[float], int]
) -> None:
    settings = Settings(app=str(catalogue_file), store=f"sqlite:///{tmp_path / 'ledger.db'}", salt="salt", dev=True)
    with Operator(create_service(settings, clock=clock, monitor=Monitored("signup")).app, base_url=HOST) as client:
        client.ask("basket", "u")
        later(HOUR)
        client.learned()
        client.get("/console")
        page = eventually(lambda: told if "Version 7" in (told := client.page("/console")).text else None)
        assert page is not None
        assert "basket: Version 7 does not show nudges as often as it drew them" in page.text
        assert "the ledger is locked" in page.text
        assert "whenever one looks: -0.50 EUR to –" in page.text
        facts = shown(client)
        assert facts["Live less holdout"] == "– the ledger cannot say: no holdout; needed: a holdout"


def test_a_ledger_in_memory_has_no_reports(operator: Operator) -> None:
    assert monitoring("memory://") is None
    assert "no other process can read it" in operator.page("/console").text


@pytest.mark.parametrize("here", [True, False])
def test_the_audit_of_a_large_ledger_is_made_by_the_process_that_monitors(
    store: Store, working: Working, catalogue: Catalogue, later: Callable[[float], int], monkeypatch: Any, here: bool
) -> None:
    monkeypatch.setattr(ledger_counts, "_SMALL", 0)
    counts = LedgerCounts(store, lambda: catalogue, audit_large=here)
    with working(store) as desk:
        for n in range(20):
            desk.ask(n + 1, "basket", user=f"u{n}")
        later(HOUR)
        desk.learn()
    counts.catch_up(30.0)
    counts.audits()
    counts._look()
    found, age = counts.audits()
    assert (set(found), age is None) == (({"basket"}, False) if here else (set(), True))


def test_the_overview_says_how_old_the_audit_of_the_monitor_is(
    clock: Clock, catalogue_file: Path, tmp_path: Path, later: Callable[[float], int], monkeypatch: Any
) -> None:
    monkeypatch.setattr(ledger_counts, "_SMALL", 0)
    told = {"with_nudges": 2.0, "people": 30, "without": 0.5, "holdout": 10, "difference": 1.5, "low": 1.0, "high": 2.0}
    monkeypatch.setitem(REPORT, "people", told)
    settings = Settings(app=str(catalogue_file), store=f"sqlite:///{tmp_path / 'ledger.db'}", salt="salt", dev=True)
    with Operator(create_service(settings, clock=clock, monitor=Monitored()).app, base_url=HOST) as client:
        client.ask("basket", "u")
        later(HOUR)
        client.learned()
        assert "It is being computed." in client.page("/console").text
        page = eventually(lambda: found if "1.50 EUR a person" in (found := client.page("/console")).text else None)
        assert page is not None
        assert "95 %: 1.00 EUR to 2.00 EUR" in page.text
        assert "It is of just now." in page.text


def test_what_the_command_says_is_the_problem(tmp_path: Path) -> None:
    monitor = monitoring(f"sqlite:///{tmp_path / 'none.db'}")
    assert monitor is not None
    with pytest.raises(RemoteError, match=r"none\.db"):
        asyncio.run(asyncio.wait_for(monitor("basket"), PATIENCE))
