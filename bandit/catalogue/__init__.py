"""The catalogue of an app: its stages, nudges, features, rewards and limits, as types, with decoding and checks."""
