"""Benchmarks: ratios to peers that run beside us, measured in one run (`make bench`)."""
