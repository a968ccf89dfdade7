"""Dear requests: what the dearest request of each kind that the service takes costs it, and others meanwhile.

    python -m benchmarks.load.dear_requests [--at-once 4] [--only slots --only outcomes …] [--events 60000]

For each kind `journey-bandit serve` is started anew (a shop with a loop, SQLite with synchronous=FULL in a temporary
folder), with two keys and the default limits. `dear` sends its requests, `--at-once` at the same time where that is
what makes them dear; `polite` asks for one receipt after another meanwhile, and for a few seconds after:

    slots        multi-slot ranks of about 130 kB: 50 actions, 50 slots, features everywhere
    most-slots   the dearest multi-slot ranks that are taken, eight times as many
    rank         ranks of about 250 kB: 50 actions and a context, each with 450 features
    outcomes     4,000 outcomes of one decision, in batches of 1,000
    events       one person's events, `--events` of them in batches of 1,000; then ten that come late
    reports      the same of events that report a reward
    messages     Segment batches of 40,000 messages, some 100 kB of gzip each
    snapshot     a release whose arrays unpack to 1.4 GB from 1.4 MB

Printed for each: how the requests were answered, processor seconds of the service, the longest time that a receipt
took, and how far the service's own memory rose above what it was. Of events and reports, only the late ones are
measured.
Linux only: it reads /proc.
"""

import argparse
import base64
import collections
import contextlib
import datetime as dt
import gzip
import hashlib
import io
import json
import os
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import httpx

from api.http.keys import EVERY, create
from api.server import free_port
from bandit.snapshot import FORMAT
from benchmarks.load import processor
from benchmarks.load.client import HOST
from journey_bandit import processes

_PAUSE = 0.02  # seconds between two receipts
_AFTER = 2.0  # seconds for which receipts are asked for when everything is answered
_PATIENCE = 300.0
_SLOTS = "/offers/personalizer/v1.1-preview.3/multislot/rank"
_CATALOGUE = """
app = "shop"
currency = "EUR"

[stages.offers]
policy = { name = "shared" }
reward = { kind = "continuous", window = "10m", min = -1.0, max = 1.0 }
loop = { rewards = "sum" }

[stages.cart]
policy = { name = "linear" }
reward = { kind = "continuous", window = "7d", min = 0.0, max = 100.0 }
features = {}
nudges.tip = { type = "help", format = "tooltip" }

[journey.events.viewed]
names = ["Viewed"]

[journey.events.bought]
names = ["Bought"]
properties = { amount = "amount" }

[stages.cart.outcomes.bought]
kind = "reward"
value = "amount"
"""


class Service:
    """Running service: its process, its address, and one key's requests to it."""

    def __init__(self, pid: int, port: int, key: str):
        self.pid, self._url, self._headers = pid, f"http://{HOST}:{port}", {"X-API-Key": key}

    def send(self, method: str, path: str, content: bytes, headers: dict[str, str] | None = None) -> int:
        """Status of the answer to one request, over a connection of its own; 0 if the connection broke."""
        with httpx.Client(timeout=_PATIENCE) as client, contextlib.suppress(httpx.TransportError):
            more = self._headers | {"Content-Type": "application/json"} | (headers or {})
            return client.request(method, self._url + path, content=content, headers=more).status_code
        return 0

    def post(self, path: str, body: object) -> int:
        """Status of the answer to a JSON body."""
        return self.send("POST", path, json.dumps(body).encode())

    def decision(self) -> str:
        """Id of a new decision at the cart."""
        body = {"stage": "cart", "user_id": "one", "context": {}}
        reply = httpx.post(f"{self._url}/v1/decisions", json=body, headers=self._headers, timeout=_PATIENCE)
        return str(reply.raise_for_status().json()["decision_id"])

    def receipt(self, decision: str) -> None:
        """Ask for a receipt; raises httpx.HTTPError if there is none."""
        url = f"{self._url}/v1/decisions/{decision}"
        httpx.get(url, headers=self._headers, timeout=_PATIENCE).raise_for_status()


class Cost(NamedTuple):
    """Cost of some requests: how many had which status, processor seconds, the longest receipt in seconds, MB."""

    statuses: collections.Counter[int]
    processor: float
    longest: float
    memory: float


