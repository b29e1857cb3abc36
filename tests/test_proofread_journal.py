"""What happens to the journal: killed windows, damaged files, full disks, two windows, other volumes."""

import contextlib
import json
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from proofread_run import blobs, write_run

from emlib.errors import UserError
from emlib.proofread import Edit, Journal, Session, replay
from emlib.proofread.damage import read_whole_entries
from emlib.proofread.journal import FILE

HERE = Path(__file__).resolve().parent


@pytest.fixture
def run(tmp_path):
    write_run(tmp_path / "run", candidates=False)
    return tmp_path / "run"


def some_edits(session, count):
    """Edits numbered on from the journal's last; edit k turns section 0, row k into neurite 100 + k."""
    for k in range(session.journal.last, session.journal.last + count):
        voxels = [[0, k % 20, x] for x in range(24)]
        session.apply(Edit("paint", {"neurite": 100 + k, "voxels": voxels}))


def after_edits(labels, *numbers):
    expected = labels.copy()
    for k in numbers:
        expected[0, k % 20] = 100 + k
    return expected


@contextlib.contextmanager
def raw(path):
    db = sqlite3.connect(path)
    yield db
    db.commit()
    db.close()


CHILD = """
import sys
sys.path.insert(0, sys.argv[2])
from emlib.proofread import Edit, Session
from test_proofread_journal import some_edits
session = Session.open(sys.argv[1])
append = session.journal.append
def told(*args, **kwargs):
    number = append(*args, **kwargs)
    print(number, flush=True)  # on the disk, but not yet in the labels
    return number
session.journal.append = told
some_edits(session, 100000)
"""


def test_a_killed_window_loses_nothing(run):
    """SIGKILL in the middle of writing: all that was committed is there, in a whole file, and nothing else."""
    undone = set()
    for more in (3, 17):
        child = subprocess.Popen([sys.executable, "-c", CHILD, str(run), str(HERE)], stdout=subprocess.PIPE, text=True)
        told = [int(child.stdout.readline()) for _ in range(more)]
        child.send_signal(signal.SIGKILL)
        told += [int(line) for line in child.stdout.read().splitlines()]
        assert child.wait() == -signal.SIGKILL
        with Session.open(run) as session:
            assert session.journal.last in (told[-1], told[-1] + 1)
            edits = [k for k in range(session.journal.last) if k not in undone]
            assert np.array_equal(session.labels, after_edits(blobs(), *edits))
            undone = {edits[-1], session.journal.last}  # the edit, and the entry that takes it back
            session.undo()
            assert np.array_equal(session.labels, after_edits(blobs(), *edits[:-1]))


def test_undo_lasts_across_restarts_and_is_an_entry_of_its_own(run):
    start = blobs()
    with Session.open(run) as session:
        some_edits(session, 4)
        session.undo()
    with Session.open(run) as session:
        session.undo()
        session.undo()
        session.redo()
    with Session.open(run) as session:
        assert np.array_equal(session.labels, after_edits(start, 0, 1)) and session.can_redo
        assert session.edits_in_force == 2
        session.redo()
        session.redo()
        assert np.array_equal(session.labels, after_edits(start, *range(4))) and not session.can_redo
    with Journal(run / FILE) as journal:
        kinds = [(entry.operation, entry.target) for entry in journal.entries()]
    assert kinds[4:] == [("undo", 4), ("undo", 3), ("undo", 2), ("redo", 2), ("redo", 3), ("redo", 4)]


def test_memory_of_undo_is_a_number_per_edit(run):
    with Session.open(run) as session:
        some_edits(session, 30)
        kept = session._history
        assert kept._done.itemsize == 8 and len(kept._done) == 30
        assert not hasattr(kept, "deltas") and set(vars(kept)) == {"_done", "_undone"}


