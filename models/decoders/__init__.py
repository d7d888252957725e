"""Decoders from files: GGUF and Hugging Face folders, one description for every family."""
