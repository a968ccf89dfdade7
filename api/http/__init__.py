"""HTTP without routes: API keys, request bodies, error responses, and the paths of foreign protocols."""
