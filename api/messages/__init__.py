"""Messages of the native protocol: requests and replies as msgspec types, from which the OpenAPI document is made."""
