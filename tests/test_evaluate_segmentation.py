"""evaluate.py segmentation as a user runs it: files in any format, blocks, options, and what it says of bad input."""

import json

import numpy as np
import pandas as pd
import pytest
import tifffile
from PIL import Image

from emlib.evaluation import evaluate, label_pass
from emlib.measure.instances import score_instances
from emlib.volumes.hdf5 import write_hdf5
from emlib.volumes.ome_zarr import write_ome_zarr
from emlib.volumes.tiff import write_tiff

SIZE = (40.0, 8.0, 8.0)


def blocks(shape=(6, 40, 60), seed=0, step=10):
    """Truth of neurites that are square in section, and a prediction with a merge, a split and unlabelled gaps."""
    z, y, x = np.indices(shape)
    truth = (y // step) * 100 + x // step + 1
    truth[:, ::step] = 0
    pred = truth.copy()
    pred[truth == 102] = 101  # a merge of two neighbours
    pred[(truth == 304) & (z >= 3)] = 999  # a split between sections
    pred[:, :, -15] = 0
    return truth, pred


@pytest.fixture(autouse=True)
def few_figures(request, monkeypatch):
    """The figure takes longer than all else here; tests whose name says so look at it."""
    if not any(word in request.node.name for word in ("test_the_command", "draw", "bytes", "every_result", "real")):
        monkeypatch.setattr("emlib.evaluation.segmentation._draw", lambda *given: None)


def result(folder):
    return json.loads((folder / "tables" / "evaluate_segmentation.json").read_text())


@pytest.fixture
def files(tmp_path):
    truth, pred = blocks()
    write_tiff(tmp_path / "truth.tif", truth.astype(np.uint16), SIZE)
    np.save(tmp_path / "pred.npy", pred.astype(np.int32))
    return tmp_path / "pred.npy", tmp_path / "truth.tif"


def test_the_command(files, run_script, tmp_path):
    pred, truth = files
    out = tmp_path / "out"
    done = run_script("evaluate.py", "segmentation", "--pred", pred, "--truth", truth, "--outdir", out)
    assert done.returncode == 0, done.stderr
    expected = score_instances(*blocks())
    found = result(out)
    for name in ("voi_split", "voi_merge", "voi", "arand", "rand_precision", "rand_recall", "cremi_score"):
        assert found[name] == pytest.approx(expected[name], abs=1e-12)
    assert 0 < found["voi_split"] < found["chance"]["same_sizes_at_random"]["voi_split"]
    assert found["zero"] == "fill" and found["settings"]["voxel_size_nm"] == list(SIZE)
    assert found["inputs"]["pred"]["shape"] == [6, 40, 60] and "numpy" in found["versions"]
    worst = pd.read_csv(out / "tables" / "evaluate_segmentation_worst.csv")
    merge, split = (worst[worst["kind"] == kind].iloc[0] for kind in ("merge", "split"))
    assert (merge["id"], {merge["first"], merge["second"]}) == (101, {101, 102})
    assert (split["id"], {split["first"], split["second"]}) == (304, {304, 999})
    labels = blocks()
    for row, (owner, part) in ((merge, labels[::-1]), (split, labels)):
        at = tuple(row[["z", "y", "x"]].astype(int))
        assert owner[at] == row["id"] and part[at] == row["second"]
    assert split["z"] in (2, 3)  # where the two halves touch
    assert f"{expected['voi']:.3f}" in done.stdout and "one_segment" in done.stdout
    assert (out / "figures" / "evaluate_segmentation_worst.png").stat().st_size > 10_000
    rows = pd.read_csv(out / "tables" / "evaluate_segmentation.csv", index_col="row")
    assert rows.loc["prediction", "voi"] == pytest.approx(expected["voi"], rel=1e-5)


def test_a_perfect_prediction_scores_zero_and_still_draws(files, tmp_path):
    truth = files[1]
    evaluate("segmentation", pred=str(truth), truth=str(truth), outdir=tmp_path / "out")
    found = result(tmp_path / "out")
    assert (found["voi"], found["arand"], found["cremi_score"], found["worst"]) == (0, 0, 0, [])
    assert (tmp_path / "out" / "figures" / "evaluate_segmentation_worst.pdf").exists()


def test_equal_commands_give_equal_bytes(files, tmp_path):
    pred, truth = map(str, files)
    for name in ("a", "b"):
        evaluate("segmentation", pred=pred, truth=truth, outdir=tmp_path / name)
    for path in sorted((tmp_path / "a").rglob("evaluate_*")):
        assert path.read_bytes() == (tmp_path / "b" / path.relative_to(tmp_path / "a")).read_bytes()


@pytest.mark.parametrize("options", [{}, {"zero": "singletons"}, {"border_nm": 12.0}, {"relabel": "3d"}])
def test_slabs_give_what_the_whole_gives(files, tmp_path, monkeypatch, options):
    truth, pred = blocks()
    write_ome_zarr(tmp_path / "truth.zarr", truth.astype(np.uint64) * 2**33, SIZE, chunk=4)
    write_hdf5(tmp_path / "pred.h5", pred.astype(np.uint32), SIZE)
    given = {"pred": str(tmp_path / "pred.h5"), "truth": str(tmp_path / "truth.zarr"), **options}
    evaluate("segmentation", **given, outdir=tmp_path / "whole")
    monkeypatch.setattr(label_pass, "SLAB_VOXELS", 2 * 40 * 60)
    evaluate("segmentation", **given, outdir=tmp_path / "slabs")
    whole, slabs = result(tmp_path / "whole"), result(tmp_path / "slabs")
    for name in ("voi_split", "voi_merge", "arand", "voxels", "true_segments", "pred_segments"):
        assert slabs[name] == pytest.approx(whole[name], abs=1e-12)
    assert [row["id"] for row in slabs["worst"]] == [row["id"] for row in whole["worst"]]
    assert whole["worst"][-1]["id"] == 304 * 2**33


@pytest.mark.parametrize("first", [2**53, 2**63, 2**64 - 900])
def test_huge_ids_are_written_and_drawn_whole(tmp_path, first):
    """int32 against uint64: pandas knows no common type but float, which would round the ids."""
    truth, pred = blocks()
    big = np.where(truth > 0, truth.astype(np.uint64) + np.uint64(first), np.uint64(0))
    np.save(tmp_path / "truth.npy", big)
    np.save(tmp_path / "pred.npy", pred.astype(np.int32))
    given = {"pred": str(tmp_path / "pred.npy"), "truth": str(tmp_path / "truth.npy")}
    evaluate("segmentation", **given, outdir=tmp_path / "out")
    split = next(row for row in result(tmp_path / "out")["worst"] if row["kind"] == "split")
    merge = next(row for row in result(tmp_path / "out")["worst"] if row["kind"] == "merge")
    assert split["id"] == 304 + first and {merge["first"], merge["second"]} == {101 + first, 102 + first}
    text = (tmp_path / "out" / "tables" / "evaluate_segmentation_worst.csv").read_text()
    assert str(304 + first) in text and "e+" not in text


def test_counts_are_whole_numbers(files, tmp_path):
    pred, truth = map(str, files)
    evaluate("segmentation", pred=pred, truth=truth, outdir=tmp_path)
    first = (tmp_path / "tables" / "evaluate_segmentation.csv").read_text().splitlines()[1]
    assert f",{(blocks()[0] > 0).sum()}," in first


def test_border_tolerance_forgives_a_shifted_border(tmp_path):
    truth = np.repeat([1, 2], 20)[None, None].repeat(8, 1).astype(np.uint8)
    pred = np.roll(truth, 2, axis=2)
    pred[..., :2] = 1
    for name, labels in (("truth", truth), ("pred", pred)):
        np.save(tmp_path / f"{name}.npy", labels)
    given = {"pred": str(tmp_path / "pred.npy"), "truth": str(tmp_path / "truth.npy"), "voxel_size": SIZE}
    evaluate("segmentation", **given, outdir=tmp_path / "strict")
    evaluate("segmentation", **given, border_nm=16.0, outdir=tmp_path / "tolerant")
    assert result(tmp_path / "strict")["voi"] > 0.1
    assert result(tmp_path / "tolerant")["voi"] == 0
    assert result(tmp_path / "tolerant")["voxels"] == 8 * (40 - 6)


def test_relabelled_truth_forgives_pieces_that_meet_outside(tmp_path):
    truth = np.zeros((1, 8, 21), np.uint8)
    truth[..., :8], truth[..., 12:] = 5, 5  # one neurite that enters the box twice
    pred = truth.copy()
    pred[..., 12:] = 6
    for name, labels in (("truth", truth), ("pred", pred)):
        np.save(tmp_path / f"{name}.npy", labels)
    given = {"pred": str(tmp_path / "pred.npy"), "truth": str(tmp_path / "truth.npy")}
    evaluate("segmentation", **given, outdir=tmp_path / "ids")
    evaluate("segmentation", **given, relabel="3d", outdir=tmp_path / "pieces")
    assert result(tmp_path / "ids")["voi_split"] > 0.9
    assert result(tmp_path / "pieces")["voi"] == 0 and result(tmp_path / "pieces")["true_segments"] == 2


def test_each_section_for_itself(files, tmp_path):
    pred, truth = map(str, files)
    evaluate("segmentation", pred=pred, truth=truth, per_section=True, outdir=tmp_path / "out")
    arrays = blocks()
    each = [score_instances(arrays[0][z : z + 1], arrays[1][z : z + 1])["voi"] for z in range(6)]
    assert result(tmp_path / "out")["voi"] == pytest.approx(np.mean(each))
    table = pd.read_csv(tmp_path / "out" / "tables" / "evaluate_segmentation_sections.csv")
    assert table["voi"].tolist() == pytest.approx(each, rel=1e-5)


def test_run_length_of_made_skeletons(files, tmp_path):
    pred, truth = map(str, files)
    how = {"skeletons": "make", "voxel_size": (200, 40, 40)}  # neurites of 1.2 µm
    evaluate("segmentation", pred=pred, truth=truth, **how, outdir=tmp_path / "out")
    run = result(tmp_path / "out")["skeletons"]
    assert 0 < run["erl_nm"] < run["erl_max_nm"]
    evaluate("segmentation", pred=truth, truth=truth, **how, outdir=tmp_path / "same")
    assert result(tmp_path / "same")["skeletons"]["erl_ratio"] == pytest.approx(1)


def test_run_length_of_a_skeleton_from_a_file(files, tmp_path):
    """One straight neurite along z, cut in the middle by the prediction, in the coordinates of a larger volume."""
    pred, truth = map(str, files)
    nodes = [f"{z + 1} 0 {35 * 8 + 500} {35 * 8} {z * 40 + 1000} 0 {z or -1}" for z in range(6)]
    (tmp_path / "one.swc").write_text("\n".join(nodes))
    how = {"skeletons": str(tmp_path / "one.swc"), "skeleton_offset": (1000, 0, 500)}
    evaluate("segmentation", pred=pred, truth=truth, **how, outdir=tmp_path / "out")
    run = result(tmp_path / "out")["skeletons"]
    assert run["erl_max_nm"] == 200 and run["erl_nm"] == pytest.approx(2 * 80**2 / 200)  # 3 nodes, a gap, 3 nodes


def test_a_folder_of_sections_and_cremi_no_label(tmp_path):
    truth, _ = blocks()
    (tmp_path / "sections").mkdir()
    for z, section in enumerate(truth):
        Image.fromarray(section.astype(np.uint16)).save(tmp_path / "sections" / f"{z}.png")
    unlabelled = np.where(truth == 0, 2**64 - 1, truth.astype(np.uint64))
    np.save(tmp_path / "truth.npy", unlabelled)
    given = {"pred": str(tmp_path / "sections"), "truth": str(tmp_path / "truth.npy")}
    evaluate("segmentation", **given, outdir=tmp_path / "out")
    assert result(tmp_path / "out")["voi"] == 0 and result(tmp_path / "out")["voxels"] == (truth > 0).sum()


def test_a_phantom_is_marked_on_every_result(tmp_path):
    truth, pred = blocks()
    np.save(tmp_path / "pred.npy", pred)
    np.save(tmp_path / "truth.npy", truth)
    (tmp_path / "pred.json").write_text(json.dumps({"synthetic": "SYNTHETIC PHANTOM", "voxel_size_nm": SIZE}))
    evaluate("segmentation", pred=str(tmp_path / "pred.npy"), truth=str(tmp_path / "truth.npy"), outdir=tmp_path / "o")
    assert result(tmp_path / "o")["synthetic"] == "SYNTHETIC PHANTOM"


def bad(folder, what):
    """Write a bad pair; return the arguments and what the error must say."""
    truth, pred = blocks((2, 20, 20))
    extra = []
    if what == "shapes":
        pred, says = pred[:, :-1], ["(2, 19, 20)", "(2, 20, 20)", "must be equal"]
    elif what == "float":
        pred, says = pred.astype(np.float32), ["float32", "labels must be integers"]
    elif what == "nan":
        pred, says = np.full(truth.shape, np.nan), ["float64", "labels must be integers"]
    elif what == "negative":
        truth, says = np.where(truth == 0, -1, truth), ["holds the label -1"]
    elif what == "empty":
        truth, says = 0 * truth, ["no labelled voxel"]
    elif what == "em":
        np.save(folder / "em.npy", np.zeros((2, 20, 21), np.uint8))
        extra, says = ["--em", folder / "em.npy"], ["(2, 20, 21)", "(2, 20, 20)"]
    elif what == "border":
        extra, says = ["--border_nm", 10], ["--border_nm needs the voxel size", "--voxel_size Z Y X"]
    elif what == "skeletons":
        extra, says = ["--skeletons", "make"], ["--skeletons needs the voxel size"]
    elif what == "swc":
        extra, says = ["--skeletons", folder / "none", "--voxel_size", 1, 1, 1], [str(folder / "none")]
    elif what == "far":
        (folder / "far.swc").write_text("1 0 1e6 0 0 1 -1\n2 0 2e6 0 0 1 1\n")
        extra = ["--skeletons", folder / "far.swc", "--voxel_size", 1, 1, 1]
        says = ["no edge of the 1 skeletons lies in the volume", "--skeleton_unit", "--skeleton_offset"]
    elif what == "short":
        extra, says = ["--skeletons", "make", "--voxel_size", 1, 1, 1], ["no true neurite is long enough"]
    elif what == "zero":
        extra, says = ["--zero", "maybe"], ["--zero", "singletons"]
    elif what == "worst":
        extra, says = ["--worst", "-1"], ["--worst", "must be above 0"]
    np.save(folder / "pred.npy", pred)
    np.save(folder / "truth.npy", truth)
    if what == "missing":
        (folder / "truth.npy").unlink()
        says = ["no such file", "truth.npy"]
    return ["--pred", folder / "pred.npy", "--truth", folder / "truth.npy", *extra], says


CASES = "shapes float nan negative empty em border skeletons swc far short zero worst missing".split()


@pytest.mark.parametrize("what", CASES)
def test_bad_input_is_one_line(what, call_script, tmp_path):
    args, says = bad(tmp_path, what)
    done = call_script("evaluate.py", "segmentation", *args, "--outdir", tmp_path / "out")
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert all(part in done.stderr for part in says), done.stderr
    assert not list((tmp_path / "out").rglob("evaluate_*"))


def test_a_config_holds_the_flags_of_a_subcommand(files, call_script, tmp_path):
    (tmp_path / "how.yaml").write_text("zero: background\nworst: 3\n")
    args = ["--pred", files[0], "--truth", files[1], "--config", tmp_path / "how.yaml", "--outdir", tmp_path / "out"]
    assert call_script("evaluate.py", "segmentation", *args).returncode == 0
    assert result(tmp_path / "out")["settings"]["worst"] == 3 and result(tmp_path / "out")["zero"] == "background"
    (tmp_path / "how.yaml").write_text("patch: 3\n")
    done = call_script("evaluate.py", "segmentation", *args)
    assert done.returncode == 2 and "unknown key 'patch'" in done.stderr


def test_no_subcommand_lists_them(call_script):
    done = call_script("evaluate.py")
    assert done.returncode == 2 and "segmentation|masks|synapses|graph" in done.stderr


def test_real_volume_scores_itself(real_data, tmp_path):
    truth = str(real_data / "larval-vnc-3d" / "neurites_u8_zyx.tif")
    em = str(real_data / "larval-vnc-3d" / "em_u8_zyx.tif")
    evaluate("segmentation", pred=truth, truth=truth, em=em, voxel_size=(50, 4, 4), outdir=tmp_path)
    ids = np.unique(tifffile.imread(truth))
    assert result(tmp_path)["voi"] == 0 and result(tmp_path)["true_segments"] == (ids > 0).sum() > 100
