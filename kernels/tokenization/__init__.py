"""Kernels that turn text into token ids and token ids into bytes."""
