"""``python -m asv_bench.peers TOPIC``: print Numbatch and its peers side by side."""

import sys

from asv_bench.peers import attention, tokenization

TOPICS = {"attention": attention.main, "tokenization": tokenization.main}

if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in TOPICS:
        sys.exit(f"usage: python -m asv_bench.peers {{{','.join(TOPICS)}}} [options]")
    TOPICS[sys.argv[1]](sys.argv[2:])
