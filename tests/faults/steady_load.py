"""Steady load on a service that may be killed: clients that repeat whatever was not answered, as every client should,
and write down what was.
"""

import random
import sqlite3
import threading
import time
import uuid
from array import array
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx

from api.ledger import audit
from api.stores import open_store

CATALOGUE = """
app = "soak"
currency = "EUR"
[journey.events.viewed]
names = ["Product Viewed"]
properties = { product = "product_id" }
key = "product"
stage = "cart"
[journey.events.ordered]
names = ["Order Completed"]
[stages.cart]
policy = { name = "linear" }
reward = { kind = "binary", window = "1h" }
[stages.cart.features]
price = { type = "number", min = 0, max = 100, default = 10 }
views = { type = "number", min = 0, max = 30, default = 0 }
[stages.cart.derived]
views = { kind = "count", event = "viewed", within = "7d" }
[stages.cart.outcomes]
ordered = { kind = "reward" }
[stages.cart.nudges]
reminder = { type = "reminder", format = "push" }
help = { type = "help", format = "banner" }
"""
WINDOW_SCALE = "4e-4"  # an hour in 1.44 s: what was decided is settled while the load goes on
USERS = 300  # few enough for all of them to be in memory soon, so that what grows afterwards grows for ever


class Acknowledged:
    """What was acknowledged to any client: rows of a file of its own, so that a day of it needs no memory."""

    def __init__(self, path: Path):
        self.path, self._lock, self.rows = path, threading.Lock(), 0
        self._file = path.open("w", encoding="ascii")

    def note(self, kind: str, key: str, what: str = "") -> None:
        """Write one down."""
        with self._lock:
            self._file.write(f"{kind} {key} {what}\n")
            self.rows += 1

    def close(self) -> None:
        """All of it is in the file."""
        self._file.close()


class SteadyClient(threading.Thread):
    """Client that asks, reports and tells events of `users` people `rate` times a second, until `done`. `wrong` says
    which answers were not as they must be; `took`, how long each decision took that was answered at once, in ms.
    """

    def __init__(
        self, url: str, seed: int, rate: float, acknowledged: Acknowledged, done: threading.Event, users: int = USERS
    ):
        super().__init__(daemon=True)
        self._url, self._rate, self._acknowledged, self._done, self._users = url, rate, acknowledged, done, users
        self._chance = random.Random(seed)
        self.repeated, self.rounds, self.took = 0, 0, array("d")
        self.wrong: list[str] = ["a client has not come to its end"]

    def run(self) -> None:
        """Until `done`; what was begun is finished."""
        with httpx.Client(base_url=self._url, timeout=10) as http:
            due = time.monotonic()
            while not self._done.is_set():
                due = max(due + 1 / self._rate, time.monotonic())
                self._round(http)
                self.rounds += 1
                self._done.wait(max(0.0, due - time.monotonic()))
        del self.wrong[0]  # an error would have ended the thread before

    def _round(self, http: httpx.Client) -> None:
        """An event, a decision, its reward; some of it again, although it was answered."""
        chance = self._chance
        user = f"user-{chance.randrange(self._users)}"
        if chance.random() < 0.5:
            name = chance.choice(("Product Viewed", "Product Viewed", "Order Completed"))
            told = {"event_id": str(self._id()), "event": name, "user_id": user, "properties": {"product_id": "p"}}
            for again in self._once_or_twice():
                (item,) = self._insist(http, "/v1/events", {"events": [told]})["events"]
                self._check(item["status"] == 200, f"event {told} was answered {item}")
                self._check(item["event"]["duplicate"] or not again, f"event {told} is new again")
            self._acknowledged.note("e", str(told["event_id"]))
        decision = str(self._id())
        ask = {"stage": "cart", "user_id": user, "decision_id": decision, "context": {"price": chance.uniform(0, 100)}}
        repeated, start = self.repeated, time.monotonic()
        arm = self._insist(http, "/v1/decisions", ask)["nudge"]["id"]
        if self.repeated == repeated:
            self.took.append(1000 * (time.monotonic() - start))
        self._acknowledged.note("d", decision, arm)
        if chance.random() < 0.2:
            reply = self._insist(http, "/v1/decisions", ask)
            self._check(reply["duplicate"] and reply["nudge"]["id"] == arm, f"{decision} was {arm}, then {reply}")
        if chance.random() < 0.5:
            for again in self._once_or_twice():
                told = {"decision_id": decision, "kind": "reward"}
                reply = self._insist(http, "/v1/outcomes", told)
                self._check(reply["duplicate"] or not again, f"the outcome of {decision} is new again")
            self._acknowledged.note("o", decision)

    def _once_or_twice(self) -> range:
        return range(1 if self._chance.random() < 0.8 else 2)

    def _id(self) -> uuid.UUID:
        return uuid.UUID(int=self._chance.getrandbits(128), version=4)

    def _check(self, right: bool, said: str) -> None:
        if not right:
            self.wrong.append(said)

    def _insist(self, http: httpx.Client, path: str, body: Mapping[str, object]) -> Any:
        while True:
            try:
                response = http.post(path, json=body)
            except httpx.TransportError:
                self.repeated += 1
                time.sleep(0.05)
                continue
            if response.status_code == 200:
                return response.json()
            assert response.status_code == 503, f"{path} answered {response.status_code}: {response.text}"
            self.repeated += 1
            time.sleep(0.05)