def test_what_an_entry_says(run):
    with Session.open(run, user="ada") as session:
        voxels = np.argwhere(session.labels == 4)
        session.apply(Edit("split", {"neurite": 4, "seeds": [voxels[:2], voxels[[-1]].tolist()]}))
        some_edits(session, 1)
    with raw(run / FILE) as db:
        rows = db.execute("SELECT id, time, user, operation, arguments, ids, box, voxels FROM edits").fetchall()
        header = dict(db.execute("SELECT * FROM header"))
    assert [row[0] for row in rows] == [1, 2] and rows[0][2:4] == ("ada", "split")
    assert rows[0][1].endswith("+00:00")
    assert len(json.loads(rows[0][4])["seeds"]) == 2 and len(json.loads(rows[0][5])) == 2
    assert json.loads(rows[1][6]) == [0, 1, 1, 2, 0, 24] and rows[1][7] == 24
    assert "voxels" not in json.loads(rows[1][4])
    assert json.loads(header["labels"])["shape"] == [6, 20, 24]


def test_a_journal_of_another_volume(run, tmp_path):
    with Session.open(run) as session:
        some_edits(session, 1)
    write_run(tmp_path / "other", blobs(seed=5), candidates=False)
    write_run(tmp_path / "larger", blobs((7, 20, 24)), candidates=False)
    with pytest.raises(UserError, match=r"is of other labels than .*: they had SHA-256 .*… and these have"):
        Session.open(tmp_path / "other", journal=run / FILE)
    with pytest.raises(UserError, match=r"they had shape \(6, 20, 24\) and these have \(7, 20, 24\)"):
        Session.open(tmp_path / "larger", journal=run / FILE)
    with Journal(run / FILE) as journal, pytest.raises(UserError, match="other labels than those given"):
        replay(journal, blobs(seed=5))


def test_two_windows_on_one_journal(run, tmp_path):
    with Session.open(run) as session:
        with pytest.raises(UserError, match=r"is writing to .*; wait for it, end it, or choose another"):
            Session.open(run)
        with pytest.raises(UserError, match="is open in another window; close that one first"):
            Journal(run / FILE)
        shutil.copytree(run / "data", tmp_path / "second/data")
        with pytest.raises(UserError, match="is open in another window; close that one first"):
            Session.open(tmp_path / "second", journal=run / FILE)
        some_edits(session, 2)  # the first window goes on
    with Session.open(run) as session:
        assert session.journal.last == 2


def test_a_failed_opening_leaves_no_lock(run):
    with pytest.raises(UserError, match="no such journal"):
        Session.open(run, journal=run / "none.sqlite", create=False)
    assert not (run / "none.sqlite").exists()
    with Session.open(run):
        pass


@pytest.mark.parametrize("share", [0.999, 0.8, 0.5, 0.3])
def test_a_journal_cut_short(run, share):
    start = blobs()
    with Session.open(run) as session:
        for k in range(12):  # noise, so that the entries fill pages of their own
            voxels = np.argwhere(np.random.default_rng(k).random(start.shape) < 0.3)
            session.apply(Edit("paint", {"neurite": 100 + k, "voxels": voxels}))
    states = [start]
    with Journal(run / FILE) as journal:
        for entry in journal.entries():
            states.append(states[-1].copy())
            states[-1].reshape(-1)[entry.delta.places()] = entry.delta.new_labels()
    path = run / FILE
    cut = path.read_bytes()[: int(path.stat().st_size * share)]
    path.write_bytes(cut)
    with pytest.raises(UserError, match=r"is damaged \(.*\): the first \d+ edits? could be read and lie in ") as told:
        Session.open(run)
    assert path.read_bytes() == cut and "\n" not in str(told.value)
    copy = Path(str(told.value).rsplit("--journal ", 1)[1])
    count = len(read_whole_entries(copy)[1])
    assert f"the first {count} edit" in str(told.value) and count < 12
    assert count > (5 if share > 0.7 else -1)
    with Session.open(run, journal=copy) as session:
        assert np.array_equal(session.labels, states[count])
        session.apply(Edit("delete", {"neurite": 1}))
    kept = copy.read_bytes()
    with pytest.raises(UserError, match="could be read"):  # what was done since in the copy is not overwritten
        Session.open(run)
    assert copy.read_bytes() == kept and path.read_bytes() == cut


