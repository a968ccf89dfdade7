"""Webhook configuration: endpoints, the CloudEvents that they are sent, and their signature.

Events are CloudEvents 1.0 in structured JSON. They are signed as Standard Webhooks are, so that receivers can verify
them with a library they may have: HMAC-SHA256 over "id.timestamp.body".
"""

import base64
import binascii
import hashlib
import hmac
import json
import os
import re
import secrets
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple
from urllib.parse import urlsplit

import msgspec

from api import private_files
from api.stores.decision_log import DecisionRecord
from api.times import time_of
from api.webhooks.addresses import is_named_private
from bandit.catalogue.decoding import decode
from bandit.catalogue.model import Stage
from bandit.errors import CatalogueError, Problem
from bandit.learning.drift import DriftAlarm
from bandit.learning.rewards import standing
from bandit.records import OperatorAction, Release
from bandit.reporters.reward_watch import RewardAlarm
from bandit.tables.texts import decoded

Kind = Literal["decision", "reward", "drift", "reward_alarm", "promotion", "operator_action"]
KINDS: tuple[Kind, ...] = ("decision", "reward", "drift", "reward_alarm", "promotion", "operator_action")
TYPES: Mapping[Kind, str] = {
    "decision": "journey-bandit.decision.made",
    "reward": "journey-bandit.reward.matured",
    "drift": "journey-bandit.drift.alarm",
    "reward_alarm": "journey-bandit.reward.alarm",
    "promotion": "journey-bandit.policy.promoted",
    "operator_action": "journey-bandit.operator.action",
}
MEDIA = "application/cloudevents+json"
_PREFIX = "whsec_"


