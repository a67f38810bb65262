"""HTTP routes by version."""
