"""evaluate.py graph: edges by the same ids or mapped by labels, what is written, and each error in one line."""

import json

import numpy as np
import pandas as pd
import pytest

from emlib.errors import UserError
from emlib.evaluation import evaluate

TRUTH = pd.DataFrame({"source": [1, 2, 4], "target": [2, 3, 1], "weight": [3, 1, 2]})
PRED = pd.DataFrame({"source": [11, 12, 13, 15, 11], "target": [13, 13, 14, 13, 12], "weight": [2, 3, 1, 1, 7]})


@pytest.fixture
def case(tmp_path):
    """Return a function that writes tables and scores them: (scores, lines, folder).

    The labels: 11 and 12 are two pieces of neurite 1, 13 is 2, 14 is 3, 15 is background, 4 was not found.
    """
    truth = np.repeat([1, 1, 1, 2, 2, 3, 3, 0, 0, 4], 8).reshape(1, 8, 10).astype(np.uint16)
    pred = np.repeat([11, 11, 12, 13, 13, 14, 14, 15, 15, 0], 8).reshape(1, 8, 10).astype(np.int64)
    arrays = {"true": truth, "pred": pred, "short": truth[:, :4], "left": np.where(pred < 13, pred, 0)}
    arrays["right"] = np.where(truth > 1, truth, 0)
    for name, array in arrays.items():
        np.save(tmp_path / f"{name}.npy", array)

    def call(pred=PRED, truth=TRUTH, **options):
        files = {"pred": str(pred), "truth": str(truth)}
        for name, content in (("pred", pred), ("truth", truth)):
            if isinstance(content, pd.DataFrame):
                files[name] = str(tmp_path / f"{name}.csv")
                content.to_csv(files[name], index=False)
        options = {k: str(tmp_path / v) if isinstance(v, str) else v for k, v in options.items()}
        lines = evaluate("graph", outdir=tmp_path / "out", **files, **options)
        return json.loads((tmp_path / "out/tables/evaluate_graph.json").read_text()), lines, tmp_path

    return call


def test_neurites_are_mapped_by_their_labels(case):
    """After mapping: 1→2 (2 + 3), 2→3 (1), 15→2 unmapped (1), 1→1 within (7); missed 4→1."""
    scores, lines, folder = case(pred_labels="pred.npy", truth_labels="true.npy")
    assert (scores["precision"], scores["recall"], scores["f1"]) == pytest.approx((2 / 4, 2 / 3, 4 / 7))
    assert scores["weighted"] == pytest.approx({"precision": 4 / 14, "recall": 4 / 6, "f1": 8 / 20})
    assert scores["undirected"] == pytest.approx({"precision": 2 / 4, "recall": 2 / 3, "f1": 4 / 7})
    assert (scores["unmapped"], scores["within_one_neurite"]) == (1, 1)
    assert scores["chance"]["draws"] == 100 and len(scores["chance"]["interval_95"]["f1"]) == 2
    assert scores["inputs"]["pred_labels"]["dtype"] == "int64" and "numpy" in scores["versions"]
    assert any("1 of 4 predicted connections lead to no true neurite" in line for line in lines)
    edges = pd.read_csv(folder / "out/tables/evaluate_graph_edges.csv")
    assert list(edges.columns) == ["source", "target", "weight_true", "weight_pred", "status"]
    assert edges.to_numpy().tolist() == [
        [-15, 2, 0, 1, "unmapped"],
        [1, 1, 0, 7, "within"],
        [1, 2, 3, 5, "hit"],
        [2, 3, 1, 1, "hit"],
        [4, 1, 2, 0, "missed"],
    ]
    table = pd.read_csv(folder / "out/tables/evaluate_graph.csv")
    assert table["what"].tolist() == ["prediction", "chance"] and table["f1"][0] > table["f1"][1]


@pytest.mark.parametrize("names", [("pre_pt_root_id", "post_pt_root_id"), ("bodyId_pre", "bodyId_post")])
def test_tables_of_cave_and_neuprint_are_understood(case, names):
    theirs = TRUTH.rename(columns=dict(zip(("source", "target"), names, strict=True)))
    assert case(pred=TRUTH, truth=theirs)[0]["f1"] == 1


def test_the_same_ids_without_labels(case):
    scores, lines, _ = case(pred=TRUTH.iloc[:2])
    assert (scores["precision"], scores["recall"], scores["f1"]) == (1, 2 / 3, 4 / 5)
    assert any("ids taken as the same" in line and "3 of 3" in line for line in lines)
    perfect, *_ = case(pred=TRUTH.sample(frac=1, random_state=0))
    assert perfect["f1"] == perfect["weighted"]["f1"] == perfect["degree_correlation"]["in"]["pearson"] == 1


