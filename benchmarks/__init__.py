"""Side-by-side measurements of every fast path against its peers: ``python -m benchmarks [part/slug …]``."""