_LOST = {
    "acknowledged decisions are lost, or have another arm": """
        SELECT count(*) FROM said LEFT JOIN decisions d ON d.id = said.key
        WHERE said.kind = 'd' AND d.arm IS NOT said.what""",
    "acknowledged outcomes are lost": """
        SELECT count(*) FROM said LEFT JOIN outcomes o ON o.decision = said.key AND o.id = 'reward'
        WHERE said.kind = 'o' AND o.seq IS NULL""",
    "acknowledged events are lost": """
        SELECT count(*) FROM said LEFT JOIN events e ON e.id = said.name
        WHERE said.kind = 'e' AND e.seq IS NULL""",
}
_TWICE = {
    "outcomes were recorded twice": "SELECT count(*) - count(DISTINCT decision || id) FROM outcomes",
    "events were recorded twice": "SELECT count(*) - count(DISTINCT id) FROM events",
    "decisions were settled twice": "SELECT count(*) - count(DISTINCT decision_seq) FROM settlements",
    "decisions are neither open nor settled, or both": """
        SELECT (SELECT count(*) FROM decisions) - (SELECT count(*) FROM pending)
               - (SELECT count(*) FROM settlements)""",
    "settlements are not in the belief, or twice": """
        SELECT (SELECT count(*) FROM settlements WHERE learned = 1) - (SELECT sum(count) FROM statistics)""",
}


def wrong_with(ledger: Path, acknowledged: Path) -> list[str]:
    """What is wrong with a closed ledger that must hold what was acknowledged; nothing if all is right."""
    found = []
    with closing(sqlite3.connect("")) as conn:  # a file that goes by itself
        conn.execute("CREATE TABLE said (kind TEXT, key BLOB, name TEXT, what TEXT)")
        with acknowledged.open(encoding="ascii") as lines:
            rows = (line.rstrip("\n").split(" ") for line in lines)
            said = ((kind, uuid.UUID(name).bytes, name, what) for kind, name, what in rows)
            conn.executemany("INSERT INTO said VALUES (?, ?, ?, ?)", said)
        conn.commit()
        conn.execute("ATTACH ? AS ledger", (str(ledger),))
        for what, query in (_LOST | _TWICE).items():
            (many,) = conn.execute(query).fetchone()
            if many:
                found.append(f"{many} {what}")
    with closing(open_store(f"sqlite:///{ledger}", read_only=True)) as store:
        found += store.damages()
        found += [
            f"{one.stage}: not what the ledger says"
            for one in audit.rebuild(store, audit.stages(store))
            if not one.equal
        ]
    return found
