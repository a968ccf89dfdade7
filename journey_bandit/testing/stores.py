"""The contract of a store as tests: what `api.stores.protocol.Store` promises, part by part.

In a test file of yours, where the fixture gives a new and empty store to each test:

    from journey_bandit.testing.stores import StoreContract

    class TestMine(StoreContract):
        @pytest.fixture
        def store(self, tmp_path):
            store = MyStore(tmp_path / "ledger")
            yield store
            store.close()
"""

from collections.abc import Callable

import pytest

from api.stores.protocol import Store
from bandit.catalogue.loading import parse
from bandit.catalogue.model import Catalogue
from journey_bandit.testing.store_builders import CATALOGUE, ContractLedger, Decide, Report, decisions_of, reported
from journey_bandit.testing.store_derived import StoreDerivedContract
from journey_bandit.testing.store_records import StoreRecordsContract
from journey_bandit.testing.store_settlements import StoreSettlementsContract


class StoreContract(StoreRecordsContract, StoreSettlementsContract, StoreDerivedContract):
    """Every claim, on the store of the fixture `store`. All values come from one catalogue of four stages."""

    @pytest.fixture
    def catalogue(self) -> Catalogue:
        """Four stages: binary and continuous rewards, settled by the window or by the reward."""
        return parse(CATALOGUE)

    @pytest.fixture
    def decide(self, catalogue: Catalogue) -> Decide:
        """decide(n, stage, at=, user=, salt=, **context): the engine's decision number n."""
        return decisions_of(catalogue)

    @pytest.fixture
    def outcome(self) -> Report:
        """outcome(n, kind, value, at=, name=): what is reported about decision number n."""
        return reported

    @pytest.fixture
    def claimed(self, catalogue: Catalogue) -> Callable[..., ContractLedger]:
        """claimed(store, catalogue=): a store that knows the declarations."""
        return lambda store, other=None: ContractLedger(store, other or catalogue)

    @pytest.fixture
    def ledger(self, store: Store, claimed: Callable[..., ContractLedger]) -> ContractLedger:
        """The store with the declarations of the catalogue."""
        return claimed(store)
