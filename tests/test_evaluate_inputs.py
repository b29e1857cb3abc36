"""Tables and volumes as people have them: separators, encodings, lost digits; one line for each mistake."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from emlib.errors import UserError
from emlib.evaluation import evaluate
from emlib.evaluation.inputs import known_voxel_size, read_table
from emlib.volumes.companions import open_labels

ROOT = Path(__file__).resolve().parent.parent
ROWS = "z,y,x,score\n1,2,3,0.5\n4,5,6,0.25\n"


@pytest.mark.parametrize(
    "text",
    [ROWS, ROWS.replace(",", ";"), ROWS.replace(",", "\t"), "\ufeff" + ROWS, ROWS.replace("\n", "\r\n"), ROWS.upper()],
    ids=["commas", "semicolons", "tabs", "byte order mark", "CRLF", "capitals"],
)
def test_tables_of_other_programs_are_read(tmp_path, text):
    (tmp_path / "t.csv").write_bytes(text.encode())
    table = read_table(tmp_path / "t.csv", ["z", "y", "x", "score"])
    assert table[["z", "y", "x"]].to_numpy().tolist() == [[1, 2, 3], [4, 5, 6]]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty; a table needs at least a header with id, z"),
        (b"z,z,id\n1,2,3\n", "has the column z more than once"),
        (b"z,id\n9,1,2\n", "line 2 has 3 values, the header 2 names"),
        ("z,id,naïve\n1,2,é\n".encode("latin-1"), "is not in UTF-8; save it as CSV in UTF-8"),
        (b"z,id\n1,720575940628857210.0\n", "has lost digits"),
        (b"z,id\n1,720575940628857210\n1,\n", "has lost digits"),
        (b"z,id\n1,9223372036854775813\n", "not a whole number in 0"),
        (b"z,id\n1,2\n1,-3\n", "line 3: id is -3, not a whole number"),
        (b"z,id\n1,2.5\n", "line 2: id is 2.5"),
        (b"z,id\nnan,2\n", "line 2: z is nan, not a number"),
        (b"z,id\n" + b"a" * 500 + b",2\n", "not a number; mend or drop the row"),
        (b"z,name\n1,2\n", "lacks the column id; it has z, name"),
    ],
)
def test_mistakes_in_a_table(tmp_path, content, says):
    path = tmp_path / "t.csv"
    path.write_bytes(content)
    with pytest.raises(UserError) as error:
        read_table(path, ["z"], ["id"])
    assert says in str(error.value) and "\n" not in str(error.value) and len(str(error.value)) < 400


def test_no_table(tmp_path):
    with pytest.raises(UserError, match="is a folder"):
        read_table(tmp_path, ["z"])
    with pytest.raises(UserError, match="no such table"):
        read_table(tmp_path / "none.csv", ["z"])


def test_voxel_sizes_that_differ_are_asked_for(tmp_path):
    sources = []
    for name, z in (("a", 40), ("b", 10)):
        np.save(tmp_path / f"{name}.npy", np.ones((1, 2, 2), np.uint8))
        (tmp_path / f"{name}.json").write_text(f'{{"voxel_size_nm": [{z}, 4, 4]}}')
        sources.append(open_labels(tmp_path / f"{name}.npy"))
    with pytest.raises(UserError, match=r"40 × 4 × 4 nm, .*10 × 4 × 4 nm; give --voxel_size"):
        known_voxel_size(None, *sources)
    assert known_voxel_size((50, 4, 4), *sources) == (50, 4, 4)
    assert known_voxel_size(None, sources[0], sources[0]) == (40, 4, 4)


@pytest.mark.parametrize("size", [(0, 4, 4), (1e300, 4, 4), (float("nan"), 4, 4), (1e-9, 4, 4)])
def test_voxel_sizes_of_no_microscope(size):
    with pytest.raises(UserError, match="voxel_size"):
        known_voxel_size(size)


def test_synapses_too_dense_to_tell_apart_are_refused(tmp_path):
    rng = np.random.default_rng(0)
    rows = "\n".join(",".join(map(str, p)) for p in rng.integers(0, 48, (3000, 3)))
    (tmp_path / "many.csv").write_text(f"z,y,x\n{rows}\n")
    many = str(tmp_path / "many.csv")
    with pytest.raises(UserError, match="too many to tell them apart"):
        evaluate("synapses", pred=many, truth=many, outdir=tmp_path / "o", voxel_size=(8, 8, 8), max_distance_nm=2000.0)


def test_places_outside_of_any_volume(tmp_path):
    (tmp_path / "far.csv").write_text("z,y,x\n1,2,3\n1e300,0,0\n")
    far = str(tmp_path / "far.csv")
    with pytest.raises(UserError, match="line 3: no volume has so many voxels"):
        evaluate("synapses", pred=far, truth=far, outdir=tmp_path / "o", voxel_size=(8, 8, 8))


def test_stale_tables_are_named(tmp_path):
    np.save(tmp_path / "t.npy", np.arange(1, 17).reshape(1, 4, 4).repeat(2, 0))
    same = {"pred": str(tmp_path / "t.npy"), "truth": str(tmp_path / "t.npy"), "outdir": tmp_path / "o"}
    evaluate("segmentation", per_section=True, **same)
    lines = evaluate("segmentation", **same)
    assert any("left from an earlier evaluation" in line and "_sections.csv" in line for line in lines)


def test_what_is_no_segmentation_is_said(tmp_path):
    np.save(tmp_path / "t.npy", np.arange(1, 17).reshape(1, 4, 4))
    np.save(tmp_path / "p.npy", np.zeros((1, 4, 4), bool))
    lines = evaluate("segmentation", pred=str(tmp_path / "p.npy"), truth=str(tmp_path / "t.npy"), outdir=tmp_path / "o")
    assert any("p.npy is a single segment: is it a segmentation?" in line for line in lines)


def test_a_mask_is_no_em(tmp_path):
    np.save(tmp_path / "t.npy", np.arange(1, 17).reshape(1, 4, 4))
    np.save(tmp_path / "em.npy", np.zeros((1, 4, 4), bool))
    with pytest.raises(UserError, match="holds a mask, no grey values"):
        evaluate(
            "segmentation", pred=str(tmp_path / "t.npy"), truth=str(tmp_path / "t.npy"), em=str(tmp_path / "em.npy")
        )


def test_section_gaps_of_a_mask_are_said(real_data, tmp_path):
    (tmp_path / "p.csv").write_text("z,y,x\n0,10,10\n")
    folder = str(real_data / "drosophila-vnc" / "test" / "synapses")
    lines = evaluate("synapses", pred=str(tmp_path / "p.csv"), truth=folder, voxel_size=(50, 4.6, 4.6), outdir=tmp_path)
    assert any("sections are missing" in line and "--per_section" in line for line in lines)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full, a file that is always full")
def test_a_full_disk_behind_the_output_is_one_line(tmp_path):
    np.save(tmp_path / "t.npy", np.arange(1, 17).reshape(1, 4, 4))
    same = ["--pred", tmp_path / "t.npy", "--truth", tmp_path / "t.npy", "--outdir", tmp_path / "o"]
    command = [sys.executable, ROOT / "evaluate.py", "segmentation", *same]
    with open("/dev/full", "w") as full:
        done = subprocess.run(list(map(str, command)), stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1 and "No space left" in done.stderr
