"""Evidence for inference: whether estimates and intervals keep their promises, and how fast they are computed."""
