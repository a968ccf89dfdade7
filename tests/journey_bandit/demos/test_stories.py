"""The stories of `journey-bandit stories`: each person reaches their moment; what they do is credited and learned."""

from typing import Any

import pytest
from click.testing import CliRunner
from litestar.testing import TestClient

from api.app import create_app
from api.clocks import DrivenClock
from api.settings import Settings
from api.stores.memory.store import MemoryStore
from journey_bandit.demos import stories
from journey_bandit.demos.stories_data import STORIES, Story
from journey_bandit.main import group

MOMENTS = ["returns", "hesitates", "hesitates", "idle", "hesitates", "week_after_purchase"]
REWARDS = [1.0, 0.0, 1.0, 0.0, 1.0, 1.0]
WHY = ["reward", "silence", "reward", "retraction", "reward", "reward"]


@pytest.mark.parametrize(("story", "moment", "reward", "why"), list(zip(STORIES, MOMENTS, REWARDS, WHY, strict=True)))
def test_a_story_ends_in_a_belief(
    story: Story, moment: str, reward: float, why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = Settings(app=story.app, dev=True, salt="stories")
    with TestClient(create_app(settings, clock=DrivenClock(), store=MemoryStore())) as client:
        decision: Any = stories.tell(client, story)
        assert (decision["stage"], decision["moment"]) == (story.stage, moment)
        assert decision["holdout"] is False
        stories.pass_time(client, 60 * 86_400)
        stories.learned(client, story, decision)
        settled = client.get(f"/v1/decisions/{decision['decision_id']}").json()["settled"]
    assert (settled["why"], settled["reward"], settled["learned"]) == (why, reward, True)
    assert ("low_stock" in decision["excluded"]) == (story.person == "Ben")
    assert f"1 decision(s) learned, mean reward {reward:.2f}" in capsys.readouterr().out


@pytest.mark.slow
def test_the_command_tells_all_of_them() -> None:
    done = CliRunner().invoke(group, ["stories"])
    assert done.exit_code == 0, done.output
    assert all(story.person in done.output for story in STORIES)
    assert done.output.count("the same decision, True") == len(STORIES)
    assert "still open" not in done.output
