"""Commands for the registry: publish, promote, roll back, keep in step."""
