"""Several worker processes, one a device, that look like one engine.

Requests go to the worker with the fewest tokens still to run. A worker that dies is replaced, and
what it had not finished is run again; none is lost, and none is answered twice.
"""

from __future__ import annotations

import contextlib
import dataclasses
import heapq
import itertools
import os
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable
from collections.abc import Sequence as Listed
from dataclasses import dataclass, field
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from types import SimpleNamespace
from typing import Any

from numbatch.batching.batch_sizer import BatchSizer
from numbatch.batching.engine import Engine, Sink
from numbatch.batching.request import Request
from numbatch.batching.results import FailedResult, Result
from numbatch.batching.sequence import Sequence
from numbatch.batching.step_outputs import scored
from numbatch.errors import DeviceError, InputError
from numbatch.kernels.scoring.activations import default_compute
from numbatch.kernels.threads import ThreadTeam
from numbatch.models.load import LoadedModel

__all__ = ["MOST_DEATHS", "WorkerPool"]

MOST_DEATHS = 3
"""A request during which so many workers died fails: it may be what kills them. A device whose
workers die so often before they are ready is given up."""

PATIENCE = 0.05
"""Seconds that a step waits for a result."""


@dataclass(eq=False, slots=True)
class _Worker:
    """A worker process, and what it has to do."""

    device: str
    process: subprocess.Popen[bytes]
    connection: Connection
    tasks: dict[int, _Task] = field(default_factory=dict)
    tokens: int = 0
    is_ready: bool = False
    failed_starts: int = 0


@dataclass(eq=False, slots=True)
class _Task:
    number: int
    sequence: Sequence
    tokens: int
    deaths: int = 0
    worker: _Worker | None = None


class _Queue(SimpleNamespace):
    """What others look at of an engine's scheduler."""

    running: list[Sequence]
    waiting: int


