"""Tests of connectors: relays and sources, with real brokers."""
