"""Telemetry of a service: what it logs, the id of each request, the access log and traces."""
