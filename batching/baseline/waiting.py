"""How long a process waited for a processor that had other work."""

from __future__ import annotations

from pathlib import Path

__all__ = ["seconds_waited"]

TASKS = Path("/proc/self/task")


def seconds_waited(tasks: Path = TASKS) -> float:
    """Return the seconds in which threads of this process were ready to run and did not, added up.

    Those of threads that live. 0 where the system does not tell (all but Linux).

    Parameters
    ----------
    tasks : Path
        A folder with one for each thread, whose ``schedstat`` has the nanoseconds as its second
        number.
    """
    waited = 0
    for path in tasks.glob("*/schedstat"):
        try:
            waited += int(path.read_text().split()[1])
        except (OSError, ValueError, IndexError):  # the thread ended meanwhile, or is not counted
            continue
    return waited * 1e-9