class WorkerPool(Engine):
    """An engine whose requests run in worker processes.

    Token events of a stream come with each request's result, all at once.

    Parameters
    ----------
    model : LoadedModel
        For checks and the tokenizer; its weights are not read here.
    load : function without arguments
        Loads the model in a worker; it must be importable there.
    devices : sequence of str
        One worker for each; see ``make_engine``.
    max_num_seqs : int
    lookahead : int, optional
    seed : int
    options
        Further ones of each worker's engine.

    Raises
    ------
    DeviceError
        If a worker cannot start; the message is the worker's.
    """

    def __init__(
        self,
        model: LoadedModel,
        load: Callable[[], LoadedModel],
        devices: Listed[str],
        *,
        max_num_seqs: int = 32,
        lookahead: int | None = None,
        seed: int = 0,
        **options: Any,
    ) -> None:
        if not devices:
            raise InputError("there are no devices, should be at least one")
        self.model = model
        self._load = load
        self._options = {**options, "max_num_seqs": max_num_seqs, "seed": seed}
        self.lock = threading.RLock()
        self.lookahead = lookahead or 2 * max_num_seqs * len(devices)
        self._share = 2 * max_num_seqs
        self.replaced = 0
        self.sampler: Any = SimpleNamespace(seed=seed)
        self._outputs: Any = SimpleNamespace(prepare=lambda request: None)  # its worker does
        on_gpus = all(device.startswith("cuda") for device in devices)
        self.compute = "bfloat16" if on_gpus else options.get("compute") or default_compute()
        self.forward: Any = SimpleNamespace(team=ThreadTeam(1))
        self.sizer = BatchSizer(int(options.get("max_num_batched_tokens", 512)), None)
        self.scheduler: Any = _Queue(running=[], waiting=0)
        self._numbers = itertools.count()
        self._queue: list[tuple[float, int, _Task]] = []
        self._tasks: dict[Sequence, _Task] = {}
        self.workers = [self._start(device) for device in devices]
        weakref.finalize(self, _end, self.workers)
        contexts = [self._await_ready(worker) for worker in self.workers]
        self.context = min(contexts)

    def _start(self, device: str) -> _Worker:
        ours, theirs = Pipe()
        process = subprocess.Popen(
            [sys.executable, "-m", "numbatch.batching.worker", str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        theirs.close()
        worker = _Worker(device, process, ours)
        with contextlib.suppress(OSError):  # it died: noticed where its answer is read
            ours.send((self._load, device, self._options))
        return worker

    def _await_ready(self, worker: _Worker) -> int:
        try:
            kind, value = worker.connection.recv()
        except (EOFError, ConnectionResetError) as error:
            status = worker.process.wait()
            raise DeviceError(
                f"the worker of {worker.device} ended with status {status} before it was ready"
            ) from error
        if kind == "failed":
            raise DeviceError(f"the worker of {worker.device} cannot start: {value}")
        worker.is_ready = True
        return int(value)

    def submit(self, request: Request, sink: Sink | None = None) -> Sequence | None:
        """Queue a request; see :meth:`Engine.submit`."""
        self.check(request)
        sequence = Sequence(request, self.context, sink)
        if request.params is None and request.score_from >= sequence.length:
            sequence.open()
            if sink is not None:
                sink(sequence, scored(sequence))
            return None
        with self.lock:
            if request.deadline is not None:
                sequence.expires = time.monotonic() + request.deadline
            task = _Task(next(self._numbers), sequence, sequence.capacity)
            self._tasks[sequence] = task
            self._enqueue(task)
        return sequence

    def cancel(self, sequence: Sequence, reason: str = "cancelled") -> Result | None:
        """Give a sequence up; its result tells why. None if it was done already."""
        with self.lock:
            task = self._tasks.get(sequence)
            if task is None:
                return None
            if task.worker is not None:
                _send(task.worker, ("cancel", task.number, None))
            self._forget(task)
        return self._deliver(sequence, FailedResult(sequence.request.id, reason))

    def step(self) -> list[Result]:
        """Hand out requests, wait shortly for results; return those that came."""
        with self.lock:
            self._hand_out()
        live = {worker.connection: worker for worker in self.workers}
        done: list[tuple[Sequence, Result]] = []
        for connection in wait(list(live), PATIENCE):
            worker = live[connection]  # type: ignore[index]
            with self.lock:
                done += self._read(worker)
        return [self._deliver(sequence, result) for sequence, result in done]

    def _enqueue(self, task: _Task) -> None:
        task.worker = None
        self.scheduler.waiting += 1
        heapq.heappush(self._queue, (task.sequence.priority, task.number, task))

    def _forget(self, task: _Task) -> None:
        """Take a task out, wherever it is."""
        task.sequence.is_done = True
        del self._tasks[task.sequence]
        if task.worker is None:
            self.scheduler.waiting -= 1
        else:
            self.scheduler.running.remove(task.sequence)
            if task.worker.tasks.pop(task.number, None) is not None:
                task.worker.tokens -= task.tokens

    def _hand_out(self) -> None:
        """Send queued requests to the workers that have the least to do."""
        while self._queue:
            ready = [w for w in self.workers if w.is_ready and len(w.tasks) < self._share]
            if not ready:
                return
            task = heapq.heappop(self._queue)[2]
            if task.sequence.is_done:
                continue
            worker = min(ready, key=lambda each: each.tokens)
            request = task.sequence.request
            if request.deadline is not None:
                left = max(0.0, task.sequence.expires - time.monotonic())
                request = dataclasses.replace(request, deadline=left)
            self.scheduler.waiting -= 1
            self.scheduler.running.append(task.sequence)
            task.worker = worker
            worker.tasks[task.number] = task
            worker.tokens += task.tokens
            _send(worker, ("request", task.number, request))

    def _read(self, worker: _Worker) -> list[tuple[Sequence, Result]]:
        """Read what a worker sent; replace it if it died."""
        done: list[tuple[Sequence, Result]] = []
        try:
            while worker.connection.poll():
                message = worker.connection.recv()
                if message[0] == "ready":
                    worker.is_ready = True
                elif message[0] == "failed":
                    raise DeviceError(f"a new worker of {worker.device} cannot start: {message[1]}")
                elif (task := worker.tasks.get(message[1])) is not None:
                    self._forget(task)
                    done.append((task.sequence, message[2]))
        except (EOFError, OSError):
            done += self._replace(worker)
        return done

    def _replace(self, worker: _Worker) -> list[tuple[Sequence, Result]]:
        """Start another worker, and queue again what the dead one had not finished."""
        worker.connection.close()
        status = worker.process.wait()
        failed_starts = 0 if worker.is_ready else worker.failed_starts + 1
        if failed_starts >= MOST_DEATHS:
            raise DeviceError(
                f"{MOST_DEATHS} new workers of {worker.device} ended before they were ready, the "
                f"last with status {status}"
            )
        failed: list[tuple[Sequence, Result]] = []
        for task in list(worker.tasks.values()):
            task.deaths += 1
            if task.deaths < MOST_DEATHS:
                self.scheduler.running.remove(task.sequence)
                self._enqueue(task)
                continue
            self._forget(task)
            error = f"{MOST_DEATHS} workers died while they ran it, the last with status {status}"
            failed.append((task.sequence, FailedResult(task.sequence.request.id, error)))
        self.replaced += 1
        new = self._start(worker.device)
        new.failed_starts = failed_starts
        self.workers[self.workers.index(worker)] = new
        return failed


def _send(worker: _Worker, message: tuple[str, int, Request | None]) -> None:
    with contextlib.suppress(OSError):  # it died: noticed where its results are read
        worker.connection.send(message)


def _end(workers: list[_Worker]) -> None:
    """End the workers: they go when their connection does."""
    for worker in workers:
        worker.connection.close()
    for worker in workers:
        try:
            worker.process.wait(2)
        except subprocess.TimeoutExpired:
            worker.process.kill()
            worker.process.wait()
