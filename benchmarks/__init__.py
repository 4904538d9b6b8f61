"""Benchmarks: `python -m benchmarks.NAME`; the last line is one JSON object with `ratio`."""
