"""Registry commands: publish a version, promote it, roll back, shadow, and keep a service and MLflow in step."""
