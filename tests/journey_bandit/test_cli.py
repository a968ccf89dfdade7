"""The command line: catalogues, keys, audits of a ledger, and messages a person can act on."""

import json
import shutil
import sqlite3
import subprocess
import sys
import tomllib
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import click
import msgspec
import pytest
from click.testing import CliRunner, Result
from litestar.testing import TestClient

from api.app import create_app
from api.http.keys import load as load_keys
from api.ledger import audit, warm_start
from api.ledger.audit import claim
from api.settings import Settings
from api.stores.sqlite.store import SqliteStore
from api.stores.webhook_queue import WebhookDelivery
from api.webhooks.config import load as load_endpoints
from bandit import engine
from bandit.catalogue.loading import parse, read_shipped, shipped
from bandit.errors import CatalogueError, InvalidRequest, JourneyBanditError, LedgerError, LedgerMismatch, NotFound
from bandit.numerics import versions
from journey_bandit.main import group
from journey_bandit.workflows.ledger_log import open_log
from tests.waiting import PATIENCE

Run = Callable[..., Result]

START = 1_760_000_000_000_000
SCRIPT = Path(sys.executable).with_name("journey-bandit")
WRONG = """
app = "My Shop"
currency = "EUR"
colour = "red"
[stages.cart]
policy = { name = "linaer" }
floor = 1.5
reward = { kind = "binary", window = "2 weeks" }
[stages.cart.features]
age = { type = "number", min = 9, max = 1, default = 3 }
[stages.cart.nudges.none]
type = "help"
format = "banner"
"""


@pytest.fixture
def run() -> Run:
    """run(*arguments): the command in this process; our own errors end up in `exception`."""
    return lambda *arguments, **env: CliRunner().invoke(group, [str(a) for a in arguments], env=env)


def real(*arguments: Any) -> subprocess.CompletedProcess[str]:
    """The installed command as a process of its own."""
    command = [str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)


def python(code: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)


# -- catalogues ------------------------------------------------------------------------------------------------


