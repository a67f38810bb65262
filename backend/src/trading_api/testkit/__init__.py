"""Builders, clocks, servers and fixtures for tests; no program imports it."""
