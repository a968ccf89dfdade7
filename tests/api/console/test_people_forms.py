"""Export and erasure on the page of a person: who may, and that they are those of the HTTP routes."""

import pytest

from tests.api.console.conftest import Operator

PEOPLE = "/console/people"


@pytest.fixture
def known(boss: Operator) -> Operator:
    """The person who may change things, where something is known of the users u1 and u2."""
    for n in range(3):
        boss.tell(boss.ask("signup", "u1", context={"age": 20 + n}), value=1.0)
    boss.ask("signup", "u2")
    return boss


def test_the_export_is_that_of_the_route_as_a_file(known: Operator) -> None:
    reply = known.submit(f"{PEOPLE}/export", PEOPLE, user="u1")
    assert reply.status_code == 200
    assert reply.headers["content-disposition"] == 'attachment; filename="person.json"'
    assert reply.headers["cache-control"] == "no-store"
    told = known.of_app("GET", "/v1/users/u1/export").json()
    assert reply.json() == told
    assert len(told["decisions"]) == 3


def test_a_person_is_erased_once_the_id_is_typed_again(known: Operator) -> None:
    page = known.submit(PEOPLE, PEOPLE, user="u1").text
    assert 'name="again"' in page
    refused = known.submit(f"{PEOPLE}/erase", PEOPLE, user="u1", again="u2")
    assert refused.status_code == 400
    assert "again: is not the same id → type the id of the person once more: nothing was erased" in refused.text
    assert len(known.of_app("GET", "/v1/users/u1/export").json()["decisions"]) == 3
    done = known.submit(f"{PEOPLE}/erase", PEOPLE, user="u1", again="u1", forget="yes")
    assert done.status_code == 200
    assert "Erased: 3 decisions, 3 outcomes and 0 events of 1 id(s). What was learned from them left too." in done.text
    assert known.of_app("GET", "/v1/users/u1/export").json()["decisions"] == []
    assert len(known.of_app("GET", "/v1/users/u2/export").json()["decisions"]) == 1
    assert "Nothing was found" in known.submit(f"{PEOPLE}/erase", PEOPLE, user="u1", again="u1").text


@pytest.mark.parametrize("form", ["export", "erase"])
def test_who_may_only_read_can_do_neither(operator: Operator, form: str) -> None:
    operator.ask("signup", "u1")
    page = operator.submit(PEOPLE, PEOPLE, user="u1").text
    assert "Erase this person" not in page
    assert operator.submit(f"{PEOPLE}/{form}", PEOPLE, user="u1", again="u1").status_code == 403
    assert operator.submit(PEOPLE, PEOPLE, user="u1").text.count("/console/decisions/") == 1


@pytest.mark.parametrize("form", ["export", "erase"])
def test_a_form_of_another_page_does_nothing(known: Operator, form: str) -> None:
    sent = {"user": "u1", "again": "u1"}
    assert known.post(f"{PEOPLE}/{form}", data=sent, follow_redirects=False).status_code == 403
    csrf = known.page(PEOPLE).fields["csrf"]
    abroad = {"Sec-Fetch-Site": "cross-site"}
    reply = known.post(f"{PEOPLE}/{form}", data={"csrf": csrf, **sent}, headers=abroad, follow_redirects=False)
    assert reply.status_code == 403
    assert known.submit(f"{PEOPLE}/{form}", PEOPLE).status_code == 400
    assert len(known.of_app("GET", "/v1/users/u1/export").json()["decisions"]) == 3