@pytest.mark.parametrize("content", [b"", b"SQLite format 3\0", b"no journal at all " * 500])
def test_a_journal_of_which_nothing_is_left(run, content):
    (run / FILE).write_bytes(content)
    with pytest.raises(UserError, match="none of its edits could be read; it is left as it is: move it away"):
        Session.open(run)
    assert (run / FILE).read_bytes() == content


@pytest.mark.parametrize(
    "harm",
    [
        "UPDATE edits SET new = zeroblob(9) WHERE id = 3",
        "UPDATE edits SET voxels = voxels + 1 WHERE id = 3",
        "DELETE FROM edits WHERE id = 3",
    ],
)
def test_an_entry_that_is_not_as_it_was_written(run, harm):
    with Session.open(run) as session:
        some_edits(session, 5)
    with raw(run / FILE) as db:
        db.execute(harm)
    with pytest.raises(UserError, match=r"entry 3 is damaged or missing\): the first 2 edits could be read"):
        Session.open(run)


def test_another_database_and_a_newer_journal(run):
    with raw(run / FILE) as db:
        db.execute("CREATE TABLE t (a)")
    with pytest.raises(UserError, match="is a database, but no journal of proofreading"):
        Session.open(run)
    (run / FILE).unlink()
    Session.open(run).close()
    with raw(run / FILE) as db:
        db.execute("PRAGMA user_version = 2")
    with pytest.raises(UserError, match="has version 2, this emlib knows up to 1; update emlib"):
        Session.open(run)


def refused_when_full(session):
    """Fill up; the edit that does not fit is refused, and all before it stays."""
    rng = np.random.default_rng(0)
    with pytest.raises(
        UserError, match=r"cannot write the journal .*; the edit was refused and nothing changed"
    ) as told:
        for _ in range(2000):
            before, last = session.labels.copy(), session.journal.last
            known, way = session.scene.records, session.can_undo
            voxels = np.argwhere(rng.random(session.labels.shape) < 0.5)
            session.apply(Edit("paint", {"neurite": int(rng.integers(1, 10**6)), "voxels": voxels}))
    assert np.array_equal(session.labels, before) and session.journal.last == last > 0
    assert (known, way) == (session.scene.records, session.can_undo)
    return str(told.value), before


def test_a_disk_that_is_full(run):
    """SQLite's own limit on the size of the file fails as a full disk does."""
    with Session.open(run) as session:
        pages = session.journal._db.execute("PRAGMA page_count").fetchone()[0]
        session.journal._db.execute(f"PRAGMA max_page_count = {pages + 20}")
        told, labels = refused_when_full(session)
        assert "full" in told
        session.journal._db.execute("PRAGMA max_page_count = 1000000")
        session.apply(Edit("delete", {"neurite": int(session.boxes.ids()[0])}))  # the window goes on
        session.undo()
        last = session.journal.last
    with Session.open(run) as session:
        assert session.journal.last == last and np.array_equal(session.labels, labels)


def test_a_small_file_system_that_is_full(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = shutil.which("mount") and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)], capture_output=True
    )
    if not mounted or mounted.returncode:
        pytest.skip("no file system can be mounted here")
    try:
        start = write_run(disk, candidates=False, em=False, boundaries=False)
        with Session.open(disk) as session:
            _, labels = refused_when_full(session)
            with pytest.raises(UserError, match=r"cannot write .*No space left"):
                session.save()
                session.save(disk / "more")
        with Session.open(disk) as session:
            assert np.array_equal(session.labels, labels) and not np.array_equal(labels, start)
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_the_journal_is_one_file_that_can_be_copied_at_any_time(run, tmp_path):
    with Session.open(run) as session:
        some_edits(session, 6)
        copy = tmp_path / "copy.sqlite"
        copy.write_bytes((run / FILE).read_bytes())
        expected = session.labels.copy()
    with Journal(copy) as journal:
        assert np.array_equal(replay(journal, blobs())[0], expected)


def test_a_journal_with_operations_of_a_later_emlib(run):
    with Session.open(run) as session:
        session.journal.append("teleport", user="ada", ids=[])
    with pytest.raises(UserError, match="edit 1: no operation is called 'teleport'; update emlib"):
        Session.open(run)