Sending = Sequence[Callable[[], int]]


@contextlib.contextmanager
def receipts(polite: Service, decision: str) -> Iterator[list[tuple[float, float]]]:
    """While it lasts, receipts are asked for: (seconds that one took, MB of the service then)."""
    found, over = list[tuple[float, float]](), threading.Event()

    def ask() -> None:
        while not over.wait(_PAUSE):
            start = time.perf_counter()
            polite.receipt(decision)
            found.append((time.perf_counter() - start, processor.megabytes(polite.pid)[0]))

    def look() -> None:
        while not over.wait(_PAUSE):
            found.append((0.0, processor.megabytes(polite.pid)[0]))

    with ThreadPoolExecutor(2) as pool:
        asking = [pool.submit(ask), pool.submit(look)]
        try:
            yield found
            time.sleep(_AFTER)
        finally:
            over.set()
        for one in asking:
            one.result()


def measured(polite: Service, sending: Sending, at_once: int) -> Cost:
    """Cost of requests, so many of them at the same time."""
    decision = polite.decision()
    polite.receipt(decision)
    before, used = processor.megabytes(polite.pid)[0], processor.spent(polite.pid)
    with receipts(polite, decision) as found, ThreadPoolExecutor(at_once) as pool:
        statuses = collections.Counter(pool.map(lambda send: send(), sending))
    spent = processor.spent(polite.pid).since(used).total / 1e6
    return Cost(statuses, spent, max(took for took, _ in found), max(most for _, most in found) - before)


# -- kinds -------------------------------------------------------------------------------------------------------


def _features(prefix: str, many: int) -> list[dict[str, Any]]:
    return [{f"{prefix}{i}": i % 7 for i in range(many)}]


def _ranking(actions: int, slots: int, own: int, around: int) -> dict[str, Any]:
    """Body of a ranking, `own` features an action and `around` in the context."""
    body: dict[str, Any] = {"contextFeatures": _features("c", around)}
    body["actions"] = [{"id": f"a{i}", "features": _features("f", own)} for i in range(actions)]
    if slots:
        body["slots"] = [
            {"id": f"s{i}", "baselineAction": f"a{i}", "features": _features("p", 9)} for i in range(slots)
        ]
    return body


def slots(dear: Service, options: argparse.Namespace) -> Sending:
    """Multi-slot ranks that are too much."""
    return [partial(dear.post, _SLOTS, _ranking(50, 50, 250, 480))] * options.at_once


def most_slots(dear: Service, options: argparse.Namespace) -> Sending:
    """Multi-slot ranks just within the bounds, eight times as many."""
    return [partial(dear.post, _SLOTS, _ranking(50, 10, 62, 53))] * (8 * options.at_once)


def rank(dear: Service, options: argparse.Namespace) -> Sending:
    """Ranks of many features."""
    return [partial(dear.post, "/offers/personalizer/v1.0/rank", _ranking(50, 0, 450, 450))] * options.at_once


def outcomes(dear: Service, _: argparse.Namespace) -> Sending:
    """Outcomes of one decision."""
    decision = dear.decision()
    rewards = [{"decision_id": decision, "kind": "reward", "value": 1.0, "outcome_id": f"o{i}"} for i in range(4000)]
    return [partial(dear.post, "/v1/outcomes/batch", {"outcomes": rewards[n : n + 1000]}) for n in range(0, 4000, 1000)]


def events(dear: Service, options: argparse.Namespace) -> Sending:
    """Late events of a person of whom there are many."""
    return _late(dear, options, "Viewed")


def reports(dear: Service, options: argparse.Namespace) -> Sending:
    """Late events of a person of whom there are many that report a reward."""
    return _late(dear, options, "Bought")


