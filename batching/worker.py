"""A process that serves requests for a pool: ``python -m numbatch.batching.worker FD``.

It speaks with the pool over a connection whose descriptor it is given. The first message says what
to load and where to run it; then come requests and cancellations, and results go back under their
numbers. It ends when the other side is gone.

A thread of its own takes messages in, also while a step runs or a result is being sent: were both
sides to wait for the other to read, neither would go on.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Any

from numbatch.batching.results import FailedResult, Result
from numbatch.batching.sequence import Sequence
from numbatch.errors import InputError, NumbatchError

__all__ = ["main", "serve"]


def serve(connection: Connection) -> None:
    """Load what the first message names, and serve until the other side is gone."""
    from numbatch.batching.backend import make_engine

    load, device, options = connection.recv()
    try:
        engine = make_engine(load(), device, **options)
    except NumbatchError as error:
        connection.send(("failed", str(error)))
        return
    connection.send(("ready", engine.context))
    messages: SimpleQueue[Any] = SimpleQueue()
    threading.Thread(target=_receive, args=(connection, messages), daemon=True).start()
    known: dict[int, Sequence] = {}
    while True:
        is_idle = not engine.has_work
        while is_idle or not messages.empty():
            _take(engine, connection, messages.get(), known)
            is_idle = False
        engine.step()


def _receive(connection: Connection, messages: SimpleQueue[Any]) -> None:
    """Take in messages until the other side is gone, then put None."""
    with contextlib.suppress(EOFError, OSError):
        while True:
            messages.put(connection.recv())
    messages.put(None)


def _take(engine: Any, connection: Connection, message: Any, known: dict[int, Sequence]) -> None:
    """Do what one message asks."""
    if message is None:
        raise EOFError
    kind, number, request = message
    if kind == "cancel":
        if number in known:
            engine.cancel(known[number])
        return

    def deliver(_: Sequence, result: Result) -> None:
        known.pop(number, None)
        connection.send(("result", number, result))

    try:
        sequence = engine.submit(request, deliver)
    except InputError as error:
        connection.send(("result", number, FailedResult(request.id, str(error))))
        return
    if sequence is not None:
        known[number] = sequence


def main() -> None:
    """Serve over the descriptor named on the command line."""
    # Where the pool is gone, so is whoever wanted results.
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        serve(Connection(int(sys.argv[1])))


if __name__ == "__main__":
    main()
