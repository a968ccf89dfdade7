"""Claims about the parts of a store that hold what is derived: statistics, declarations, webhooks, releases."""

from typing import Any

import msgspec

from api.stores.learning_state import (
    DeclarationEra,
    Declarations,
    ServedStage,
    StatisticsKey,
    StatisticsUpdate,
    WarmStart,
)
from api.stores.protocol import Store
from api.stores.webhook_queue import WebhookCursor, WebhookDelivery
from bandit.learning.drift import DriftAlarm, DriftState
from bandit.learning.nudge_price import NudgeSums
from bandit.records import Release
from journey_bandit.testing.store_builders import START
from journey_bandit.testing.store_settlements import SIGNUP, some_belief


class StoreDerivedContract:
    """Contract of what is derived or kept beside the log: statistics of every schema, warm starts, declarations, the
    webhook queue and the release log come back as they were written.
    """

    def test_the_state_of_drift_comes_back_and_names_the_epochs(self, store: Store) -> None:
        first, second = some_belief(1, 3), some_belief(1, 3, seed=2)
        alarm = DriftAlarm(arm="none", direction="up", through=7, at=START)
        state = DriftState({"none": 1.0 / 3.0}, {"none": 5e-324}, (alarm,))
        epochs = {0: first, 1: second}
        store.replace_statistics(StatisticsUpdate(SIGNUP, ("none",), epochs, state, {"none": [0, 3, *[0] * 22]}))
        found = store.statistics(SIGNUP, ("none",), 3)
        assert (found.drift_state, [e.digest() for e in found.epochs]) == (state, [first.digest(), second.digest()])
        assert found.delays is not None
        assert list(found.delays["none"]) == [0, 3, *[0] * 22]
        store.replace_statistics(StatisticsUpdate(SIGNUP, ("none",), {}, DriftState({}, {}, (alarm,))))
        again = store.statistics(SIGNUP, ("none",), 3)
        assert (again.drift_state, again.delays) == (DriftState({}, {}, (alarm,)), found.delays)

    def test_delays_that_were_never_counted_are_not_zero_delays(self, store: Store) -> None:
        assert store.statistics(SIGNUP, ("none",), 3).delays is None
        store.replace_statistics(StatisticsUpdate(SIGNUP, ("none",), {}, None, {}))
        assert store.statistics(SIGNUP, ("none",), 3).delays == {}

    def test_each_schema_has_statistics_of_its_own(self, store: Store) -> None:
        later, belief = StatisticsKey("signup", 2), some_belief(1, 3)
        store.replace_statistics(StatisticsUpdate(later, ("none",), {0: belief}))
        assert not store.statistics(SIGNUP, ("none",), 3).epochs[0].n.any()
        assert store.statistics(later, ("none",), 3).epochs[0].digest() == belief.digest()

    def test_sums_of_recent_nudges_come_back_to_the_bit(self, store: Store) -> None:
        assert store.statistics(SIGNUP, (), 0).nudges == NudgeSums()
        sums = NudgeSums(
            *(7, 3, 2, 1, 1.0 / 3.0, 5e-324, -(2.0**-24), 0.1 + 0.2, 1e15 + 0.125, 2.5, 0.0, 0.75, 11),
            days={-3: 1, 20_000: 6},
            opt_out_days={20_000: 1},
        )
        store.replace_statistics(StatisticsUpdate(SIGNUP, (), {}, nudges=sums))
        store.replace_statistics(StatisticsUpdate(SIGNUP, (), {}, DriftState()))  # leaves them as they are
        assert store.statistics(SIGNUP, (), 0).nudges == sums
        fewer = sums._replace(days={5: 1}, opt_out_days={})
        store.replace_statistics(StatisticsUpdate(SIGNUP, (), {}, nudges=fewer))
        assert store.statistics(SIGNUP, (), 0).nudges == fewer
        assert store.statistics(StatisticsKey("signup", 2), (), 0).nudges == NudgeSums()

    def test_a_warm_start_comes_back_with_its_sums(self, store: Store) -> None:
        assert store.warm_start(SIGNUP, ("none",), 3) is None
        warm, belief = WarmStart(weight=1.0 / 3.0, rows=12, digest="abc", since=4), some_belief(1, 3)
        store.put_warm_start(SIGNUP, warm, ("none",), belief)
        found = store.warm_start(SIGNUP, ("none",), 3)
        assert found is not None
        assert (found[0], found[1].digest()) == (warm, belief.digest())
        assert store.warm_start(StatisticsKey("signup", 2), ("none",), 3) is None

    def test_declarations_come_back_in_order_and_the_last_of_one_decision_counts(self, store: Store) -> None:
        assert store.declarations() == Declarations({}, [], [])
        one, two = ServedStage("d1", "l1", 1), ServedStage("d2", "l1", 2)
        store.declare({"signup": one, "gone": one}, {}, DeclarationEra(1, {"signup": "d1", "gone": "d1"}), (1, 2))
        store.declare({"signup": one}, {}, DeclarationEra(5, {"signup": "d1"}), None)
        store.declare({"signup": two}, {StatisticsKey("signup", 2): 9}, DeclarationEra(5, {"signup": "d2"}), (5, 3))
        eras = [DeclarationEra(1, {"signup": "d1", "gone": "d1"}), DeclarationEra(5, {"signup": "d2"})]
        assert store.declarations() == Declarations({"signup": two, "gone": one}, eras, [(1, 2), (5, 3)])
        assert (store.first_settlement(SIGNUP), store.first_settlement(StatisticsKey("signup", 2))) == (0, 9)

    def test_a_cursor_moves_with_the_messages_that_it_passes(self, store: Store) -> None:
        assert store.webhook_cursor("crm") is None
        cursor = WebhookCursor(decision=3, settlement=2, alarms={"signup": 1}, era=5, release=4)
        first = WebhookDelivery("crm", "decision:1", b"{}", 0, START, "", dead=False, at=START)
        store.update_webhook_queue({"crm": cursor}, [first], [])
        assert (store.webhook_cursor("crm"), store.webhook_deliveries(dead=False)) == (cursor, [first])
        later = WebhookCursor(9, 2, {"signup": 2, "basket": 0}, 5, 4, {"basket": 3}, operator_action=6)
        store.update_webhook_queue({"crm": later}, [first._replace(dead=True)], [])
        assert (store.webhook_cursor("crm"), store.webhook_deliveries(dead=False)) == (later, [])
        assert store.webhook_deliveries("crm", dead=True) == [first._replace(dead=True)]
        store.update_webhook_queue({}, [], [("crm", "decision:1"), ("crm", "nothing")])
        assert store.webhook_deliveries(dead=True) == []

    def test_releases_are_numbered_and_come_back_with_their_bytes(self, store: Store) -> None:
        told: dict[str, Any] = {"model": "m", "sha256": "a", "belief_sha256": "b", "approved_by": "ana", "reason": "r"}
        releases = [
            Release(stage=stage, version=version, approved_at=START, policy=b"p", posterior=b"\x00\xff", **told)
            for stage, version in (("signup", "1"), ("basket", "1"), ("signup", ""))
        ]
        releases.append(msgspec.structs.replace(releases[0], version="2", judge=True, decisions=4000))
        kept = [store.publish(release) for release in releases]
        assert [release.seq for release in kept] == [1, 2, 3, 4]
        assert store.releases() == kept
        assert [release.judge for release in store.releases()] == [False, False, False, True]
        assert store.releases("signup") == [kept[0], kept[2], kept[3]]
