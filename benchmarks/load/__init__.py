"""The service and the simulator under load."""
