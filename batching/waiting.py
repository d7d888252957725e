"""How long a process waited for a processor that had other work."""

from __future__ import annotations

import os

__all__ = ["seconds_waited"]

TASKS = "/proc/self/task"


def seconds_waited(tasks: str | os.PathLike[str] = TASKS) -> float:
    """Return the seconds in which threads of this process were ready to run and did not, added up.

    Those of threads that live. 0 where the system does not tell (all but Linux).

    Parameters
    ----------
    tasks : path
        A folder with one for each thread, whose ``schedstat`` has the nanoseconds as its second
        number.
    """
    waited = 0
    # Asked around each sample of a millisecond: Path.glob would take four times as long.
    for thread in os.listdir(tasks) if os.path.isdir(tasks) else ():
        try:
            with open(f"{tasks}/{thread}/schedstat", "rb") as file:
                waited += int(file.read().split()[1])
        except (OSError, ValueError, IndexError):  # the thread ended meanwhile, or is not counted
            continue
    return waited * 1e-9
