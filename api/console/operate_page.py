"""Operate page: what an operator may do to a running service, and what operators did."""

import datetime as dt
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from api.components import CatalogueParts
from api.http.keys import ApiKey
from api.messages.alarms import RewardAlarmReply
from api.messages.operations import OperatorActionReply
from api.stores.protocol import Store
from api.stores.webhook_queue import WebhookDelivery
from api.times import microseconds, time_of
from bandit.operations import pauses, traffic
from bandit.records import ALL_NUDGES, OperatorAction

_LISTED = 100
"""Newest entries of the history, and oldest dead letters, that are shown."""


class StoppableNudge(NamedTuple):
    """Nudge that can be stopped, or all of a stage's (`nudge` ""): the action that is in force, and whether the
    catalogue pauses it. `words` says the action, with who and why.
    """

    stage: str
    nudge: str
    action: OperatorAction | None
    declared: bool
    words: str


class TrafficRow(NamedTuple):
    """Ramp or holdout of a stage (`what`): the share that counts now, the one that is declared, and the action that set
    it, None for none.
    """

    stage: str
    what: str
    share: float
    declared: float
    action: OperatorActionReply | None


class AlarmRow(NamedTuple):
    """Alarm about a key at a stage that nobody has acknowledged."""

    stage: str
    alarm: RewardAlarmReply


class HistoryEntry(NamedTuple):
    """Entry of the history: what was done, by whom and why."""

    at: dt.datetime
    what: str
    who: str
    why: str


class KeyRow(NamedTuple):
    """Key by its name, without its secret. `over`: nobody gets in with it any more."""

    name: str
    scopes: str
    created: dt.datetime | None
    expires: dt.datetime | None
    over: bool


class OperatePage(NamedTuple):
    """Page of one service. `letters`: the oldest dead letters, of `dead` in all; `history`: the newest entries, of
    `entries` in all.
    """

    nudges: list[StoppableNudge]
    traffic: list[TrafficRow]
    alarms: list[AlarmRow]
    letters: list[WebhookDelivery]
    dead: int
    keys: list[KeyRow]
    history: list[HistoryEntry]
    entries: int


def operate_page(parts: CatalogueParts, store: Store, keys: Mapping[str, ApiKey], now: int) -> OperatePage:
    """Page at `now` (µs). Reads the ledger, in time that grows with what operators did; any thread."""
    letters, history = parts.sending.dead(), sorted(_history(parts, store), key=lambda one: one.at, reverse=True)
    return OperatePage(
        nudges=list(_nudges(parts)),
        traffic=list(_traffic(parts)),
        alarms=list(_alarms(parts)),
        letters=letters[:_LISTED],
        dead=len(letters),
        keys=[_key(name, key, now) for name, key in sorted(keys.items())],
        history=history[:_LISTED],
        entries=len(history),
    )


def _nudges(parts: CatalogueParts) -> Iterator[StoppableNudge]:
    for stage, spec in parts.catalogue.stages.items():
        force = {one.nudge: one for one in parts.worker.pauses.of(stage)}
        for nudge in (ALL_NUDGES, *spec.nudges, *(name for name in force if name and name not in spec.nudges)):
            action, declared = force.get(nudge), spec.nudges.get(nudge)
            words = pauses.reason(action) if action else ""
            yield StoppableNudge(stage, nudge, action, declared is not None and declared.paused, words)


def _traffic(parts: CatalogueParts) -> Iterator[TrafficRow]:
    for stage, spec in parts.catalogue.stages.items():
        policy = parts.service.policy(stage)
        for what, said in (("ramp", policy.ramp), ("holdout", policy.holdout_share)):
            if what == "holdout" or not spec.has_request_actions:
                yield TrafficRow(stage, what, said.share, said.declared, said.set)


def _alarms(parts: CatalogueParts) -> Iterator[AlarmRow]:
    for stage in parts.catalogue.stages:
        for alarm in parts.service.policy(stage).reward_alarms:
            if alarm.acknowledged is None:
                yield AlarmRow(stage, alarm)


def _history(parts: CatalogueParts, store: Store) -> Iterator[HistoryEntry]:
    for one in store.operator_actions():
        what = f"{one.verb} {one.stage}.{one.nudge}" if one.nudge else f"{one.verb} every nudge of {one.stage}"
        if one.verb in traffic.SETTINGS:
            said = "as declared" if one.share is None else f"{100.0 * one.share:.6g} %"
            what = f"{one.verb} of {one.stage}: {said}"
        yield HistoryEntry(time_of(one.at), what, one.who, one.reason)
    for told in store.acknowledgements():
        what = f"found the key {told.reporter} {told.verdict} at {told.stage}"
        yield HistoryEntry(time_of(told.at), what, told.who, told.reason)
    for taken in store.withdrawals():
        yield HistoryEntry(
            time_of(taken.at), f"took back what the key {taken.reporter} reported", taken.who, taken.reason
        )
    for kept, _ in parts.worker.releases.history():
        what = f"{kept.kind or 'release'} {kept.model} {kept.version}".rstrip()
        yield HistoryEntry(time_of(kept.at), f"{what} at {kept.stage}", kept.approved_by, kept.reason)


def _key(name: str, key: ApiKey, now: int) -> KeyRow:
    over = key.expires is not None and now >= microseconds(key.expires)
    return KeyRow(name, ", ".join(key.scopes), key.created, key.expires, over)