def _late(dear: Service, options: argparse.Namespace, name: str) -> Sending:
    began = dt.datetime.now(dt.UTC) - dt.timedelta(hours=20)

    def event(id_: str, seconds: float) -> dict[str, Any]:
        at = (began + dt.timedelta(seconds=seconds)).isoformat()
        return {"event_id": id_, "event": name, "user_id": "one", "occurred_at": at, "properties": {"amount": 1}}

    taken = collections.Counter(
        dear.post("/v1/events", {"events": [event(f"e{i}", i) for i in range(n, n + 1000)]})
        for n in range(0, options.events, 1000)
    )
    print(f"    ({name} before: {dict(taken)})", flush=True)
    late = [event(f"late{i}", options.events - 1000.5 - i) for i in range(10)]
    return [partial(dear.post, "/v1/events", {"events": [one]}) for one in late]


def messages(dear: Service, options: argparse.Namespace) -> Sending:
    """Segment batch of many small messages."""
    batch = [{"type": "track", "event": "V", "userId": "u", "messageId": f"m{i}"} for i in range(40_000)]
    packed = gzip.compress(json.dumps({"batch": batch}, separators=(",", ":")).encode(), 9)
    return [partial(dear.send, "POST", "/v1/batch", packed, {"Content-Encoding": "gzip"})] * options.at_once


def snapshot(dear: Service, _: argparse.Namespace) -> Sending:
    """Release whose arrays unpack to a thousand times what was sent."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file, file.open("precision.npy", "w") as out:
        header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (175000000,), }"
        out.write(b"\x93NUMPY\x01\x00" + (118).to_bytes(2, "little") + header.ljust(117) + b"\n")
        for _i in range(1400):
            out.write(bytes(1_000_000))
    posterior = archive.getvalue()
    told = {"format": FORMAT, "posterior_sha256": hashlib.sha256(posterior).hexdigest()}
    policy = json.dumps(told, indent=1).encode()
    policy = policy.removesuffix(b"\n}") + b',\n "sha256": "%s"\n}' % hashlib.sha256(policy).hexdigest().encode()
    body = {
        "model": "shop-cart", "version": "1", "approved_by": "ana", "approved_at": "2026-01-01T00:00:00Z",
        "reason": "a trial", "sha256": hashlib.sha256(policy).hexdigest(), "belief_sha256": "0" * 64,
        "policy": base64.b64encode(policy).decode(), "posterior": base64.b64encode(posterior).decode(),
    }  # fmt: skip
    return [partial(dear.send, "PUT", "/v1/policies/cart/release", json.dumps(body).encode())]


KINDS: dict[str, Callable[[Service, argparse.Namespace], Sending]] = {
    "slots": slots, "most-slots": most_slots, "rank": rank, "outcomes": outcomes, "events": events,
    "reports": reports, "messages": messages, "snapshot": snapshot,
}  # fmt: skip


def _run(kind: str, options: argparse.Namespace, folder: Path) -> Cost:
    port, log, file, app = free_port(HOST), folder / "serve.log", folder / "keys.toml", folder / "shop.toml"
    app.write_text(_CATALOGUE, encoding="utf-8")
    keys = {name: create(file, name, list(EVERY)) for name in ("polite", "dear")}
    where = ("--app", str(app), "--store", f"sqlite:///{folder}/dear.db", "--port", str(port), "--keys", str(file))
    with processes.stopping(processes.serve(*where, log=log)) as server:
        processes.wait(server, f"http://{HOST}:{port}/health/ready", log)
        polite, dear = (Service(server.pid, port, keys[name]) for name in ("polite", "dear"))
        return measured(polite, KINDS[kind](dear, options), options.at_once)


def main() -> None:
    """Parse the arguments; for each kind start the service, send, print a line of the table, and stop the service."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--at-once", type=int, default=4)
    parser.add_argument("--only", action="append", choices=list(KINDS))
    parser.add_argument("--events", type=int, default=60_000)
    options = parser.parse_args()
    print(f"  {'':<12}{'processor s':>12}{'longest receipt s':>19}{'memory MB':>11}   answered")
    for kind in options.only or KINDS:
        with tempfile.TemporaryDirectory() as folder:
            cost = _run(kind, options, Path(folder))
        said = ", ".join(f"{many} × {status}" for status, many in sorted(cost.statuses.items()))
        print(f"  {kind:<12}{cost.processor:>12.2f}{cost.longest:>19.3f}{cost.memory:>+11.0f}   {said}", flush=True)
    print(f"\nload of the machine at the end: {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
