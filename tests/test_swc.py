"""Skeletons in SWC: what is read, what is written, and what is said of files that are wrong."""

import numpy as np
import pytest

from emlib.errors import UserError
from emlib.volumes.swc import Skeleton, read_skeletons, write_swc

SIZE = (50.0, 4.0, 8.0)
Y_SHAPE = """# a neurite of three arms
#
5 2 80 40 500 1.5 7   # a comment behind a row
7 1 80 40 1000 3 -1

9 2 160.5 4.0e1 1000 1 7 extra
12 2 80 -40 1000 1 7
"""


def file(folder, text, name="a.swc"):
    (folder / name).write_text(text)
    return folder / name


def segments(skeleton):
    """Edges as a set of pairs of positions, whatever the order of nodes."""
    return {frozenset(tuple(np.round(skeleton.nodes[i], 6)) for i in edge) for edge in skeleton.edges}


def test_reads_columns_comments_and_any_order_of_rows(tmp_path):
    (skeleton,) = read_skeletons(file(tmp_path, Y_SHAPE), SIZE)
    assert skeleton.name == "a"
    assert skeleton.nodes.tolist() == [[10, 10, 10], [20, 10, 10], [20, 10, 20.0625], [20, -10, 10]]
    assert skeleton.edges.tolist() == [[1, 0], [1, 2], [1, 3]]


def test_units_and_offset(tmp_path):
    path = file(tmp_path, "1 0 8 4 50 1 -1\n")
    assert read_skeletons(path, SIZE, "nm")[0].nodes.tolist() == [[1, 1, 1]]
    assert read_skeletons(path, SIZE, "um")[0].nodes.tolist() == [[1000, 1000, 1000]]
    assert read_skeletons(path, SIZE, "voxel")[0].nodes.tolist() == [[50, 4, 8]]
    assert read_skeletons(path, SIZE, "nm", offset_nm=(50, 8, 4))[0].nodes.tolist() == [[0, -1, 0.5]]
    assert read_skeletons(path, SIZE, "voxel", offset_nm=(50, 8, 4))[0].nodes.tolist() == [[49, 2, 7.5]]


def test_a_folder_is_read_in_natural_order(tmp_path):
    for name in ("n10.swc", "n9.SWC", "9.swc", "b.swc", "._n9.swc", "notes.txt"):
        file(tmp_path, "1 0 0 0 0 1 -1\n", name)
    assert [skeleton.name for skeleton in read_skeletons(tmp_path, SIZE)] == ["9", "b", "n9", "n10"]


def test_what_is_written_reads_back(tmp_path):
    rng = np.random.default_rng(0)
    parents = np.array([rng.integers(0, i) if i % 10 else -1 for i in range(40)])  # four trees, some of them linked
    child = np.flatnonzero(parents >= 0)
    shuffled = rng.permutation(40)
    edges = shuffled[np.stack([child, parents[child]], axis=1)]
    skeleton = Skeleton("tree", rng.uniform(-5, 500, (40, 3)), edges)
    write_swc(tmp_path / "new" / "tree.swc", skeleton, SIZE)
    (back,) = read_skeletons(tmp_path / "new", SIZE)
    assert segments(back) == segments(skeleton) and len(back.nodes) == 40
    rows = np.loadtxt(tmp_path / "new" / "tree.swc")
    assert (rows[:, 6] < rows[:, 0]).all()  # parents come first
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["tree.swc"]


def test_a_loop_is_not_written(tmp_path):
    ring = Skeleton("ring", np.eye(3), np.array([[0, 1], [1, 2], [2, 0]]))
    with pytest.raises(ValueError, match="the skeleton ring is no tree"):
        write_swc(tmp_path / "ring.swc", ring, SIZE)
    assert not (tmp_path / "ring.swc").exists()


BAD = {
    "short row": ("1 0 0 0 0 1\n", r"a\.swc, line 1: '1 0 0 0 0 1' is no row of SWC"),
    "text": ("# x\n1 0 0 zero 0 1 -1\n", r"a\.swc, line 2: .* is no row of SWC"),
    "id": ("1.5 0 0 0 0 1 -1\n", r"a\.swc, line 1: .* is no row of SWC"),
    "huge id": (f"{2**70} 0 0 0 0 1 -1\n", r"a\.swc, line 1: .* is no row of SWC"),
    "nan": ("1 0 0 0 0 1 -1\n2 0 nan 0 0 1 1\n", r"a\.swc, line 2: a coordinate is not finite"),
    "infinite": ("1 0 0 0 inf 1 -1\n", r"a\.swc, line 1: a coordinate is not finite"),
    "twice": ("1 0 0 0 0 1 -1\n2 0 0 0 0 1 1\n2 0 0 0 0 1 1\n", r"a\.swc: the id 2 occurs twice"),
    "unknown": ("1 0 0 0 0 1 -1\n2 0 0 0 0 1 8\n", r"a\.swc: node 2 has the parent 8, which is not there"),
    "cycle": ("1 0 0 0 0 1 -1\n5 0 0 0 0 1 6\n6 0 0 0 0 1 5\n", r"a\.swc: following the parents of node 5 never ends"),
    "own parent": ("1 0 0 0 0 1 1\n", r"a\.swc: following the parents of node 1 never ends"),
    "empty": ("# nothing\n\n", r"a\.swc holds no node"),
}


@pytest.mark.parametrize("case", BAD)
def test_wrong_files_are_told_in_one_line(tmp_path, case):
    text, says = BAD[case]
    with pytest.raises(UserError, match=says) as error:
        read_skeletons(file(tmp_path, text), SIZE)
    assert "\n" not in str(error.value)


def test_missing_files_and_binary_ones(tmp_path):
    with pytest.raises(UserError, match=r"no such file or folder of skeletons: .*none"):
        read_skeletons(tmp_path / "none", SIZE)
    with pytest.raises(UserError, match=r"the folder .* holds no \.swc file"):
        read_skeletons(tmp_path, SIZE)
    (tmp_path / "a.swc").write_bytes(b"\xff\xfe\x00\x81" * 9)
    with pytest.raises(UserError, match=r"cannot read .*a\.swc"):
        read_skeletons(tmp_path, SIZE)
