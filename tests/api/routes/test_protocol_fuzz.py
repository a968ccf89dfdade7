"""Whatever JSON a client sends, it gets an answer in its protocol's shape, and never 500."""

from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

NAMES = ["age", "plan", "returning", "targetingKey", "evidence", "consent", "shown", "stock", "deadline", "as_of", "a"]
texts = st.text(max_size=8) | st.sampled_from(["free", "2025-10-09T09:00:00Z", "9999-12-31T23:59:59-12:00", "none"])
leaves = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts
values = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts | st.sampled_from(NAMES), inner, max_size=4),
    max_leaves=12,
)
contexts = st.dictionaries(st.sampled_from(NAMES) | texts, values, max_size=6)
FLAG, FAILURE = {"key", "value", "reason", "variant", "metadata"}, {"key", "errorCode", "errorDetails"}
LOOP = """
app = "shop"
currency = "EUR"
[stages.offers]
policy = { name = "shared", columns = 32 }
reward = { kind = "continuous", window = "10m", min = -1.0, max = 1.0 }
"""
features = st.lists(contexts, max_size=3)
action = st.fixed_dictionaries({"id": st.sampled_from("abc") | values, "features": features | values})
actions = st.lists(action, max_size=4)
messy = st.fixed_dictionaries(
    {"actions": actions | values},
    optional={
        "contextFeatures": features | values,
        "excludedActions": st.lists(st.sampled_from("abc")) | values,
        "eventId": st.text(max_size=5) | values,
        "deferActivation": st.booleans() | values,
        "slots": values,
    },
)


def slotted(asked: dict[str, Any]) -> dict[str, Any]:
    """With a place for its first action."""
    return {**asked, "slots": [{"id": "top", "baselineAction": asked["actions"][0]["id"]}]}


usable = st.fixed_dictionaries(
    {
        "actions": st.lists(
            st.fixed_dictionaries({"id": st.sampled_from("abcd"), "features": features}),
            min_size=2,
            unique_by=lambda one: one["id"],
        )
    },
    optional={"contextFeatures": features, "excludedActions": st.lists(st.sampled_from("a"), max_size=1)},
).map(slotted)
ranks = usable | messy


def test_no_context_breaks_the_flags(serving: Callable[..., AbstractContextManager[Any]]) -> None:
    seen = Counter[int]()
    with serving() as client:

        @settings(max_examples=250, deadline=None, derandomize=True, database=None)
        @given(contexts | values, st.booleans())
        def check(context: Any, known: bool) -> None:
            if known and isinstance(context, dict):
                context["targetingKey"] = "ann"
            body = msgspec.json.encode({"context": context})
            one = client.post("/ofrep/v1/evaluate/flags/signup", content=body)
            every = client.post("/ofrep/v1/evaluate/flags", content=body)
            seen[one.status_code] += 1
            assert one.status_code in (200, 400), one.text
            assert every.status_code in (200, 400), every.text
            assert "flags" in every.json() or every.json().keys() == {"errorCode", "errorDetails"}
            for flag in [one.json(), *every.json().get("flags", [])]:
                assert flag.keys() in (FLAG, FAILURE), flag

        check()
        assert min(seen[200], seen[400]) >= 20, seen  # both sides are tried


def test_no_request_breaks_a_ranking(serving: Callable[..., AbstractContextManager[Any]], tmp_path: Path) -> None:
    (tmp_path / "loop.toml").write_text(LOOP, encoding="utf-8")
    seen = Counter[tuple[str, int]]()
    with serving(app=str(tmp_path / "loop.toml")) as client:

        @settings(max_examples=150, deadline=None, derandomize=True, database=None)
        @given(ranks, values)
        def check(asked: Any, value: Any) -> None:
            body = msgspec.json.encode(asked)
            for path in ("rank", "multislot/rank"):
                reply = client.post(f"/offers/personalizer/v1.1-preview.3/{path}", content=body)
                seen[path, reply.status_code] += 1
                assert reply.status_code in (201, 400, 409), reply.text
                if reply.status_code == 201 and path == "rank":
                    found = reply.json()
                    assert abs(sum(a["probability"] for a in found["ranking"]) - 1.0) < 1e-9
                    assert found["rewardActionId"] not in (asked.get("excludedActions") or [])
                if reply.status_code != 201:
                    assert {"code", "message"} <= reply.json()["error"].keys()
            given_ = msgspec.json.encode({"value": value})
            sent = client.post("/offers/personalizer/v1.0/events/e/reward", content=given_)
            assert sent.status_code in (204, 400), sent.text

        check()
        assert min(seen["rank", 201], seen["rank", 400], seen["multislot/rank", 201]) >= 10, seen
