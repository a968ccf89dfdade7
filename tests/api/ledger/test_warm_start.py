"""A log from before teaches a stage once, with a weight, and receipts know since when."""

import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from litestar.testing import TestClient

from api.app import create_app
from api.ledger import audit
from api.settings import Settings
from api.stores import open_store
from bandit import engine
from bandit.errors import InvalidRequest, JourneyBanditError, LedgerMismatch
from journey_bandit.main import group

APP = """
app = "shop"
currency = "EUR"
[stages.cart]
policy = { name = "POLICY", prior_mean = 0.3 }
reward = { kind = "binary", window = "7d" }
[stages.cart.features]
mobile = { type = "boolean", default = true }
price = { type = "number", min = 0, max = 10, default = 1 }
[stages.cart.nudges]
five = { type = "discount", format = "banner" }
mail = { type = "reminder", format = "mail" }
"""


def shop(tmp_path: Path, policy: str) -> str:
    file = tmp_path / "shop.toml"
    file.write_text(APP.replace("POLICY", policy))
    return str(file)


def log(tmp_path: Path, rows: int = 400) -> Path:
    """`five` brings 0.7, everything else 0.1."""
    rng, file = np.random.default_rng(1), tmp_path / "log.csv"
    lines = ["mobile,price,arm,reward"]
    for _ in range(rows):
        arm = str(rng.choice(["none", "five", "mail"]))
        reward = int(rng.random() < (0.7 if arm == "five" else 0.1))
        lines.append(f"{rng.choice(['true', 'false', ''])},{rng.uniform(0, 10):.2f},{arm},{reward}")
    file.write_text("\n".join(lines))
    return file


def warm(tmp_path: Path, app: str, file: Path, weight: str = "0.5") -> None:
    words = ["warm-start", "--app", app, "--store", f"sqlite:///{tmp_path / 'ledger.db'}", "--salt", "s"]
    group.main([*words, "--stage", "cart", "--log", str(file), "--weight", weight], standalone_mode=False)


def ask(tmp_path: Path, app: str) -> dict[str, Any]:
    settings = Settings(app=app, store=f"sqlite:///{tmp_path / 'ledger.db'}", salt="s", dev=True)
    with TestClient(create_app(settings)) as client:
        body = {"stage": "cart", "user_id": str(uuid.uuid4()), "context": {"mobile": True}}
        reply: dict[str, Any] = client.post("/v1/decisions", json=body).json()
    return reply


@pytest.mark.parametrize("policy", ["hierarchical", "linear"])
def test_a_warm_stage_begins_with_what_the_log_taught(tmp_path: Path, policy: str) -> None:
    app = shop(tmp_path, policy)
    cold = ask(tmp_path, app)["propensities"]["five"]
    warm(tmp_path, app, log(tmp_path))
    assert ask(tmp_path, app)["propensities"]["five"] > 0.9 > cold
    store = open_store(f"sqlite:///{tmp_path / 'ledger.db'}", read_only=True)
    for found in store.decisions():
        again = engine.recompute(engine.prepare(audit.past(store, found)), found.decision, audit.salt_of(store, "s"))
        assert again.propensity.tobytes() == found.decision.propensity.tobytes()
    assert all(result.equal for result in audit.rebuild(store, audit.stages(store)))
    store.close()
    with pytest.raises(LedgerMismatch, match="warmed before"):
        warm(tmp_path, app, log(tmp_path))


def test_a_row_that_counts_little_moves_little(tmp_path: Path) -> None:
    found = []
    for weight in ("0.001", "1"):
        folder = tmp_path / weight
        folder.mkdir()
        app = shop(folder, "linear")
        warm(folder, app, log(folder), weight)
        found.append(ask(folder, app)["propensities"]["five"])
    assert found[0] < 0.5
    assert found[1] > 0.95


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("mobile,arm\ntrue,five", "log: no column reward"),
        ("mobile,arm,reward\ntrue,fivv,1", "log.csv:2: arm: no arm 'fivv' → did you mean `five`?"),
        ("mobile,arm,reward\ntrue,five,1\nperhaps,five,1", "log.csv:3: mobile: 'perhaps' is not true or false"),
        ("mobile,arm,reward\ntrue,five,3", "log.csv:2: reward: 3 is outside the declared range"),
        ("price,arm,reward\ncheap,five,1", "log.csv:2: price: 'cheap' is not a number"),
        ("mobile,arm,reward\n", "log: it has no rows"),
        ("mobile,arm,reward\ntrue,,1", "log.csv:2: arm: there is no value"),
        ("mobile,arm,reward\ntrue,five,NA", "log.csv:2: reward: 'NA' is not a number"),
        ("mobile,arm,reward\ntrue,five", "log.csv:2: no value in column 3"),
    ],
)
def test_a_log_with_mistakes_is_refused_whole(tmp_path: Path, text: str, problem: str) -> None:
    file = tmp_path / "log.csv"
    file.write_text(text)
    with pytest.raises(InvalidRequest) as refused:
        warm(tmp_path, shop(tmp_path, "linear"), file)
    assert problem in str(refused.value)
    assert isinstance(refused.value, JourneyBanditError)
    assert not (tmp_path / "ledger.db").exists(), "nothing was written"


def test_a_log_without_rows_does_not_use_up_the_only_warm_start(tmp_path: Path) -> None:
    app, file = shop(tmp_path, "linear"), tmp_path / "log.csv"
    file.write_text("mobile,arm,reward\n")
    with pytest.raises(InvalidRequest, match="no rows"):
        warm(tmp_path, app, file)
    warm(tmp_path, app, log(tmp_path))
    assert ask(tmp_path, app)["propensities"]["five"] > 0.5


def test_other_columns_are_left_out_and_said_and_names_can_be_mapped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "log.csv"
    file.write_bytes("Handy;price;nudge;ok;colour\njo;1,5;five;1;rot\nyes;1.000;none;0;blau\n".encode("utf-16"))
    words = ["warm-start", "--app", shop(tmp_path, "linear"), "--store", f"sqlite:///{tmp_path / 'ledger.db'}"]
    words += ["--salt", "s", "--stage", "cart", "--log", str(file), "--weight", "1", "--map", "arm=nudge"]
    with pytest.raises(InvalidRequest, match=r"log\.csv:2: mobile: 'jo' is not true or false"):
        group.main([*words, "--map", "reward=ok", "--map", "mobile=Handy"], standalone_mode=False)
    with pytest.raises(InvalidRequest, match=r"map arm=nuge: .* has no column 'nuge' → did you mean `nudge`"):
        group.main([*words[:-1], "arm=nuge"], standalone_mode=False)
    with pytest.raises(InvalidRequest, match="map arn: there is no such column"):
        group.main([*words[:-1], "arn=nudge"], standalone_mode=False)
    file.write_bytes("Handy;price;nudge;ok;colour\nja;1,5;five;1;rot\nNA;2,25;none;0;blau\n".encode("utf-16"))
    group.main([*words, "--map", "reward=ok", "--map", "mobile=Handy"], standalone_mode=False)
    assert "columns that are no features are left out: colour" in capsys.readouterr().out
