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
from journey_bandit.testing.store_corrections import StoreCorrectionsContract
from journey_bandit.testing.store_derived import StoreDerivedContract
from journey_bandit.testing.store_erasures import StoreErasuresContract
from journey_bandit.testing.store_records import StoreRecordsContract
from journey_bandit.testing.store_rest import StoreRestContract
from journey_bandit.testing.store_settlements import StoreSettlementsContract
from journey_bandit.testing.store_tallies import StoreTalliesContract


class StoreContract(
    StoreRecordsContract,
    StoreSettlementsContract,
    StoreCorrectionsContract,
    StoreDerivedContract,
    StoreErasuresContract,
    StoreRestContract,
    StoreTalliesContract,
):
    """Every claim, on the store of the fixture `store`. All values come from one catalogue of four stages."""

    @pytest.fixture
    def catalogue(self) -> Catalogue:
        """Catalogue of four stages with binary and continuous rewards, settled when the window ends or when the reward
        comes; one of them requires activation.
        """
        return parse(CATALOGUE)

    @pytest.fixture
    def decide(self, catalogue: Catalogue) -> Decide:
        """Factory decide(n, stage, at=, user=, salt=, **context): decision number n, made by the real engine before
        anything was learned. `at` in µs since 1970; features that are not given take their defaults.
        """
        return decisions_of(catalogue)

    @pytest.fixture
    def outcome(self) -> Report:
        """Factory outcome(n, kind, value, at=, name=): an outcome reported about decision number n. `at` in µs since
        1970; `name` is its id, by default its kind.
        """
        return reported

    @pytest.fixture
    def claimed(self, catalogue: Catalogue) -> Callable[..., ContractLedger]:
        """Factory claimed(store, other=None): a ledger over any store, also a second one that a test opens, with the
        declarations of the catalogue `other` registered, by default the contract's own.
        """
        return lambda store, other=None: ContractLedger(store, other or catalogue)

    @pytest.fixture
    def ledger(self, store: Store, claimed: Callable[..., ContractLedger]) -> ContractLedger:
        """Ledger over the store of the fixture `store`, with the declarations of the catalogue registered: what most
        tests call instead of the store.
        """
        return claimed(store)
