"""Benchmarks of Secateur beside its peers; run from the root of the repository."""
