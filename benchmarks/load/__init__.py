"""Load benchmarks: the service over HTTP, its registry, and the simulator under load."""
