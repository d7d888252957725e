"""The parts of a tokenizer, and its readers: GGUF metadata, tokenizer.json, tiktoken."""
