"""The writer of results: whole lines, clear refusals, nothing lost."""

import errno
import io
import os

import pytest

from numbatch.batching.commands.line_writer import LineWriter, open_output
from numbatch.errors import InputError, OutputError

SOURCE = io.BytesIO()


class Disk(io.BytesIO):
    """Takes a few bytes at a time, and no more than fit."""

    def __init__(self, room, error=None, at_once=3):
        super().__init__()
        self.room = room
        self.error = error or OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.at_once = at_once

    def write(self, data):
        taken = bytes(data[: min(self.room, self.at_once)])
        if not taken:
            raise self.error
        self.room -= len(taken)
        return super().write(taken)


def test_each_line_is_on_disk_when_it_is_written(tmp_path):
    path = tmp_path / "out"
    with open_output(str(path), overwrite=False, source=SOURCE) as writer:
        writer.begin()
        writer.write("é")
        assert path.read_bytes() == "é\n".encode()
        writer.write("")
        assert path.read_bytes() == "é\n\n".encode()
        assert writer.lines == 2
        assert writer.kept() == f"2 results are whole in {path}"


def test_a_write_that_takes_a_part_is_gone_on_with():
    disk = Disk(100)
    LineWriter(disk, "disk").write("abcdefghij")
    assert disk.getvalue() == b"abcdefghij\n"


def test_a_name_that_is_no_unicode_is_written_nevertheless():
    stream = io.BytesIO()
    LineWriter(stream, "test").write("a\udcff.txt")
    assert stream.getvalue() == b"a?.txt\n"


@pytest.mark.parametrize(
    ("error", "raised"), [(None, OutputError), (KeyboardInterrupt(), KeyboardInterrupt)]
)
def test_a_line_that_is_cut_short_is_taken_back(error, raised):
    disk = Disk(10, error)
    writer = LineWriter(disk, "disk", regular=True)
    writer.write("abcd")
    with pytest.raises(raised) as found:
        writer.write("efghijkl")
    assert disk.getvalue() == b"abcd\n"
    assert writer.lines == 1
    if raised is OutputError:
        assert "disk: No space left on device; 1 result is whole" in str(found.value)


def test_an_output_with_content_is_replaced_only_if_asked_and_only_when_the_run_begins(tmp_path):
    path = tmp_path / "out"
    path.write_text("old results\n")
    with pytest.raises(InputError, match=r"holds 12 bytes.*--overwrite"):
        open_output(str(path), overwrite=False, source=SOURCE)
    assert path.read_text() == "old results\n"
    with open_output(str(path), overwrite=True, source=SOURCE) as writer:
        assert path.read_text() == "old results\n"
        writer.begin()
        writer.write("new")
    assert path.read_text() == "new\n"


def test_an_empty_output_is_taken(tmp_path):
    path = tmp_path / "out"
    path.touch()
    with open_output(str(path), overwrite=False, source=SOURCE) as writer:
        writer.write("new")
    assert path.read_text() == "new\n"


def test_an_output_that_is_the_input_is_refused(tmp_path):
    path, link = tmp_path / "in", tmp_path / "link"
    path.write_text("requests\n")
    link.symlink_to(path)
    with path.open("rb") as source:
        for name in (path, link):
            with pytest.raises(InputError, match="input and output both"):
                open_output(str(name), overwrite=True, source=source)
    assert path.read_text() == "requests\n"


def test_an_output_that_cannot_be_opened_is_refused(tmp_path):
    missing = tmp_path / "nowhere" / "out"
    with pytest.raises(InputError, match=f"there is no folder {missing.parent}"):
        open_output(str(missing), overwrite=False, source=SOURCE)
    with pytest.raises(InputError, match="Is a directory"):
        open_output(str(tmp_path), overwrite=False, source=SOURCE)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="the system has no /dev/full")
def test_a_full_device_is_told():
    with open_output("/dev/full", overwrite=False, source=SOURCE) as writer:
        writer.begin()
        with pytest.raises(OutputError, match="No space left on device; 0 results are whole"):
            writer.write("a")
