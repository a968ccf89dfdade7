"""One contract, every store: `journey_bandit.testing.stores`, on each store that the fixture `store` gives."""

from journey_bandit.testing.stores import StoreContract


class TestEveryStore(StoreContract):
    pass
