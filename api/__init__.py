"""HTTP service of one app: routes decode a request, call the engine, write to the ledger, and encode the reply.
`api.app.create_app` builds it; the core in `bandit/` knows nothing of it.
"""

JOURNEY_BANDIT = True
"""Tells this package from others of its name: see `journey_bandit.own_packages`."""
