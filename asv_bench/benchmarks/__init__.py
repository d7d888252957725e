"""Benchmarks by topic; see CONTRIBUTING.md for the commands."""
