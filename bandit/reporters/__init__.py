"""Reporters: what the keys that report outcomes are watched for."""
