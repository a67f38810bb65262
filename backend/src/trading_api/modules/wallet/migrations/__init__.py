"""Revisions of the wallet's own tables."""
