"""Run the parts named on the command line, or all."""

import importlib
import sys

PARTS = (
    "attention",
    "products",
    "scoring",
    "generation",
    "steps",
    "gpus",
    "smollm2",
    "tokenization",
    "statistics",
)


def main() -> None:
    """Run parts, each in its turn; one that fails does not keep the others from running."""
    failed = []
    for name in sys.argv[1:] or PARTS:
        part, _, options = name.partition(":")
        if part not in PARTS:
            raise SystemExit(f"part {part!r} is not one of {', '.join(PARTS)}")
        print(f"## {name}", flush=True)
        try:
            importlib.import_module(f"asv_bench.cuda.{part}").main(
                *filter(None, options.split(","))
            )
        except Exception as error:
            import traceback

            traceback.print_exc()
            failed.append(f"{name}: {error}")
    if failed:
        raise SystemExit("\n".join(failed))


if __name__ == "__main__":
    main()
