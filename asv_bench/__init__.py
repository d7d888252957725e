"""Benchmarks: airspeed velocity's in benchmarks/, and programs that print a table."""
