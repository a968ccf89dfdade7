"""The contracts of policies and stores as tests that other packages can run: `pip install 'journey-bandit[testing]'`.

`policies.PolicyContract` for a class that a catalogue can name, `stores.StoreContract` for a ledger. Only these modules
need pytest and hypothesis.
"""

import pytest

pytest.register_assert_rewrite("journey_bandit.testing.policies", "journey_bandit.testing.store_records")
pytest.register_assert_rewrite("journey_bandit.testing.store_settlements")
