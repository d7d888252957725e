"""``python -m asv_bench.peers TOPIC``: print Numbatch and its peers side by side."""

import importlib
import sys

TOPICS = ("attention", "scoring", "statistics", "tokenization")

if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in TOPICS:
        sys.exit(f"usage: python -m asv_bench.peers {{{','.join(TOPICS)}}} [options]")
    importlib.import_module(f"asv_bench.peers.{sys.argv[1]}").main(sys.argv[2:])
