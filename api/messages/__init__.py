"""Requests and replies of the native protocol, as msgspec types: what the OpenAPI document is made from."""
