"""Panel of the example apps: what a service knows of a person and a decision, read from its API."""

import uuid
from typing import Any

import numpy as np

from bandit import engine
from bandit.snapshot import from_zip
from journey_bandit.demos.example_apps.backends import AppBackend


async def known(backend: AppBackend, person: str, decision: str) -> dict[str, Any]:
    """What the panel shows: the person's journey, the policy of the story's stage, and of a decision ("" for none) its
    receipt and the probabilities with which the same question would be answered now.
    """
    http, stage = backend.http, backend.service.app.stage
    journey = (await http.get(f"/v1/users/{person}/journey")).raise_for_status().json()
    receipt = None
    if decision:
        receipt = (await http.get(f"/v1/decisions/{uuid.UUID(decision)}")).raise_for_status().json()
        stage = receipt["stage"]
    policies = (await http.get("/v1/policies", params={"wait": True})).raise_for_status().json()["policies"]
    if receipt is not None:  # settled by now, if its window is over
        receipt = (await http.get(f"/v1/decisions/{uuid.UUID(decision)}")).raise_for_status().json()
    return {
        "now": await backend.now(),
        "person": person,
        "journey": journey,
        "receipt": receipt,
        "policy": next(one for one in policies if one["stage"] == stage),
        "again": None if receipt is None else await _again(backend, receipt),
        "state": backend.state(person),
    }


async def declared(backend: AppBackend) -> dict[str, Any]:
    """What the panel shows of the app itself: its stages and nudges, and its stories."""
    stages = (await backend.http.get("/v1/stages")).raise_for_status().json()
    app = backend.service.app
    return {
        "name": app.name,
        "title": app.title,
        "about": app.about,
        "stage": app.stage,
        "opens": app.opens,
        "currency": stages["currency"],
        "stages": {one["stage"]: one for one in stages["stages"]},
        "stories": [{"person": story.person, "label": story.label, "nudge": story.nudge} for story in app.stories],
        "service": backend.service.url,
    }


async def _again(backend: AppBackend, receipt: dict[str, Any]) -> dict[str, float]:
    """Probability of each arm if the same were asked of what is learned now."""
    found = (await backend.http.get(f"/v1/policies/{receipt['stage']}/snapshot")).raise_for_status().content
    live = engine.prepare(from_zip(found))
    arms = live.snapshot.stage_spec.arms
    may = np.array([arm in receipt["eligible"] for arm in arms])
    scores = engine.choose(live, np.array(list(receipt["x"].values())), may)
    return dict(zip(arms, scores.propensity.tolist(), strict=True))