def test_weights_are_optional_and_background_is_left_out(case):
    pred = pd.concat([TRUTH, pd.DataFrame({"source": [0], "target": [2], "weight": [9]})])
    scores, lines, _ = case(pred=pred[["source", "target"]], truth=TRUTH.assign(weight=[0.5, 1.5, 1]))
    assert scores["f1"] == 1 and scores["background"] == {"predicted": 1, "truth": 0}
    assert scores["weighted"]["recall"] == pytest.approx(2.5 / 3)
    assert any("background" in line for line in lines)


def test_an_empty_prediction_is_scored(case):
    scores, lines, _ = case(pred=PRED.iloc[:0], pred_labels="pred.npy", truth_labels="true.npy")
    assert (scores["precision"], scores["recall"], scores["f1"]) == (None, 0, 0)
    assert any(line.startswith("warning: ") for line in lines)
    assert case(pred=PRED.iloc[:0])[0]["recall"] == 0


def test_large_weights_keep_their_digits(case):
    table = TRUTH.assign(weight=[123456789, 1, 2])
    _, _, folder = case(pred=table, truth=table)
    assert "1,2,123456789,123456789,hit" in (folder / "out/tables/evaluate_graph_edges.csv").read_text()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "non-overlapping ids: .* give --pred_labels --truth_labels"),
        ({"truth": TRUTH.iloc[:0]}, "holds no connection between two neurites"),
        ({"truth": TRUTH.assign(target=TRUTH["source"])}, "holds no connection between two neurites"),
        ({"pred": PRED.drop(columns="target")}, "lacks the column target"),
        ({"pred": PRED.assign(weight=[1, 1, 0, 1, 1])}, "line 4: weight is 0, not in 0"),
        ({"pred": PRED.assign(source=[1.5, 1, 1, 1, 1])}, "not a whole number"),
        ({"truth": TRUTH.assign(weight=np.nan)}, "weight is .*nan.*, not a number"),
        ({"pred": "absent.csv"}, "no such table"),
        ({"pred_labels": "pred.npy"}, "--pred_labels needs --truth_labels"),
        ({"truth_labels": "true.npy"}, "--truth_labels needs --pred_labels"),
        ({"pred_labels": "pred.npy", "truth_labels": "short.npy"}, "has shape"),
        ({"pred_labels": "true.npy", "truth_labels": "true.npy"}, "none of the neurites that .*pred.csv names"),
        ({"pred_labels": "pred.npy", "truth_labels": "pred.npy"}, "none of the neurites that .*truth.csv names"),
        ({"pred_labels": "left.npy", "truth_labels": "right.npy"}, "non-overlapping labels"),
    ],
)
def test_bad_input(case, options, message):
    with pytest.raises(UserError, match=message) as error:
        case(**options)
    assert "\n" not in str(error.value)


def test_the_command(tmp_path, call_script):
    TRUTH.to_csv(tmp_path / "truth.csv", index=False)
    TRUTH.iloc[1:].to_csv(tmp_path / "pred.csv", index=False)
    command = ["graph", "--truth", tmp_path / "truth.csv", "--outdir", tmp_path, "--pred"]
    done = call_script("evaluate.py", *command, tmp_path / "pred.csv", "--draws", 20)
    assert done.returncode == 0, done.stderr
    scores = json.loads((tmp_path / "tables/evaluate_graph.json").read_text())
    assert (scores["precision"], scores["recall"]) == (1, 2 / 3) and scores["chance"]["draws"] == 20
    assert "of 20 rewirings" in done.stdout and "written: " in done.stdout
    PRED.to_csv(tmp_path / "pred.csv", index=False)
    wrong = call_script("evaluate.py", *command, tmp_path / "pred.csv")
    assert wrong.returncode == 2 and wrong.stderr.count("\n") == 1 and "non-overlapping ids" in wrong.stderr


def test_labels_beyond_what_a_table_can_name(case, tmp_path):
    pred = np.load(tmp_path / "pred.npy")
    np.save(tmp_path / "huge.npy", np.where(pred == 11, 2**63 + 5, pred).astype(np.uint64))
    with pytest.raises(UserError, match=r"holds the label 9223372036854775813; labels must lie in 0 … 2\^63-1"):
        case(truth=PRED, pred_labels="pred.npy", truth_labels="huge.npy")
