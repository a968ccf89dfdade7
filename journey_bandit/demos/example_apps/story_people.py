"""People of the stories: user ids outside the control group, and ids of decisions that draw the story's nudge."""

import hashlib
import itertools
import uuid
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from api.catalogue_files import read_file
from api.decisions.pages import FORMATS
from bandit import engine, features
from bandit.propensity import draw
from bandit.snapshot import Snapshot
from journey_bandit.demos.example_apps.app_specs import SALT, AppStory, ExampleApp

_SALT = hashlib.sha256(SALT.encode()).digest()
_IDS = 40  # decisions of one person for which an id is looked for
_MIDDLE = (0.25, 0.75)  # of the nudge's interval: what is known of a person moves its ends


class StoryPeople:
    """People of one app's stories, as its catalogue draws them before anything is learned."""

    def __init__(self, app: ExampleApp, catalogue: Path):
        declared = read_file(catalogue)
        self._app, self._stage = app, declared.stage(app.stage)
        self._live = engine.prepare(Snapshot.untrained(declared, app.stage))
        self._numbers = {story.person: itertools.count(1) for story in app.stories}

    def person(self, story: AppStory) -> str:
        """A user id of the story that was not given out before, and is not in the control group."""
        ids = (f"{story.person}-{number}" for number in self._numbers[story.person])
        return next(name for name in ids if not self._held(name))

    def decision_ids(self, story: AppStory, person: str) -> list[str]:
        """Ids of decisions of this person (UUIDs) whose draws fall into the middle of the nudge's interval."""
        low, high = self.interval(story)
        width = high - low
        begin, end = low + _MIDDLE[0] * width, low + _MIDDLE[1] * width
        fitting = (str(found) for found in _candidates(person) if begin <= self._u(found) < end)
        return list(itertools.islice(fitting, _IDS))

    def interval(self, story: AppStory) -> tuple[float, float]:
        """Interval of u in [0, 1) that draws the story's nudge at its first moment."""
        stage = self._stage
        x = features.encode(features.of(stage), dict(story.context)).x
        may = np.array([True, *(nudge.format in FORMATS for nudge in stage.nudges.values())])
        ends = np.cumsum(engine.choose(self._live, x, may).propensity)
        place = stage.arms.index(story.nudge)
        return float(ends[place - 1]), float(ends[place])

    def _held(self, person: str) -> bool:
        return engine.in_holdout(engine.randomization_unit(_SALT, person), self._stage.holdout)

    def _u(self, decision: uuid.UUID) -> float:
        return draw.unit(_SALT, b"draw", self._app.stage.encode(), decision.bytes)


def _candidates(person: str) -> Iterator[uuid.UUID]:
    return (uuid.uuid5(uuid.NAMESPACE_URL, f"{person}/{number}") for number in itertools.count())
