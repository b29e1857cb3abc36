"""Files appear whole or not at all."""

import errno

import pytest

from emlib.errors import UserError
from emlib.volumes.atomic import atomic_path


def test_a_failed_write_leaves_the_old_file_and_no_rubbish(tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(RuntimeError), atomic_path(target) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]
    assert target.read_text() == "old"


def test_a_folder_replaces_a_full_folder(tmp_path):
    target = tmp_path / "deep" / "a.zarr"
    for content in ("one", "two"):
        with atomic_path(target) as temporary:
            assert temporary.suffix == ".zarr"
            temporary.mkdir()
            (temporary / content).touch()
    assert [p.name for p in target.iterdir()] == ["two"]
    assert [p.name for p in target.parent.iterdir()] == ["a.zarr"]


def test_a_full_disk_is_told_in_one_line(tmp_path):
    with pytest.raises(UserError, match=r"cannot write .*a\.npy: No space left on device; free space"):
        with atomic_path(tmp_path / "a.npy") as temporary:
            temporary.write_text("half")
            raise OSError(errno.ENOSPC, "No space left on device")
    assert not list(tmp_path.iterdir())


def test_a_file_where_a_folder_should_be(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot write"):
        with atomic_path(tmp_path / "file" / "a.txt") as temporary:
            temporary.touch()
