"""Moves: a chain that shows every change, and what may be served."""

import msgspec
import pytest

from bandit.errors import RemoteError
from experiments.mlflow import approvals
from experiments.mlflow.approvals import Approval, RegistryState


def line(version: str, kind: str = "promote") -> Approval:
    return Approval(
        number=0,
        kind=kind,
        version=version,
        replaces="",
        by="ana",
        at="2026-01-01T00:00:00Z",
        why="w | x",
        gate="promote",
    )


def chain(*versions: str) -> list[Approval]:
    done: list[Approval] = []
    for version in versions:
        done.append(approvals.next_approval(done, line(version)))
    return done


def test_a_chain_is_whole_and_comes_back_from_its_table() -> None:
    done = chain("1", "2", "", "1")
    approvals.check(done, done[-1].digest())
    assert approvals.read(approvals.table(done)) == done
    assert [m.number for m in done] == [1, 2, 3, 4]


@pytest.mark.parametrize("spoil", ["changed", "taken out", "swapped", "cut"])
def test_any_change_of_a_line_shows(spoil: str) -> None:
    done = chain("1", "2", "3", "4")
    head = done[-1].digest()
    if spoil == "changed":
        done[1] = msgspec.structs.replace(done[1], why="something else")
    elif spoil == "taken out":
        del done[1]
    elif spoil == "swapped":
        done[1], done[2] = done[2], done[1]
    else:
        done = done[:2]
    with pytest.raises(RemoteError, match="audit table was changed"):
        approvals.check(done, head)


def test_a_move_that_was_cut_short_does_not_break_the_chain() -> None:
    done = chain("1", "2")
    approvals.check(done, done[0].digest())  # the registry still remembers the move before


@pytest.mark.parametrize(
    ("alias", "move", "serves", "refused"),
    [
        (None, None, False, False),
        ("1", None, False, True),
        ("1", "1", True, False),
        ("2", "1", False, True),
        (None, "1", False, True),
        (None, "", True, False),
        ("1", "", False, True),
    ],
)
def test_only_an_alias_that_agrees_with_the_last_move_is_served(
    alias: str | None, move: str | None, serves: bool, refused: bool
) -> None:
    standing = RegistryState("travel-cart", alias, None, None if move is None else line(move))
    assert (standing.serves is not None) is serves
    assert (standing.refused is not None) is refused


def test_the_description_says_what_is_live_and_how_to_go_back() -> None:
    text = approvals.model_page("travel-cart", chain("1", "2"))
    live = (
        "**Live as of 2026-01-01T00:00:00Z: version 2, since 2026-01-01T00:00:00Z, approved, said to be by ana: w | x**"
    )
    assert text.splitlines()[0] == live
    assert "`journey-bandit rollback travel cart --why" in text
    assert "w / x" in text  # a bar would break the table


def test_why_it_was_rolled_back_is_not_why_the_version_before_was_approved() -> None:
    done = chain("1", "2")
    back = {"kind": "rollback", "replaces": "2", "by": "ben", "at": "2026-02-01T00:00:00Z", "why": "refunds rose"}
    done.append(approvals.next_approval(done, msgspec.structs.replace(line("1"), **back)))
    assert approvals.live(done) == (
        "version 1, since 2026-02-01T00:00:00Z, approved at 2026-01-01T00:00:00Z, said to be by ana: w | x. "
        "Version 2 was rolled back at 2026-02-01T00:00:00Z, said to be by ben, because: refunds rose"
    )
    assert approvals.replacement_tags(done[-1])["rolled_back_because"] == "refunds rose"
    assert approvals.replacement_tags(done[1]) == {"review": "replaced"}


def test_a_table_that_was_deleted_begins_anew_with_what_the_model_remembers() -> None:
    done = chain("1", "2")
    rest = approvals.checked_chain([], done[1], done[1].digest())
    assert rest == [done[1]]
    rest.append(approvals.next_approval(rest, line("3")))
    assert approvals.checked_chain(rest, rest[-1], rest[-1].digest()) == rest
    assert (rest[-1].number, rest[-1].back, approvals.lost_lines(rest), approvals.lost_lines(done)) == (3, "", 1, 0)
    with pytest.raises(RemoteError, match="its first line is not the first"):
        approvals.checked_chain([msgspec.structs.replace(done[1], previous="")], None, None)


def test_a_move_whose_line_was_not_written_any_more_counts_and_one_that_was_not_made_does_not() -> None:
    done = chain("1", "2", "3")
    assert approvals.checked_chain(done[:2], done[2], done[1].digest()) == done
    never = approvals.checked_chain(done[:2], None, done[1].digest())
    assert never == done[:2]
    cut = RegistryState("travel-cart", "2", None, done[2])  # recorded, and the alias still names the one before
    assert approvals.cut_short(never, cut, line("3")) == done[2]
    assert approvals.cut_short(never, cut, line("4")) is None


def test_a_rollback_never_leads_to_what_was_taken_back() -> None:
    """1, then 2, then the mistake 3, taken back: from 2 it goes to 1, from there to what is learned live."""
    done: list[Approval] = []
    for kind, version, replaces in (
        ("promote", "1", ""),
        ("promote", "2", "1"),
        ("promote", "3", "2"),
        ("rollback", "2", "3"),
        ("rollback", "1", "2"),
    ):
        new = Approval(number=0, kind=kind, version=version, replaces=replaces, by="a", at="t", why="w", gate="g")
        done.append(approvals.next_approval(done, new))
    assert [m.back for m in done] == ["", "1", "2", "1", ""]


def test_the_reason_of_a_rollback_stands_beside_the_version_that_was_left() -> None:
    done = chain("1", "2")
    back = {"kind": "rollback", "replaces": "2", "by": "key ops, for ben", "why": "refunds rose"}
    done.append(approvals.next_approval(done, msgspec.structs.replace(line("1"), **back)))
    row = approvals.model_page("travel-cart", done).splitlines()[-3]
    assert (
        "| version 1 | version 2 | key ops, for ben | 2026-01-01T00:00:00Z | version 2 was rolled back: refunds" in row
    )
    assert "by key ops, for ben, because: refunds rose" in approvals.live(done)


def test_no_nudge_is_a_move_without_a_version_in_the_registry() -> None:
    done = chain("1")
    back = {"kind": "rollback", "replaces": "1", "version": "none"}
    done.append(approvals.next_approval(done, msgspec.structs.replace(line("none"), **back)))
    assert RegistryState("travel-cart", None, None, done[-1]).serves == done[-1]
    assert RegistryState("travel-cart", "1", None, done[-1]).serves is None
    assert approvals.live(done).startswith("no nudge for anybody, since 2026-01-01T00:00:00Z")
    assert done[-1].back == "", "from there a rollback leads to what is learned live, never to what was taken back"
