"""Arrays in, arrays out: the compiled half of Numbatch. No files, no requests."""
