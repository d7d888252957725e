"""Numbatch beside other packages, in one run."""
