"""Serving requests on NVIDIA GPUs."""
