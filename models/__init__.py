"""Files in, arrays out: model files, tokenizer files, and the decoder as data."""
