"""Paths of others' protocols: prefixes, versions, and ids in any encoding, made one form for the router."""

import pytest

from api.http.protocol_paths import canonical

PATHS = [
    ("/ofrep/v1/evaluate/flags", "/ofrep/v1/evaluate/flags"),
    ("/ofrep/v1/evaluate/flags/cart", "/ofrep/v1/evaluate/flags/cart"),
    ("//ofrep/v1/evaluate/flags/cart/", "/ofrep/v1/evaluate/flags/cart"),
    ("/a/b/ofrep/v1/evaluate/flags/x%2Fy%3Az", "/ofrep/v1/evaluate/flags/x%2Fy%3Az"),
    ("/ofrep/v1/evaluate/flags/x/y:z", "/ofrep/v1/evaluate/flags/x%2Fy%3Az"),
    ("/ofrep/v1/evaluate/flags/ofrep", "/ofrep/v1/evaluate/flags/ofrep"),
    ("/ofrep/v1/evaluate/flags/caf%C3%A9?x=1", "/ofrep/v1/evaluate/flags/caf%C3%A9"),
    ("/personalizer/v1.0/rank", "/personalizer/-/v1.0/rank"),
    ("/personalizer/rank?api-version=2022-09-01-preview", "/personalizer/-/-/rank"),
    ("/loops/offers/personalizer/v1.1-preview.3/rank", "/personalizer/offers/v1.1-preview.3/rank"),
    ("/offers/personalizer/v1.0/events/a%2Fb%20c%3Fd/reward", "/personalizer/offers/v1.0/events/a%2Fb%20c%3Fd/reward"),
    ("/offers/personalizer/v1.0/events/a/b/reward", "/personalizer/offers/v1.0/events/a%2Fb/reward"),
    ("/offers/personalizer/v1.0/events/reward/reward", "/personalizer/offers/v1.0/events/reward/reward"),
    ("/offers/personalizer/v1.0/events/a%252Fb/activate", "/personalizer/offers/v1.0/events/a%252Fb/activate"),
    ("/o/personalizer/multislot/events/a/b/reward", "/personalizer/o/-/multislot/events/a%2Fb/reward"),
    ("/personalizer/v1.0/events/x", "/personalizer/-/v1.0/events/x"),
    ("/personalizer", "/personalizer/-/-"),
    ("/v1/users/personalizer/journey", "/v1/users/personalizer/journey"),
    ("/v1/users/ofrep/journey", "/v1/users/ofrep/journey"),
    ("/docs/personalizer", "/docs/personalizer"),
    ("/my-personalizer-page", "/my-personalizer-page"),
]


@pytest.mark.parametrize(("sent", "routed"), PATHS, ids=[sent for sent, _ in PATHS])
def test_a_path_is_routed_by_what_its_bytes_say(sent: str, routed: str) -> None:
    assert canonical(sent) == routed
