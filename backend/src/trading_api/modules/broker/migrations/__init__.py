"""Revisions of the broker's own tables."""
