"""Which pauses are in force, of actions in the order of the ledger."""

from bandit.operations.pauses import in_force, reason, refused
from bandit.records import ALL_NUDGES, OperatorAction, OperatorVerb


def action(seq: int, verb: OperatorVerb, nudge: str = "tip", stage: str = "cart") -> OperatorAction:
    return OperatorAction(seq=seq, at=seq, who="ana", stage=stage, nudge=nudge, verb=verb, reason=f"why {seq}")


def test_the_newest_action_about_a_nudge_counts() -> None:
    done = [action(1, "pause"), action(2, "resume"), action(3, "pause", "ten"), action(4, "pause")]
    assert {place: one.seq for place, one in in_force(done).items()} == {("cart", "ten"): 3, ("cart", "tip"): 4}
    assert in_force(done[:2]) == {}


def test_a_resumed_stage_keeps_what_was_paused_one_by_one() -> None:
    done = [action(1, "pause", "tip"), action(2, "pause", ALL_NUDGES)]
    assert refused(in_force(done), "cart", ["tip", "ten"]) == {
        "tip": "paused by ana: why 1",
        "ten": "paused by ana: why 2",
    }
    done.append(action(3, "resume", ALL_NUDGES))
    assert refused(in_force(done), "cart", ["tip", "ten"]) == {"tip": "paused by ana: why 1"}


def test_other_stages_and_names_that_are_gone_are_not_concerned() -> None:
    force = in_force([action(1, "pause", "gone"), action(2, "retire", "tip", "look")])
    assert refused(force, "cart", ["tip"]) == {}
    assert reason(force["look", "tip"]) == "retired by ana: why 2"
