"""HTTP surfaces: the native one, UDF under it, and what other modules ask."""
