"""Files appear whole or not at all."""

import errno
import subprocess
import sys

import numpy as np
import pytest

from emlib.errors import UserError
from emlib.volumes.atomic import atomic_path
from emlib.volumes.npy import write_npy


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


SMALL_DISK = """
import resource, signal, sys
import numpy as np
from pathlib import Path
from emlib.errors import UserError
from emlib.volumes.npy import write_npy
array = np.arange(7040, dtype=np.uint16)
write_npy(Path("old.npy"), array)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (13500, 13500))
try:
    write_npy(Path("old.npy"), array[::-1])
except UserError as error:
    sys.exit(str(error))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="limits the size of files as POSIX systems do")
def test_a_small_array_is_not_cut_short_in_silence(tmp_path):
    """`numpy.save` loses the end of an array that nearly fits, and says nothing."""
    done = subprocess.run([sys.executable, "-c", SMALL_DISK], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1 and "cannot write old.npy: File too large" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["old.npy"]
    assert np.array_equal(np.load(tmp_path / "old.npy"), np.arange(7040))


@pytest.mark.parametrize("array", [np.zeros((0, 3), np.uint8), np.asfortranarray(np.arange(6.0).reshape(2, 3))])
def test_arrays_of_any_order_come_back(tmp_path, array):
    write_npy(tmp_path / "a.npy", array)
    assert np.array_equal(np.load(tmp_path / "a.npy"), array) and np.load(tmp_path / "a.npy").dtype == array.dtype
