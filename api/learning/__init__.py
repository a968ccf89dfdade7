"""The background worker: groups writes, settles what matured, publishes what was learned."""