def test_every_mistake_of_a_catalogue_is_reported_at_once_with_exit_status_1(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(WRONG, encoding="utf-8")
    done = real("catalogue", "check", file)
    assert (done.returncode, done.stdout) == (1, "")
    for named in ("mine.toml", "app", "colour", "policy", "linear", "floor", "window", "features.age", "nudges.none"):
        assert named in done.stderr
    assert "Traceback" not in done.stderr


def test_a_catalogue_without_mistakes_is_counted(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(read_shipped("fintech"), encoding="utf-8")
    done = run("catalogue", "check", file)
    assert done.exit_code == 0
    assert "fintech, 5 stage(s)" in done.stdout
    assert "no mistakes" in done.stdout


def test_a_byte_order_mark_is_no_mistake(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_bytes(b"\xef\xbb\xbf" + read_shipped("fintech").replace("\n", "\r\n").encode())
    done = run("catalogue", "check", file)
    assert "no mistakes" in done.stdout


@pytest.mark.parametrize(("content", "named"), [(b"\xff\xfe", "UTF-8"), (b"stages = [", "not TOML"), (None, "No such")])
def test_a_file_that_is_no_catalogue_is_one_readable_message(tmp_path: Path, content: bytes | None, named: str) -> None:
    file = tmp_path / "mine.toml"
    if content is not None:
        file.write_bytes(content)
    for command in (
        ["catalogue", "check", file],
        ["serve", "--port", "0", "--dev", "--store", "memory://", "--app", file],
    ):
        done = real(*command)
        assert done.returncode == 1
        assert named.lower() in done.stderr.lower()
        assert "mine.toml" in done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize("app", shipped())
def test_a_shipped_catalogue_is_shown_in_words_and_as_a_file_to_start_from(run: Run, app: str) -> None:
    words, file = run("catalogue", "show", app), run("catalogue", "show", app, "--toml")
    assert words.exit_code == file.exit_code == 0
    catalogue = parse(file.stdout)
    for name, stage in catalogue.stages.items():
        assert f"{name}: " in words.stdout
        assert all(f"{nudge}: " in words.stdout for nudge in stage.arms)
        assert all(f"feature  {feature}: " in words.stdout for feature in stage.features)


def test_an_unknown_catalogue_is_refused_with_the_known_ones(run: Run) -> None:
    done = run("catalogue", "show", "fintec")
    assert done.exit_code == 2
    assert "fintech" in done.stderr


# -- keys ------------------------------------------------------------------------------------------------------


def test_a_new_key_is_printed_once_alone_and_works(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "keys.toml"
    done = run("keys", "new", "shop", "--file", file, "--scope", "decide", "--scope", "reward")
    key = done.stdout.strip()
    assert done.exit_code == 0
    assert key.startswith("shop.")
    assert key not in done.stderr  # a pipe gets the key and nothing else
    assert load_keys(file).scopes(key, START) == ["decide", "reward"]
    everything = run("keys", "new", "all", "--file", file).stdout.strip()
    assert load_keys(file).scopes(everything, START) == ["decide", "reward", "read", "events"]
    assert tomllib.loads(file.read_text())["keys"].keys() == {"shop", "all"}


def test_a_name_that_is_taken_is_refused(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "keys.toml"
    run("keys", "new", "shop", "--file", file)
    assert isinstance(run("keys", "new", "shop", "--file", file).exception, CatalogueError)
    assert run("keys", "new", "two", "--file", file, "--scope", "write").exit_code == 2


# -- audits ----------------------------------------------------------------------------------------------------


class Ledger:
    """A ledger file that a service left behind, and the ids of its decisions about users who are not held out."""

    def __init__(self, file: Path, decisions: list[dict[str, Any]]):
        self.file = file
        self.url = f"sqlite:///{file}"
        self.ids = [d["decision_id"] for d in decisions if not d["holdout"]]
        self.onboarding = [d["decision_id"] for d in decisions if d["stage"] == "onboarding" and not d["holdout"]]

    def tamper(self, statement: str) -> None:
        with closing(sqlite3.connect(self.file)) as connection:
            connection.execute(statement)
            connection.commit()


@contextmanager
def service(file: Path, **settings: Any) -> Iterator[tuple[TestClient[Any], list[int]]]:
    """A running service on a file, and its clock."""
    now = [START]
    app = create_app(Settings(app="fintech", dev=True, store=f"sqlite:///{file}", **settings), clock=lambda: now[0])
    with TestClient(app) as client:
        yield client, now


def some_traffic(client: TestClient[Any], now: list[int]) -> list[dict[str, Any]]:
    decisions = []
    for n in range(30):
        stage = ("onboarding", "cart")[n % 2]
        request = {"stage": stage, "user_id": f"u{n}", "context": {"hours_idle": n} if n % 2 else {"steps_done": n}}
        decisions.append(client.post("/v1/decisions", json=request).json())
        if n % 3:
            client.post("/v1/outcomes", json={"decision_id": decisions[-1]["decision_id"], "kind": "reward"})
        now[0] += 5 * 3_600_000_000
        client.get("/v1/policies", params={"wait": True})
    return decisions


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    """A ledger after some traffic, for copies; its decisions."""
    file = tmp_path_factory.mktemp("ledger") / "ledger.db"
    with service(file) as (client, now):
        return file, some_traffic(client, now)


@pytest.fixture
def ledger(written: tuple[Path, list[dict[str, Any]]], tmp_path: Path) -> Ledger:
    return Ledger(Path(shutil.copy(written[0], tmp_path / "ledger.db")), written[1])


def test_an_untouched_ledger_is_verified_and_left_as_it_is(run: Run, ledger: Ledger) -> None:
    before = ledger.file.read_bytes()
    done = run("rebuild", "--store", ledger.url, "--verify")
    assert (done.exit_code, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert {line.split()[0] for line in lines} == {"browsing", "cart", "checkout", "onboarding", "retention"}
    assert all(line.endswith("equal") for line in lines)
    assert ledger.file.read_bytes() == before


def test_a_changed_belief_is_found_and_mended(run: Run, ledger: Ledger) -> None:
    ledger.tamper("UPDATE statistics SET shift = zeroblob(length(shift)) WHERE stage = 'onboarding'")
    found = run("rebuild", "--store", ledger.url, "--verify")
    assert isinstance(found.exception, SystemExit)
    assert found.exit_code == 1
    assert [line.split()[0] for line in found.stdout.splitlines() if line.endswith("DIFFERENT")] == ["onboarding"]
    mended = run("rebuild", "--store", ledger.url)
    assert mended.exit_code == 0
    assert mended.stdout.count("replaced") == 1
    assert run("rebuild", "--store", ledger.url, "--verify").exit_code == 0


def test_a_changed_reward_is_found_and_its_decision_named(run: Run, ledger: Ledger) -> None:
    ledger.tamper("UPDATE settlements SET reward = 1 - reward WHERE decision_seq = 5")
    found = run("rebuild", "--store", ledger.url, "--verify")
    assert found.exit_code == 1
    assert "decision number 5" in found.stdout


def test_a_running_ledger_can_be_verified_and_not_rewritten(run: Run, ledger: Ledger) -> None:
    with closing(SqliteStore(ledger.file)):
        assert run("rebuild", "--store", ledger.url, "--verify").exit_code == 0
        assert run("receipt", "--store", ledger.url, ledger.ids[0]).exit_code == 0
        refused = run("rebuild", "--store", ledger.url).exception
    assert isinstance(refused, LedgerError)
    assert "in use" in str(refused)


def test_every_decision_of_the_ledger_is_recomputed_bit_for_bit(run: Run, ledger: Ledger) -> None:
    snapshots = set()
    for decision in ledger.ids:
        done = run("receipt", "--store", ledger.url, decision)
        assert (done.exit_code, done.stderr) == (0, "recomputed: equal, bit for bit\n")
        receipt = json.loads(done.stdout)
        assert receipt["decision_id"] == decision
        snapshots.add(receipt["policy_version"])
    assert len(snapshots) > 10


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("u = 0.5", "in u"),
        ("arm = CASE arm WHEN 'chat' THEN 'video' ELSE 'chat' END", "in arm"),
        ("propensity = zeroblob(length(propensity))", "propensity"),
        ("x = zeroblob(length(x))", "propensity, mean"),
    ],
)
def test_a_changed_decision_is_found(run: Run, ledger: Ledger, change: str, named: str) -> None:
    ledger.tamper(f"UPDATE decisions SET {change} WHERE id = x'{uuid.UUID(ledger.onboarding[0]).hex}'")  # noqa: S608
    done = run("receipt", "--store", ledger.url, ledger.onboarding[0])
    assert done.exit_code == 1
    assert "DIFFERENT" in done.stderr
    assert named in done.stderr


def as_an_earlier_version_left_it(ledger: Ledger, decision: str, number: int = 1) -> bool:
    """A ledger that was recorded in arithmetic `number` (1: ledgers that did not say which), and a decision as that
    arithmetic had it; returns whether it had other propensities.
    """
    ledger.tamper("DELETE FROM arithmetics" if number == 1 else f"UPDATE arithmetics SET number = {number}")  # noqa: S608
    store = SqliteStore(ledger.file, read_only=True)
    found = store.decisions_by_id([uuid.UUID(decision)])[uuid.UUID(decision)]
    with versions.recorded_in(number):
        then = engine.recompute(audit.deciding(store, found), found.decision, audit.salt_of(store, None))
    store.close()
    p, account = then.propensity.astype("<f8").tobytes().hex(), msgspec.msgpack.encode(then.loss_account).hex()
    changed = f"propensity = x'{p}', arm = '{then.arm}', loss_account = x'{account}'"
    ledger.tamper(f"UPDATE decisions SET {changed} WHERE id = x'{then.id.hex}'")  # noqa: S608
    return then.propensity.tobytes() != found.decision.propensity.tobytes()


def test_a_decision_of_the_arithmetic_before_is_recomputed_bit_for_bit_in_that_one(
    run: Run, written: tuple[Path, list[dict[str, Any]]], tmp_path: Path
) -> None:
    others, rows = 0, written[1]
    first = rows[::9]
    for i, row in enumerate([*first, *(row for row in rows if row not in first)]):
        if others and i >= len(first):
            break  # those differ that fell upon an odd state of the learner, which is not the same in every run
        # each in a copy: what other decisions rest on is then as they found it
        ledger = Ledger(Path(shutil.copy(written[0], tmp_path / "copy.db")), written[1])
        others += as_an_earlier_version_left_it(ledger, row["decision_id"], versions.OPEN_EVERYWHERE)
        done = run("receipt", "--store", ledger.url, row["decision_id"])
        assert (done.exit_code, done.stderr) == (0, "recomputed: equal, bit for bit\n")
    assert others


@pytest.mark.parametrize(("off", "status"), [(2.0**-30, 0), (2.0**-10, 1)])
def test_a_decision_of_an_earlier_arithmetic_is_compared_to_the_millionth(
    run: Run, ledger: Ledger, off: float, status: int
) -> None:
    """A ledger that does not say from where on its numbers have the same bits everywhere, and numbers that are off."""
    as_an_earlier_version_left_it(ledger, ledger.onboarding[0])
    decision = uuid.UUID(ledger.onboarding[0])
    store = SqliteStore(ledger.file, read_only=True)
    mean = store.decisions_by_id([decision])[decision].decision.mean
    store.close()
    blob = (mean + off).astype("<f8").tobytes().hex()
    ledger.tamper(f"UPDATE decisions SET mean = x'{blob}' WHERE id = x'{decision.hex}'")  # noqa: S608
    done = run("receipt", "--store", ledger.url, ledger.onboarding[0])
    assert done.exit_code == status
    assert ("recorded in an earlier arithmetic" in done.stderr) == (status == 0)
    assert ("DIFFERENT in mean\n" in done.stderr) == (status == 1)


@pytest.mark.parametrize(
    ("change", "named"), [("u = 0.5", "in u"), ("arm = CASE arm WHEN 'chat' THEN 'video' ELSE 'chat' END", "in arm")]
)
def test_of_an_earlier_decision_u_and_the_arm_are_exact(run: Run, ledger: Ledger, change: str, named: str) -> None:
    as_an_earlier_version_left_it(ledger, ledger.onboarding[0])
    ledger.tamper(f"UPDATE decisions SET {change} WHERE id = x'{uuid.UUID(ledger.onboarding[0]).hex}'")  # noqa: S608
    done = run("receipt", "--store", ledger.url, ledger.onboarding[0])
    assert (done.exit_code, named in done.stderr) == (1, True)


def test_a_change_of_what_was_learned_before_is_found_in_the_receipts_after(run: Run, ledger: Ledger) -> None:
    ledger.tamper("UPDATE settlements SET nu = -nu / 2 WHERE learned")
    done = run("receipt", "--store", ledger.url, ledger.ids[-1])
    assert done.exit_code == 1
    assert "mean" in done.stderr


def test_a_decision_that_is_not_there_is_not_found(run: Run, ledger: Ledger) -> None:
    missing = run("receipt", "--store", ledger.url, "00000000-0000-0000-0000-000000000001").exception
    assert isinstance(missing, NotFound)
    assert run("receipt", "--store", ledger.url, "not-an-id").exit_code == 2


def test_a_salt_of_its_own_is_needed_to_recompute(run: Run, tmp_path: Path) -> None:
    with service(tmp_path / "salted.db", salt="pepper") as (client, now):
        decision = some_traffic(client, now)[0]["decision_id"]
    arguments = ("receipt", "--store", f"sqlite:///{tmp_path}/salted.db", decision)
    assert run(*arguments, "--salt", "pepper").exit_code == 0
    assert run(*arguments, JOURNEY_BANDIT_SALT="pepper").exit_code == 0
    for wrong in (run(*arguments), run(*arguments, "--salt", "salz")):
        assert isinstance(wrong.exception, LedgerMismatch)
        assert "JOURNEY_BANDIT_SALT" in str(wrong.exception)


def test_auditing_a_missing_or_foreign_file_is_one_readable_message(tmp_path: Path) -> None:
    (tmp_path / "notes.db").write_text("not a ledger " * 99)
    for name, word in (("typo.db", "does not exist"), ("notes.db", "cannot be used as a ledger")):
        done = real("rebuild", "--verify", "--store", f"sqlite:///{tmp_path}/{name}")
        assert done.returncode == 1
        assert word in done.stderr
        assert "Traceback" not in done.stderr
    assert {f.name for f in tmp_path.iterdir()} == {"notes.db"}


# -- all of it -------------------------------------------------------------------------------------------------


def test_an_unknown_command_is_refused() -> None:
    done = real("serv")
    assert done.returncode == 2
    assert "serv" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_version_is_told(run: Run) -> None:
    assert "0.2.0" in run("--version").stdout


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_the_list_of_commands_and_the_version_are_told_without_loading_what_computes(option: str) -> None:
    code = (
        f"import sys; sys.argv = ['journey-bandit', {option!r}]; from journey_bandit.main import main; main(); "
        "print('loaded:', *sorted({'numpy', 'scipy', 'litestar', 'mlflow'} & sys.modules.keys()))"
    )
    told = python(code)
    assert told.returncode == 0, told.stderr
    assert told.stdout.splitlines()[-1] == "loaded:"


def test_the_list_has_the_first_sentence_of_every_commands_help() -> None:
    context = click.Context(group)

    def listed(of: click.Group) -> list[str]:
        of.format_commands(context, formatter := click.HelpFormatter(width=400))  # wide: nothing is cut
        return formatter.getvalue().splitlines()

    commands = {name: group.get_command(context, name) for name in group.list_commands(context)}
    loaded = click.Group(commands={name: command for name, command in commands.items() if command is not None})
    assert len(listed(group)) == 1 + len(commands)
    assert listed(group) == listed(loaded)


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "::", "shop.example"])  # noqa: S104
def test_a_trial_is_refused_on_a_host_that_others_reach(run: Run, host: str) -> None:
    failed = run("serve", "--app", "travel", "--store", "memory://", "--dev", "--port", "0", "--host", host).exception
    assert isinstance(failed, InvalidRequest)
    assert f"others may reach {host}, and with --dev nobody needs a key" in str(failed)
    assert "--i-know" in str(failed)


@pytest.mark.parametrize(
    ("arguments", "error", "named"),
    [
        (["--dev"], InvalidRequest, "--app"),
        (["--app", "fintec", "--dev"], NotFound, "fintech"),
        (["--app", "fintech", "--port", "70000"], InvalidRequest, "--port"),
        (["--app", "fintech", "--window-scale", "2"], InvalidRequest, "--window-scale"),
        (["--app", "fintech", "--store", "mysql://x"], LedgerError, "sqlite:///FILE"),
        (["--app", "fintech", "--store", "memory://", "--keys", "/nonexistent/keys.toml"], CatalogueError, "keys new"),
    ],
)
def test_a_service_that_cannot_start_says_why(
    run: Run, arguments: list[str], error: type[JourneyBanditError], named: str
) -> None:
    failed = run("serve", "--port", "0", *arguments).exception
    assert isinstance(failed, error)
    assert named in str(failed)


def test_serving_never_imports_the_laboratory() -> None:
    """In a fresh interpreter, with an application built and not only imported."""
    done = python(
        "import sys, journey_bandit.main, journey_bandit.service.serve, api.app, api.server\n"
        "from api.settings import Settings\n"
        "api.app.create_app(Settings(app='fintech', store='memory://', dev=True))\n"
        "strange = {'mlflow', 'experiments', 'simulations', 'matplotlib', 'rich', 'pandas', 'pyarrow'}\n"
        "print(sorted(strange & {name.partition('.')[0] for name in sys.modules}))\n"
        "import pandas  # whoever needs it gets it later\n"
        "print(pandas.__name__)"
    )
    assert (done.returncode, done.stdout.split()) == (0, ["[]", "pandas"]), done.stderr


@pytest.mark.parametrize("command", ["evaluate", "publish", "monitor", "verdict", "promote"])
def test_a_judgement_begins_without_packages_that_it_does_not_need(command: str) -> None:
    """Half a second of each start: scipy.special has the distributions that are asked for."""
    done = python(
        f"import sys; from journey_bandit.main import group; group.get_command(None, {command!r})\n"
        "import pandas  # whoever needs it gets it later\n"
        "print('scipy.stats._stats_py' in sys.modules, pandas.__name__)"
    )
    assert (done.returncode, done.stdout.strip()) == (0, "False pandas"), done.stderr


def test_the_command_line_itself_imports_no_command() -> None:
    done = python(
        "import sys, journey_bandit.main\n"
        "print(sorted({'litestar', 'numpy', 'mlflow', 'api', 'rich'} & {n.partition('.')[0] for n in sys.modules}))"
    )
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr


# -- webhooks, loops -------------------------------------------------------------------------------------------


def test_a_key_may_name_a_loop(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "keys.toml"
    key = run("keys", "new", "news", "--file", file, "--loop", "offers").stdout.strip()
    assert (load_keys(file).loop(key), load_keys(file).loop("nobody.x")) == ("offers", "")
    assert isinstance(run("keys", "new", "b", "--file", file, "--loop", 'x"').exception, CatalogueError)


def test_a_new_endpoint_prints_its_secret_alone(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "webhooks.toml"
    done = run("webhooks", "new", "crm", "https://crm.example/hooks", "--event", "reward", "--file", file)
    secret = done.stdout.strip()
    assert done.exit_code == 0
    assert secret.startswith("whsec_")
    assert secret not in done.stderr
    assert load_endpoints(file)["crm"].events == ("reward",)
    assert file.stat().st_mode & 0o077 == 0
    assert isinstance(run("webhooks", "new", "b", "crm.example", "--file", file).exception, CatalogueError)


def test_dead_letters_are_listed_from_the_file(run: Run, tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "l.db")
    letter = WebhookDelivery("crm", "decision:1", b"{}", 16, 5, "answered 500", dead=True, at=1_760_000_000_000_000)
    store.update_webhook_queue({}, [letter, letter._replace(event="decision:2", dead=False)], [])
    store.close()
    done = run("webhooks", "dead", "--store", f"sqlite:///{tmp_path / 'l.db'}")
    assert done.stdout.split() == ["crm", "2025-10-09", "08:53:20", "16", "×", "decision:1", "answered", "500"]
    assert "1 dead letter" in done.stderr


def test_what_compares_arms_refuses_a_stage_whose_actions_come_with_the_request(tmp_path: Path) -> None:
    stage = '[stages.offers]\npolicy = { name = "shared" }\nreward = { kind = "binary", window = "10m" }\n'
    catalogue = parse(f'app = "news"\ncurrency = "EUR"\n{stage}')
    with closing(SqliteStore(tmp_path / "l.db")) as store:
        claim(store, catalogue, None)
        with pytest.raises(InvalidRequest, match="come with each request"):
            warm_start.checked("offers", catalogue.stages["offers"], [])
    with pytest.raises(InvalidRequest, match="come with each request"):
        open_log(str(tmp_path / "l.db"), "offers")


# -- backups ---------------------------------------------------------------------------------------------------


def test_a_backup_is_made_beside_a_running_service_and_restored(run: Run, ledger: Ledger, tmp_path: Path) -> None:
    copy, other = tmp_path / "copy.db", tmp_path / "other.db"
    with closing(SqliteStore(ledger.file)):
        done = run("backup", "--store", ledger.url, copy)
    assert done.exit_code == 0, done.exception
    with closing(SqliteStore(copy, read_only=True)) as store:
        n = store.counts().decisions
    assert f"{n:,} decisions" in done.stdout
    assert isinstance(run("backup", "--store", ledger.url, copy).exception, LedgerError)
    assert run("backup", "--store", ledger.url, copy, "--force").exit_code == 0
    back = run("restore", copy, "--store", f"sqlite:///{other}")
    assert back.exit_code == 0, back.exception
    assert f"{n:,} decisions" in back.stdout
    assert run("rebuild", "--verify", "--receipts", 5, "--store", f"sqlite:///{other}").exit_code == 0
    again = run("restore", copy, "--store", f"sqlite:///{other}", "--force")
    assert "other.db.replaced-" in again.stderr
    for store_url in ("memory://", "sqlite:///", "other.db"):
        assert isinstance(run("backup", "--store", store_url, tmp_path / "x.db").exception, LedgerError)
