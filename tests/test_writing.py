"""What is written is there as a whole or not at all."""

import errno
import os
import stat
import tempfile
from pathlib import Path

import pytest

from prismts.writing import recover, whole, whole_folder, write_whole


def hidden(folder):
    return [one.name for one in folder.iterdir() if one.name.startswith(".")]


def test_a_file_is_written_with_the_folders_above_it(tmp_path):
    write_whole(tmp_path / "a" / "b" / "one.txt", "größer\n")
    assert (tmp_path / "a" / "b" / "one.txt").read_bytes() == "größer\n".encode()
    assert not hidden(tmp_path / "a" / "b")


def test_until_the_block_ends_the_old_file_stands(tmp_path):
    file = tmp_path / "one.csv.gz"
    write_whole(file, b"old")
    with whole(file) as partial:
        assert partial.name == "one.csv.gz"  # a library that goes by the ending sees the right one
        partial.write_bytes(b"new")
        assert file.read_bytes() == b"old"
    assert file.read_bytes() == b"new"


def test_a_block_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    file = tmp_path / "one.txt"
    write_whole(file, "old")
    with pytest.raises(OSError, match="no space left"), whole(file) as partial:
        partial.write_text("ne")
        raise OSError("no space left")
    assert file.read_text() == "old"
    assert not hidden(tmp_path)


def test_a_place_that_cannot_be_written_is_named_as_it_was_given(tmp_path, monkeypatch):
    def refuses(prefix, suffix, dir):
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", f"{dir}/{prefix}abc{suffix}")

    monkeypatch.setattr(tempfile, "mkdtemp", refuses)
    with pytest.raises(FileNotFoundError) as told:
        write_whole(tmp_path / "page.html", "text")
    assert told.value.filename == str(tmp_path / "page.html")


def test_what_is_half_written_is_found_by_no_pattern_of_its_folder(tmp_path):
    with whole(tmp_path / "one.json") as partial:
        partial.write_text("{")
        assert not list(tmp_path.glob("*.json"))


@pytest.mark.skipif(os.name != "posix", reason="rights of POSIX")
def test_a_file_has_the_rights_of_a_new_file_whoever_wrote_it(tmp_path):
    before = os.umask(0o027)
    try:
        with whole(tmp_path / "one") as partial:
            partial.touch(mode=0o600)
        with whole_folder(tmp_path / "two") as partial:
            (partial / "three").touch(mode=0o600)
    finally:
        os.umask(before)
    rights = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("one", "two", "two/three")]
    assert rights == [0o640, 0o750, 0o640]


def test_a_folder_is_replaced_with_all_that_was_in_it(tmp_path):
    for name in ("old", "new"):
        with whole_folder(tmp_path / "model") as partial:
            (partial / name).write_text(name)
    assert [one.name for one in (tmp_path / "model").iterdir()] == ["new"]
    assert not hidden(tmp_path)


def test_a_folder_that_fails_leaves_the_old_one(tmp_path):
    with whole_folder(tmp_path / "model") as partial:
        (partial / "old").touch()
    with pytest.raises(OSError, match="no space left"), whole_folder(tmp_path / "model") as partial:
        raise OSError("no space left")
    assert [one.name for one in (tmp_path / "model").iterdir()] == ["old"]
    assert not hidden(tmp_path)


def test_a_folder_whose_writer_was_killed_between_two_renames_comes_back(tmp_path):
    with whole_folder(tmp_path / "model") as partial:
        (partial / "old").touch()
    (tmp_path / "model").rename(tmp_path / ".model.old")
    recover(tmp_path / "model")
    assert (tmp_path / "model" / "old").exists()


def test_the_working_folder_can_be_named_by_a_point(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with whole_folder(".") as partial:
        (partial / "one").touch()
    assert (tmp_path / "here" / "one").exists()


def test_a_reader_that_brings_the_old_folder_back_between_two_renames_does_not_stop_the_write(tmp_path, monkeypatch):
    with whole_folder(tmp_path / "model") as partial:
        (partial / "old").touch()
    rename, seen = Path.rename, []

    def slow(path, target):
        if target.name == ".model.old":
            rename(path, target)
            if not seen:
                recover(tmp_path / "model")
            seen.append(path)
            return target
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", slow)
    with whole_folder(tmp_path / "model") as partial:
        (partial / "new").touch()
    assert len(seen) == 2 and [file.name for file in (tmp_path / "model").iterdir()] == ["new"]
    assert not hidden(tmp_path)
