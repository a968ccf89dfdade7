"""Webhooks: endpoints and their messages (`config`), and delivery with retries (`dispatcher`)."""
