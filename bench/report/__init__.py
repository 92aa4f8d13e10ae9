"""Makes docs/benchmarks.md and its plots of what bench/results holds."""
