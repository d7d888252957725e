"""Kernels of a decoder's forward pass: from token ids to log-probabilities and samples."""
