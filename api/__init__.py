"""The HTTP service: decode, call the engine, save, encode."""
