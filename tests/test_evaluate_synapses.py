"""evaluate.py synapses: tables and masks as truth, partners by labels, what is written, and each error in one line."""

import json

import numpy as np
import pandas as pd
import pytest

from emlib.errors import UserError
from emlib.evaluation import evaluate
from emlib.volumes.sections import write_sections
from emlib.volumes.tiff import write_tiff

VOXEL = (40.0, 10.0, 10.0)
SHAPE = (6, 60, 60)


def neurites():
    """Six true neurites, slabs along x; predicted ones carry other ids, the last true one in two pieces."""
    truth = np.broadcast_to(np.arange(60) // 10 + 1, SHAPE).astype(np.int32)
    pred = truth + 100
    pred[:, :, 57:] = 207
    return pred, truth


TRUTH = pd.DataFrame(
    {"z": [1, 2, 4, 4], "y": [5, 50, 30, 5], "x": [10, 30, 50, 20], "pre_id": [1, 3, 5, 2], "post_id": [2, 4, 6, 3]}
)
PRED = pd.DataFrame(
    {
        "z": [1, 2, 4, 0],
        "y": [6, 48, 30, 40],
        "x": [11, 30, 50, 3],
        "pre_id": [101, 104, 105, 101],
        "post_id": [102, 103, 102, 102],
        "score": [0.9, 0.6, 0.3, 0.05],
    }
)


@pytest.fixture
def case(tmp_path):
    """Return a function that writes tables and labels and scores them: (scores, lines, folder)."""
    pred, truth = neurites()
    write_tiff(tmp_path / "pred.tif", pred, VOXEL)
    write_tiff(tmp_path / "true.tif", truth, VOXEL)

    def call(pred=PRED, truth=TRUTH, **options):
        files = {}
        for name, content in (("pred", pred), ("truth", truth)):
            files[name] = content
            if isinstance(content, pd.DataFrame):
                files[name] = str(tmp_path / f"{name}.csv")
                content.to_csv(files[name], index=False)
        lines = evaluate("synapses", outdir=tmp_path / "out", **files, **{"voxel_size": VOXEL, **options})
        return json.loads((tmp_path / "out/tables/evaluate_synapses.json").read_text()), lines, tmp_path

    return call


@pytest.fixture
def labels(tmp_path):
    return {"pred_labels": str(tmp_path / "pred.tif"), "truth_labels": str(tmp_path / "true.tif")}


def test_detection_curve_and_matches(case):
    scores, lines, folder = case(min_score=0.1)
    assert (scores["precision"], scores["recall"], scores["f1"]) == (1, 3 / 4, 6 / 7)
    assert scores["average_precision"] == 3 / 4
    assert scores["best"]["threshold"] == 0.3 and scores["best"]["chosen_on_this_truth"]
    assert scores["settings"]["voxel_size_nm"] == list(VOXEL) and scores["settings"]["min_score"] == 0.1
    assert scores["inputs"]["truth"]["rows"] == 4 and "numpy" in scores["versions"]
    assert any("partners not compared" in line for line in lines) and any("optimistic" in line for line in lines)
    table = pd.read_csv(folder / "out/tables/evaluate_synapses.csv")
    assert table["what"].tolist() == ["prediction", "chance"] and table["f1"][0] > table["f1"][1] > 0
    matches = pd.read_csv(folder / "out/tables/evaluate_synapses_matches.csv")
    assert matches["status"].tolist() == ["hit", "hit", "hit", "missed"]
    assert matches["distance_nm"][0] == pytest.approx(np.sqrt(200), abs=1e-3) and matches["truth_row"][3] == 3
    curve = pd.read_csv(folder / "out/tables/evaluate_synapses_curve.csv")
    assert curve["threshold"].tolist() == [0.9, 0.6, 0.3, 0.05]


def test_partners_and_direction(case, labels):
    """Of three at the right place one is right, one the wrong way round, one has a wrong receiver."""
    scores, lines, _ = case(min_score=0.1, **labels, voxel_size=None)
    assert scores["partners"] == pytest.approx({"precision": 1 / 3, "recall": 1 / 4, "f1": 2 / 7})
    assert scores["partners_unordered"] == pytest.approx({"precision": 2 / 3, "recall": 2 / 4, "f1": 4 / 7})
    assert scores["direction_accuracy"] == {"accuracy": 0.5, "pairs": 2, "chance": 0.5}
    assert 0 < scores["chance"]["partners"]["f1"] < scores["partners"]["f1"]
    assert scores["settings"]["voxel_size_nm"] == list(VOXEL)  # of the labels
    assert any("direction right in 1 of 2" in line for line in lines)


def test_the_truth_as_its_own_prediction_is_perfect(case, labels):
    same = {"pred_labels": labels["truth_labels"], "truth_labels": labels["truth_labels"]}
    scores, *_ = case(pred=TRUTH.assign(score=0.5), **same)
    for found in (scores, scores["partners"], scores["partners_unordered"]):
        assert (found["precision"], found["recall"], found["f1"]) == (1, 1, 1)
    assert scores["average_precision"] == 1 and scores["direction_accuracy"]["accuracy"] == 1


def test_no_score_no_curve(case):
    scores, lines, folder = case(pred=PRED[["z", "y", "x"]])
    assert scores["average_precision"] is None and scores["best"] is None
    assert any("has no column score" in line for line in lines)
    assert not (folder / "out/tables/evaluate_synapses_curve.csv").exists()


def test_an_empty_prediction_is_scored(case, labels):
    scores, lines, _ = case(pred=PRED.iloc[:0], **labels)
    assert (scores["precision"], scores["recall"], scores["f1"]) == (None, 0, 0)
    assert scores["average_precision"] == 0 and any(line.startswith("warning: no prediction") for line in lines)
    scores, lines, _ = case(min_score=2)
    assert scores["recall"] == 0 and any("reaches --min_score" in line for line in lines)


def test_absent_ids_and_places_outside_are_said(case, labels):
    odd = pd.concat([PRED, PRED.iloc[:1].assign(pre_id=999, x=70)])
    _, lines, _ = case(pred=odd, **labels)
    assert any("1 of 6 neurites" in line and "do not occur" in line for line in lines)
    assert any(line.startswith("warning: 1 of 5 places") for line in lines)


def blobs(dtype, *values):
    """One square per value, in sections 0, 2, 4 …"""
    mask = np.zeros(SHAPE, dtype)
    for i, value in enumerate(values):
        mask[2 * i, 10:13, 10 * i + 10 : 10 * i + 13] = value
    return mask


@pytest.mark.parametrize(
    ("mask", "read_as"),
    [
        (blobs(np.uint8, 255, 255, 255), "components"),
        (blobs(np.int32, 5, 5, 5), "components"),
        (blobs(np.uint8, 255, 255, 128), "components at or above 128"),
        (blobs(np.uint16, 65535, 40000, 32768), "components at or above 32768"),
        (blobs(np.float32, 1, 0.5, 0.75), "components at or above 0.5"),
        (blobs(np.int32, 3, 1, 2), "ids of a label volume"),
        (blobs(np.uint8, 3, 1, 2), "ids of a label volume"),
    ],
)
def test_masks_of_every_kind(case, tmp_path, mask, read_as):
    soft = mask.copy()
    if "at or above" in read_as:
        soft[1, 50, 50] = mask.max() / 2.1  # below half range: the edge of something
    np.save(tmp_path / "mask.npy", soft)
    pred = pd.DataFrame({"z": [0, 2, 4], "y": [11, 11, 11], "x": [11, 21, 31]})
    scores, lines, _ = case(pred=pred, truth=str(tmp_path / "mask.npy"), max_distance_nm=1)
    assert scores["inputs"]["truth"]["read_as"] == read_as and scores["truth"] == 3 and scores["f1"] == 1
    assert any(read_as in line for line in lines)


def test_a_folder_of_sections_each_for_itself(case, tmp_path):
    """One synapse through two sections is one in 3D and two in sections; a speck falls to --min_size."""
    mask = np.zeros((3, 40, 40), np.uint8)
    mask[0:2, 10:14, 10:14], mask[2, 30, 30] = 255, 255
    write_sections(tmp_path / "mask", mask)
    pred = pd.DataFrame({"z": [0, 1], "y": [11.5, 11.5], "x": [11.5, 11.5]})
    truth = str(tmp_path / "mask")
    assert case(pred=pred, truth=truth)[0]["truth"] == 2
    scores, *_ = case(pred=pred, truth=truth, per_section=True)
    assert (scores["truth"], scores["recall"], scores["precision"]) == (3, 2 / 3, 1)
    scores, *_ = case(pred=pred, truth=truth, per_section=True, min_size=500)
    assert scores["truth"] == 2 and scores["f1"] == 1
    assert case(pred=pred, truth=truth, min_size=50_000)[0]["truth"] == 1


def test_real_masks_against_their_own_components(case, real_data):
    from emlib.measure.synapses.matching import components_to_table
    from emlib.volumes.open import open_volume

    folder, voxel = real_data / "drosophila-vnc" / "test" / "synapses", (50, 4.6, 4.6)
    source = open_volume(folder)
    mask = source.read(tuple(slice(0, n) for n in source.shape))
    pred = components_to_table(mask, voxel, per_section=True, min_size=1000)[["z", "y", "x"]]
    scores, *_ = case(pred=pred, truth=str(folder), voxel_size=voxel, per_section=True, min_size=1000)
    assert scores["f1"] == 1 and scores["truth"] == 31 and scores["chance"]["f1"] < 0.1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"truth": TRUTH.iloc[:0]}, "holds no synapse"),
        ({"voxel_size": None}, "give --voxel_size Z Y X"),
        ({"voxel_size": (0, 1, 1)}, "not three positive numbers"),
        ({"pred": PRED.drop(columns="x")}, "lacks the column x"),
        ({"pred": PRED.drop(columns="post_id")}, "has pre_id but lacks the column post_id"),
        ({"truth": TRUTH.assign(y=[1, np.nan, 2, 3])}, "line 3: y is .*nan.*, not a number"),
        ({"pred": PRED.assign(score=np.nan)}, "score is .*nan.*, not a number"),
        ({"pred": PRED.drop(columns="score"), "min_score": 0.1}, "--min_score needs the column score"),
        ({"pred": "absent.csv"}, "no such table"),
        ({"truth": "absent.tif"}, "no such file or folder"),
        ({"min_size": 5.0}, "--min_size is for a mask"),
        ({"pred_labels": "pred.tif"}, "--pred_labels needs --truth_labels"),
        ({"truth_labels": "true.tif"}, "--truth_labels needs --pred_labels"),
        ({"pred_labels": "pred.tif", "truth_labels": "short.npy"}, r"shape \(6, 60, 60\), .* \(3, 60, 60\)"),
        ({"pred_labels": "pred.tif", "truth_labels": "float.npy"}, "must be integers"),
        ({"pred_labels": "true.tif", "truth_labels": "true.tif"}, "none of the neurites that .*pred.csv names"),
        ({"pred_labels": "pred.tif", "truth_labels": "pred.tif"}, "none of the neurites that .*truth.csv names"),
        ({"pred_labels": "half.npy", "truth_labels": "other_half.npy"}, "non-overlapping labels"),
        ({"pred_labels": "pred.tif", "truth_labels": "true.tif", "truth": TRUTH[["z", "y", "x"]]}, "lacks the columns"),
        (
            {"pred_labels": "pred.tif", "truth_labels": "true.tif", "truth": "mask.npy"},
            "is a mask and names no partners",
        ),
        ({"truth": "empty.npy"}, "holds no synapse"),
        ({"truth": "mask.npy", "min_size": 1e9}, "holds no synapse of at least 1e"),
        ({"truth": "wild.npy"}, "holds values from -3 to 5"),
    ],
)
def test_bad_input(case, tmp_path, options, message):
    pred, truth = neurites()
    left = np.arange(60) < 30
    arrays = {
        "short": truth[:3],
        "float": truth.astype(np.float32),
        "half": np.where(left, pred, 0),
        "other_half": np.where(left, 0, truth),
        "mask": blobs(np.uint8, 255),
        "empty": blobs(np.uint8),
        "wild": blobs(np.float32, 5, -3),
    }
    for name, array in arrays.items():
        np.save(tmp_path / f"{name}.npy", array)
    options = {k: str(tmp_path / v) if isinstance(v, str) else v for k, v in options.items()}
    with pytest.raises(UserError, match=message) as error:
        case(**options)
    assert "\n" not in str(error.value)


def test_the_command(tmp_path, call_script):
    PRED.to_csv(tmp_path / "pred.csv", index=False)
    TRUTH.to_csv(tmp_path / "truth.csv", index=False)
    command = ["synapses", "--pred", tmp_path / "pred.csv", "--truth", tmp_path / "truth.csv", "--outdir", tmp_path]
    done = call_script(
        "evaluate.py", *command, "--voxel_size", 40, 10, 10, "--min_score", 0.1, "--max_distance_nm", 100
    )
    assert done.returncode == 0, done.stderr
    assert "chance" in done.stdout and "written: " in done.stdout
    first = (tmp_path / "tables/evaluate_synapses.json").read_bytes()
    assert json.loads(first)["f1"] == pytest.approx(6 / 7)
    again = call_script(
        "evaluate.py", *command, "--voxel-size", 40, 10, 10, "--min-score", 0.1, "--max-distance-nm", 100
    )
    assert again.stdout == done.stdout and (tmp_path / "tables/evaluate_synapses.json").read_bytes() == first
    wrong = call_script("evaluate.py", *command)
    assert wrong.returncode == 2 and wrong.stderr.count("\n") == 1 and "--voxel_size" in wrong.stderr
