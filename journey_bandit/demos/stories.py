"""Command `journey-bandit stories`: one person in each of five apps, over HTTP, from events to a nudge to what it
taught.
"""

import datetime as dt
import tempfile
import textwrap
import uuid
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click
import httpx
from rich.console import Console

from api.server import free_port
from journey_bandit import processes
from journey_bandit.demos.stories_data import STORIES, Story, StoryEvent

_HOST = "127.0.0.1"
_SALT = "stories"
_MONTHS = 60 * 86_400.0  # longer than any story's attribution window

console = Console(highlight=False, width=118)


@click.command()
def stories() -> None:
    """Tell five stories against live services: what people did, which moment it was, what they were shown and why, and
    what the policy learned. The stories drive the services' clocks, so that no attribution window is waited for.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="journey-bandit-")))
        clients: dict[str, httpx.Client] = {}
        for story in STORIES:
            if story.app not in clients:
                clients[story.app] = _client(stack, folder, story)
        told = [(story, tell(clients[story.app], story)) for story in STORIES]
        console.rule("what was learned")
        for client in clients.values():
            pass_time(client, _MONTHS)
        for story, decision in told:
            learned(clients[story.app], story, decision)


def _client(stack: ExitStack, folder: Path, story: Story) -> httpx.Client:
    """A service of the story's app, and a client of it."""
    url, log = f"http://{_HOST}:{free_port(_HOST)}", folder / f"{story.app}.log"
    where = ("--app", story.app, "--store", f"sqlite:///{folder / story.app}.db", "--port", url.rsplit(":", 1)[1])
    options = ("--dev", "--salt", _SALT, "--clock", "driven")
    process = stack.enter_context(processes.stopping(processes.serve(*where, *options, log=log)))
    client = stack.enter_context(httpx.Client(base_url=url, timeout=30.0))
    processes.wait(process, f"{url}/health/ready", log)
    return client


def pass_time(client: httpx.Client, seconds: float) -> None:
    """Let so many seconds of the service's time pass, by driving its clock; nothing waits in real time."""
    client.post("/v1/clock", json={"microseconds": int(seconds * 1e6)}).raise_for_status()


def tell(client: httpx.Client, story: Story) -> Any:
    """Send a story's events up to the reward, printing each; the decision that was made for its person, as the service
    answered it.
    """
    console.rule(f"{story.app}: {story.person} {story.plot}")
    for did in story.before:
        _report(client, story, did)
    journey = client.get(f"/v1/users/{story.person}/journey").raise_for_status().json()
    _line("", "journey", f"stage {journey['stage']}, moment {journey['moment']}: {journey['why']}")
    known = ", ".join(f"{name} {value}" for name, value in _rounded(journey["features"]).items())
    _line("", "", f"known: {known}")
    question = {"user_id": story.person, "evidence": dict(story.evidence), "context": dict(story.context)}
    decision_id = str(uuid.uuid5(uuid.NAMESPACE_URL, f"{story.app}/{story.person}"))
    decision = client.post("/v1/decisions", json=question | {"decision_id": decision_id}).raise_for_status().json()
    chances = ", ".join(f"{arm} {p:.3f}" for arm, p in decision["propensities"].items())
    _line(
        "",
        "decision",
        f"shows {decision['nudge']['id']}, drawn with probability {decision['propensity']:.3f} from {chances}",
    )
    for nudge, reason in decision["excluded"].items():
        _line("", "", f"not {nudge}: {reason}")
    again = client.post("/v1/decisions", json=question).raise_for_status().json()
    _line("", "", f"asked again in this visit: the same decision, {again['decision_id'] == decision['decision_id']}")
    for did in story.then:
        _report(client, story, did)
    receipt = client.get(f"/v1/decisions/{decision['decision_id']}").raise_for_status().json()
    for outcome in receipt["outcomes"]:
        amount = "of all of it" if outcome["value"] is None else f"{outcome['value']:g}"
        _line("", "credited", f"{outcome['kind']} {amount} to this decision")
    return decision


def _report(client: httpx.Client, story: Story, did: StoryEvent) -> None:
    """One event, in the words of the client that reports it."""
    now = client.get("/v1/clock").raise_for_status().json()["now"] / 1e6
    at = dt.datetime.fromtimestamp(now - did.ago, dt.UTC).isoformat()
    name = str(uuid.uuid4())
    if did.by == "segment":
        kind = {"type": did.event} if did.event in ("page", "identify") else {"type": "track", "event": did.event}
        message = {
            **kind,
            "userId": story.person,
            "messageId": name,
            "timestamp": at,
            "properties": dict(did.properties),
        }
        client.post("/v1/batch", json={"batch": [message]}).raise_for_status()
    else:
        event = {"event_id": name, "event": did.event, "user_id": story.person, "occurred_at": at}
        client.post("/v1/events", json={"events": [event | {"properties": dict(did.properties)}]}).raise_for_status()
    what = ", ".join(f"{key} {value}" for key, value in did.properties.items())
    _line(_ago(did.ago), did.by, f"{did.event}{': ' + what if what else ''}")


def learned(client: httpx.Client, story: Story, decision: Any) -> None:
    """Print what became of a story's decision, and of the arm it chose, once its attribution window is over."""
    policies = client.get("/v1/policies", params={"wait": True}).raise_for_status().json()["policies"]
    done = client.get(f"/v1/decisions/{decision['decision_id']}").raise_for_status().json()["settled"]
    (policy,) = [policy for policy in policies if policy["stage"] == decision["stage"]]
    (arm,) = [arm for arm in policy["arms"] if arm["arm"] == decision["nudge"]["id"]]
    outcome = f"{done['why']}, reward {done['reward']:g}" if done else "still open"
    taught = (
        f"{arm['learned']} decision(s) learned, mean reward {arm['mean_reward']:.2f}"
        if arm["learned"]
        else "nothing learned"
    )
    _line("", story.app, f"{story.person}: {outcome}; {decision['stage']}/{arm['arm']}: {taught}")


def _line(when: str, who: str, what: str) -> None:
    text = textwrap.fill(what, 117, initial_indent=f"{when:>9}  {who:<12}  ", subsequent_indent=" " * 25)
    console.print(text, markup=False, soft_wrap=True)


def _ago(seconds: float) -> str:
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"−{seconds / length:.3g} {unit}"
    return f"−{seconds:.0f} s" if seconds else "now"


def _rounded(features: dict[str, Any]) -> dict[str, Any]:
    return {name: round(value, 1) if isinstance(value, float) else value for name, value in features.items()}
