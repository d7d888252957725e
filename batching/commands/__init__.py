"""The command line, and the files of requests and results that it reads and writes."""
