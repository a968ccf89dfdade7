"""The catalogue of an app: stages, nudges, features, rewards and limits as types, with their decoding and checks."""
