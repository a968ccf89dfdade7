"""Webhooks: endpoints, messages, delivery with retries."""
