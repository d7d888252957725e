"""Kernels of the forward pass on an NVIDIA GPU, in bfloat16 with float32 sums.

bfloat16 arrays are arrays of uint16: neither NumPy nor Numba has the type.
"""
