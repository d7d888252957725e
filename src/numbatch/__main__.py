"""``python -m numbatch``: the command line."""

from numbatch.batching.commands.cli import main

if __name__ == "__main__":
    main(prog_name="numbatch")
