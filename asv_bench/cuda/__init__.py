"""Speed on NVIDIA GPUs: ``python -m asv_bench.cuda [part ...]``.

Each part checks results against a reference before it times, measures its limit (copy bandwidth,
rate of a large matrix product) in the same run, and prints one table. Peers run in the same
process.
"""
