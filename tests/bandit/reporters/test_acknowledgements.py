"""Which keys' rewards a settlement holds, by its number, the alarms before it and what was found out about them."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from bandit.records import AlarmAcknowledgement
from bandit.reporters.acknowledgements import about, held, unacknowledged
from bandit.reporters.reward_watch import RewardAlarm


def alarm(through: int, reporter: str = "a") -> RewardAlarm:
    return RewardAlarm(reporter=reporter, arm="tip", through=through, at=0, decisions=9, reward=9.0, allowed=0.1)


def found(through: int, verdict: Any, reporter: str = "a") -> AlarmAcknowledgement:
    return AlarmAcknowledgement(
        seq=through, at=0, who="ana", stage="s", reporter=reporter, verdict=verdict, reason="", through=through
    )


def test_a_key_is_held_from_the_settlement_after_its_alarm_until_after_it_is_found_honest() -> None:
    alarms, known = [alarm(5)], [found(9, "honest")]
    assert [number for number in range(1, 13) if held(alarms, known, number)] == [6, 7, 8, 9]
    assert held(alarms, [found(9, "forged")], 99) == {"a"}
    assert held([*alarms, alarm(6, "b")], known, 99) == {"b"}


def test_the_last_word_counts_and_a_further_alarm_holds_again() -> None:
    alarms = [alarm(5), alarm(20)]
    known = [found(9, "forged"), found(12, "honest"), found(25, "honest")]
    assert [number for number in range(1, 30) if held(alarms, known, number)] == [*range(6, 13), *range(21, 26)]
    assert unacknowledged(alarms, known[:2]) == (alarms[1],)
    assert about(alarms[0], known[:2]) == known[1]
    assert about(alarms[1], known) == known[2]


@given(
    st.lists(st.integers(1, 30), max_size=4),
    st.lists(st.tuples(st.integers(1, 30), st.sampled_from(["honest", "forged"])), max_size=4),
    st.integers(1, 31),
)
def test_what_comes_later_says_nothing_of_an_earlier_settlement(
    raised: list[int], said: list[tuple[int, Any]], number: int
) -> None:
    alarms, known = [alarm(n) for n in sorted(raised)], [found(n, word) for n, word in sorted(said)]
    then = [one for one in alarms if one.through < number], [one for one in known if one.through < number]
    assert held(alarms, known, number) == held(*then, number) == held(*then, 99)