class Endpoint(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Webhook endpoint as the file declares it: address, secret, and the kinds of events that it is sent.

    `secret`: whsec_ and base64; or `secret_env`, the environment variable that holds it. After `attempts` (a message is
    then a dead letter) nothing more is tried; `timeout` is in seconds. `private`: messages may go to addresses of one's
    own network.
    """

    url: str
    secret: str = ""
    secret_env: str = ""
    events: tuple[Kind, ...] = KINDS
    attempts: Annotated[int, msgspec.Meta(ge=1, le=50)] = 16
    timeout: Annotated[float, msgspec.Meta(gt=0, le=60)] = 10.0
    private: bool = False

    @property
    def key(self) -> bytes:
        """Bytes that sign the endpoint's messages. Raises ValueError if the secret is no base64."""
        text = self.secret or os.environ.get(self.secret_env, "")
        return base64.b64decode(text.removeprefix(_PREFIX), validate=True)


class _WebhookFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    endpoints: dict[str, Endpoint] = {}


class _TracedEvent(msgspec.Struct, frozen=True):
    traceparent: str = ""


_TRACED = msgspec.json.Decoder(_TracedEvent)


class WebhookMessage(NamedTuple):
    """CloudEvent ready to be sent: its id, which is the same whenever the event is made again so that receivers can
    drop repetitions, and its JSON.
    """

    id: str
    body: bytes


def load(path: Path) -> dict[str, Endpoint]:
    """Endpoints in a TOML file by name, checked; read when a service starts and when it reloads. Raises CatalogueError
    with every mistake, also for a file that cannot be read.
    """
    mistakes: list[Problem] = []
    try:
        file = decode(tomllib.loads(decoded(path.read_bytes(), str(path))), _WebhookFile, "", mistakes)
    except (OSError, ValueError) as error:
        fix = "make one with `journey-bandit webhooks new`"
        raise CatalogueError(str(path), [Problem("(file)", str(error), fix)]) from error
    endpoints: dict[str, Endpoint] = file.endpoints if file else {}
    mistakes += [problem for name, endpoint in endpoints.items() for problem in _check(name, endpoint)]
    if mistakes:
        raise CatalogueError(str(path), mistakes)
    return endpoints


def create(path: Path, name: str, url: str, events: list[Kind]) -> str:
    """Append an endpoint to the file and return its new secret (256 random bits), which the file keeps too. For
    `journey-bandit webhooks new`. An address of one's own network that is written out is allowed there.
    Raises CatalogueError if the name is taken, or the address cannot be used.
    """
    secret = _PREFIX + base64.b64encode(secrets.token_bytes(32)).decode()
    mistakes = list(_check(name, Endpoint(url=url, secret=secret)))
    if path.exists() and name in load(path):
        mistakes.append(Problem(f"endpoints.{name}", "exists", "choose another name, or remove it first"))
    if mistakes:
        raise CatalogueError(str(path), mistakes)
    private = "private = true\n" if is_named_private(urlsplit(url).hostname or "") else ""
    with open(path, "a", encoding="utf-8", opener=private_files.opener) as file:
        file.write(
            f'\n[endpoints.{name}]\nurl = {json.dumps(url)}\nsecret = "{secret}"\n'
            f"events = {json.dumps(events)}\n{private}"
        )
    path.chmod(0o600)
    return secret


def _check(name: str, endpoint: Endpoint) -> Iterator[Problem]:
    path = f"endpoints.{name}"
    if not re.fullmatch(r"[a-z0-9_-]{1,40}", name):
        yield Problem(path, f"{name!r} is not a usable name", "lower-case letters, digits, - and _")
    parts = urlsplit(endpoint.url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username:
        yield Problem(f"{path}.url", "not a web address", "https://host/path")
    try:
        short = len(endpoint.key) < 24
    except (ValueError, binascii.Error):
        short = True
    if short:
        fix = f"{_PREFIX} and base64 of 24 bytes or more, as `journey-bandit webhooks new` makes it; or set secret_env"
        yield Problem(f"{path}.secret", "missing, or no secret", fix)


def signed(key: bytes, message: WebhookMessage, seconds: int) -> dict[str, str]:
    """HTTP headers of one attempt to send a message, made at `seconds` since 1970: Standard Webhooks' id, timestamp and
    signature; and the trace that it belongs to, if it says one.
    """
    content = f"{message.id}.{seconds}.".encode() + message.body
    signature = base64.b64encode(hmac.new(key, content, hashlib.sha256).digest()).decode()
    return {
        "Content-Type": MEDIA,
        "webhook-id": message.id,
        "webhook-timestamp": str(seconds),
        "webhook-signature": f"v1,{signature}",
        **({"traceparent": traceparent} if (traceparent := _traceparent(message.body)) else {}),
    }


def _traceparent(body: bytes) -> str:
    """Trace that a message says it belongs to; "" if it says none."""
    return _TRACED.decode(body).traceparent if b'"traceparent"' in body else ""


def decision_made(app: str, found: DecisionRecord, spec: Stage, traceparent: str = "") -> WebhookMessage:
    """Message that a decision is on disk: nudge, propensities of the eligible arms, policy, and the user's hash. `spec`
    is the declaration it was made under. `traceparent`: of the request that made it, if it is known.
    """
    d = found.decision
    arms = d.arms(spec.arms)
    nudge, other = spec.nudges.get(d.arm), "action" if spec.has_request_actions else "none"
    data = {
        "decision_id": d.id,
        "stage": d.stage,
        "nudge": {"id": d.arm, "type": nudge.type if nudge else other, "format": nudge.format if nudge else other},
        "propensity": float(d.propensity[arms.index(d.arm)]),
        "propensities": {a: p for a, p in zip(arms, d.propensity.tolist(), strict=True) if a not in d.excluded},
        "policy": spec.policy.__struct_config__.tag,
        "policy_version": d.settlement_version,
        "holdout": d.holdout,
        "deferred": d.deferred,
        "moment": d.moment or None,
        "expires_at": time_of(d.expires),
        "user_hash": d.user.hex(),
    }
    return _event(app, "decision", f"decision:{d.id}", str(d.id), d.at, data, traceparent)


def reward_matured(app: str, found: DecisionRecord) -> WebhookMessage:
    """Message that a decision has settled: its reward in the stage's units, why, whether it was learned, and the
    outcomes behind it. A correction has an id of its own, and says the number of the settlement that it corrects.
    """
    d, done = found.decision, found.settlement
    assert done is not None  # noqa: S101 - only settled decisions are asked for
    data = {
        "decision_id": d.id,
        "stage": d.stage,
        "nudge": d.arm,
        "reward": done.reward,
        "why": done.why,
        "learned": done.learned,
        "settlement": done.seq,
        "outcomes": [
            {"kind": o.kind, "value": o.value, "occurred_at": time_of(o.occurred), "late": o.late}
            for o in standing(found.outcomes)
        ],
    }
    again = f":{done.seq}" if done.corrects else ""
    data |= {"corrects": done.corrects} if again else {}
    return _event(app, "reward", f"reward:{d.id}{again}", str(d.id), done.at, data)


def drift_alarm(app: str, stage: str, number: int, alarm: DriftAlarm) -> WebhookMessage:
    """Message that rewards of an arm moved away from what was expected; `number` counts the stage's alarms from 0 and
    is part of the id.
    """
    data = {"stage": stage, "nudge": alarm.arm, "direction": alarm.direction, "through_version": alarm.through}
    return _event(app, "drift", f"drift:{stage}:{number}:{alarm.through}", stage, alarm.at, data)


def reward_alarm(app: str, stage: str, number: int, alarm: RewardAlarm) -> WebhookMessage:
    """Message that a key brought more rewards for an arm than were usual, on [0, 1]; `number` counts the stage's alarms
    about keys from 0 and is part of the id.
    """
    data = {
        "stage": stage,
        "reporter": alarm.reporter,
        "nudge": alarm.arm,
        "through_version": alarm.through,
        "decisions": alarm.decisions,
        "rate": alarm.reward / alarm.decisions,
        "usual_at_most": alarm.allowed,
    }
    return _event(app, "reward_alarm", f"reward_alarm:{stage}:{number}:{alarm.through}", stage, alarm.at, data)


def promoted(app: str, stage: str, decision: int, before: Stage, after: Stage, at: int) -> WebhookMessage:
    """Message that another policy decides at a stage, from decision number `decision` of the ledger on: the declared
    policy before and after. `at` in µs since 1970.
    """
    data = {
        "stage": stage,
        "from_decision": decision,
        "before": {"policy": before.policy, "spec": before.digest()},
        "after": {"policy": after.policy, "spec": after.digest()},
    }
    return _event(app, "promotion", f"promotion:{stage}:{decision}", stage, at, data)


def released(app: str, before: Release | None, after: Release) -> WebhookMessage:
    """Message that an approved version decides at a stage; with none, what is learned here decides again. Who approved
    it and why is in it.
    """
    data = {
        "stage": after.stage,
        "release": after.seq,
        "kind": after.kind,
        "before": _version(before),
        "after": _version(after),
        "approved_by": after.approved_by,
        "reason": after.reason,
        **({"judge": True, "decisions": after.decisions} if after.judge else {}),
    }
    return _event(app, "promotion", f"release:{after.stage}:{after.seq}", after.stage, after.at, data)


def operator_action(app: str, action: OperatorAction) -> WebhookMessage:
    """Message that an operator, or a stage's guardrail, stopped a nudge or let it go on, or that an operator set a ramp
    or a holdout; who and why is in it. `nudge` null: all of the stage's; `share` null: as declared, or another action.
    """
    data = {
        "stage": action.stage,
        "nudge": action.nudge or None,
        "action": action.verb,
        "share": action.share,
        "who": action.who,
        "reason": action.reason,
        "number": action.seq,
    }
    return _event(app, "operator_action", f"operator_action:{action.seq}", action.stage, action.at, data)


def _version(release: Release | None) -> dict[str, str] | None:
    if release is None or not release.version:
        return None
    return {"model": release.model, "version": release.version, "sha256": release.sha256}


def _event(
    app: str, kind: Kind, event: str, subject: str, at: int, data: Mapping[str, Any], traceparent: str = ""
) -> WebhookMessage:
    body = {
        "specversion": "1.0",
        "id": event,
        "source": f"/journey-bandit/{app}",
        "type": TYPES[kind],
        "subject": subject,
        "time": time_of(at),
        "datacontenttype": "application/json",
        **({"traceparent": traceparent} if traceparent else {}),  # CloudEvents' extension for distributed tracing
        "data": data,
    }
    return WebhookMessage(event, msgspec.json.encode(body))
