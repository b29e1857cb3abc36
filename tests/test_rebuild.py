"""rebuild_graph_and_figures.py as a user runs it: what it writes, what it keeps, and what it says when it cannot."""

import json
import os
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from emlib.errors import UserError
from emlib.pipeline import PipelineSettings, recall, run_pipeline
from emlib.pipeline.rebuild import RebuildSettings, rebuild
from emlib.pipeline.rebuild_inputs import newest_labels
from emlib.runs.artefacts import Outputs
from emlib.runs.history import read_runs
from emlib.runs.kept_results import own_file
from emlib.runs.lock import run_lock
from emlib.runs.settings import override

SCRIPT = "rebuild_graph_and_figures.py"
CANDIDATES = "tables/synapse_candidates.csv"
CORRECTED = "data/neurite_labels_corrected_i32_zyx.npy"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """One small run on the phantom, with a threshold at which it has a graph."""
    outdir = tmp_path_factory.mktemp("run") / "outputs"
    settings = PipelineSettings(dataset="sample://phantom", cutout_xyz=(128, 128, 12))
    stages = override(settings.stages, ["graph.min_score=0.02"])
    run_pipeline(replace(settings, stages=stages), outdir, quiet=True)
    return outdir


@pytest.fixture(autouse=True)
def few_figures(request, monkeypatch, finished):
    """Those that any run has take most of the time; the tests of the report and of figure 1 draw them."""
    if not any(word in request.node.name for word in ("report", "figure")):
        monkeypatch.setattr("emlib.publish.run_report._figures", lambda run: ())


@pytest.fixture
def run(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "run")


def tables(root):
    return {path.name: path.read_bytes() for path in (root / "tables").iterdir()}


def merged(root):
    """Save corrected labels in which the ends of the strongest connection are one neurite; return both ids."""
    edges = pd.read_csv(root / "tables/graph_edges.csv")
    keep, gone = (int(edges[end].iloc[0]) for end in ("source", "target"))
    labels = np.load(root / "data/neurite_labels_i32_zyx.npy")
    labels[labels == gone] = keep
    Outputs(root).array("neurite_labels_corrected_i32_zyx", labels, "corrected", voxel_size_nm=(40, 8, 8))
    return keep, gone


def test_the_runs_own_labels_give_its_own_tables_byte_for_byte(run):
    before = tables(run)
    rebuilt = rebuild(RebuildSettings(), run, quiet=True)
    after = tables(run)
    assert {name: after[name] for name in before} == before
    assert set(after) - set(before) == {"graph_changes.csv", "node_changes.csv", "rebuild.json"}
    assert set(pd.read_csv(run / "tables/graph_changes.csv")["change"]) == {"kept"}
    assert set(pd.read_csv(run / "tables/node_changes.csv")["change"]) == {"same"}
    assert rebuilt.found["labels"]["voi"] == 0 and all(row[3] in (0, None) for row in rebuilt.found["scores"])
    assert rebuilt.found["scores"]
    again = rebuild(RebuildSettings(), run, quiet=True)
    assert again.kept == rebuilt.kept and tables(run) == after  # equal commands, equal bytes, no second copy


def test_a_merge_is_in_the_graph_the_comparison_and_the_report(run, monkeypatch):
    original = tables(run)
    keep, gone = merged(run)
    rebuilt = rebuild(RebuildSettings(), run, quiet=True)  # the corrected labels are the newest
    assert rebuilt.kept == run / "rebuilt/01_corrected"
    now = pd.read_csv(run / "tables/graph_edges.csv")
    assert not (now[["source", "target"]] == gone).to_numpy().any()
    nodes = pd.read_csv(run / "tables/node_changes.csv")
    rows = nodes[nodes["change"] == "merged"]
    assert rows[["before", "after"]].to_numpy().tolist() == [[min(keep, gone), keep], [max(keep, gone), keep]]
    changes = pd.read_csv(run / "tables/graph_changes.csv")
    inside = changes[changes["change"] == "inside"]
    assert inside["source"].tolist() == [keep] and f"{keep}>{gone}" in inside["edges_before"].iloc[0]
    assert changes["weight_after"].sum() == now["weight"].sum()
    assert rebuilt.found["labels"]["voi_merge"] > 0 == rebuilt.found["labels"]["voi_split"]
    report = (run / "report.html").read_text()
    for words in ("Wiring graph rebuilt from corrected labels", "Scores before and after", "Connections that changed"):
        assert words in report
    for name in ("Figure5_labels_before_after.png", "Figure6_graph_before_after.pdf"):
        assert (run / "figures" / name).read_bytes() == (rebuilt.kept / "figures" / name).read_bytes()
    # Nothing is lost: the run's own results are kept, and come back.
    own = run / "rebuilt/00_baseline/tables"
    assert all((own / name).read_bytes() == content for name, content in original.items())
    assert own_file(run, CANDIDATES).read_bytes() == original["synapse_candidates.csv"]
    monkeypatch.setattr("emlib.publish.run_report._figures", lambda run: ())
    rebuild(RebuildSettings(str(run / "data/neurite_labels_i32_zyx.npy")), run, quiet=True)
    assert {name: tables(run)[name] for name in original} == original
    assert (run / "rebuilt/02_baseline/report.html").is_file()


@pytest.mark.slow
def test_a_rebuild_is_on_record_and_cannot_be_taken_for_a_run(run):
    base = read_runs(run)[0]
    merged(run)
    rebuild(RebuildSettings(), run, quiet=True, command="as typed")
    row = read_runs(run)[0]
    assert (row["status"], row["command"]) == ("done", "as typed")
    assert row["settings"]["rebuild"]["run"] == base["run_id"] and row["summary"]["rebuild"]["graph"]["inside"] == 1
    with pytest.raises(UserError, match=f"no run of the pipeline but of rebuild_graph.*{base['run_id']}"):
        recall("last", run)
    assert recall(str(base["run_id"]), run).checksums is None
    rebuild(RebuildSettings(), run, quiet=True)  # still rests on the run, not on the rebuild
    assert read_runs(run)[0]["settings"]["rebuild"]["run"] == base["run_id"]


def test_another_run_sets_what_was_rebuilt_aside(run):
    base = read_runs(run)[0]
    rebuild(RebuildSettings(), run, quiet=True)
    settings = PipelineSettings(dataset="sample://phantom", cutout_xyz=(64, 64, 8), until="cutout")
    run_pipeline(settings, run, quiet=True)
    assert not (run / "rebuilt").exists()
    assert (run / f"rebuilt_of_{base['run_id']}/00_baseline/tables/graph_edges.csv").is_file()
    with pytest.raises(UserError, match="stopped after cutout and has no neurites"):
        rebuild(RebuildSettings(), run, quiet=True)


@pytest.mark.slow
def test_decisions_and_names_of_a_proofreader_are_honoured(run):
    from emlib.proofread import Edit, Session

    with Session.open(run, user="ada") as session:
        candidates = session.scene.candidates
        weak = candidates.index[candidates["score"] < 0.02][0]
        strong = candidates.index[0]
        neurite = int(candidates.loc[weak, "pre_id"])
        session.apply(Edit("confirm_synapse", {"synapse": weak}))
        session.apply(Edit("reject_synapse", {"synapse": strong}))
        session.apply(Edit("name_neurite", {"neurite": neurite, "name": "AVAL"}))
        session.save()
        confirmed, rejected = candidates.loc[weak], candidates.loc[strong]
    rebuild(RebuildSettings(), run, quiet=True)
    table = pd.read_csv(run / CANDIDATES)
    place = (table[["z", "y", "x"]] == confirmed[["z", "y", "x"]].to_numpy(int)).all(axis=1)
    assert table[place][["score", "decision"]].to_numpy().tolist() == [[1.0, "confirmed"]]
    assert not (table[["z", "y", "x"]] == rejected[["z", "y", "x"]].to_numpy(int)).all(axis=1).any()
    edges = pd.read_csv(run / "tables/graph_edges.csv")
    assert edges["weight"].sum() == (table["score"] >= 0.02).sum()
    assert ((edges["source"] == neurite) & (edges["target"] == int(confirmed["post_id"]))).any()
    stats = pd.read_csv(run / "tables/graph_node_stats.csv").set_index("node")
    assert stats.loc[neurite, "name"] == "AVAL"
    assert "AVAL" in (run / "tables/graph.graphml").read_text() and "AVAL" in (run / "report.html").read_text()
    outcomes = pd.read_csv(run / "tables/synapse_decisions.csv")
    assert outcomes["outcome"].tolist() == ["applied", "applied"] and set(outcomes["distance_nm"]) == {0}
    # A second time decisions are compared with what the run itself found, not with what was rebuilt.
    rebuild(RebuildSettings(), run, quiet=True)
    rebuild(RebuildSettings(synapse_edits="none"), run, quiet=True)
    assert (run / CANDIDATES).read_bytes() == own_file(run, CANDIDATES).read_bytes()


def test_without_the_em_as_read_figure_1_is_left_out(run):
    for name in ("em_cutout_u8_zyx", "em_preprocessed_f32_zyx", "boundaries_f16_zyx"):  # as --save_minimal leaves it
        (run / f"data/{name}.npy").unlink()
    rebuild(RebuildSettings(), run, quiet=True)
    assert not list((run / "figures").glob("Figure1*"))
    assert list((run / "rebuilt/00_baseline/figures").glob("Figure1*"))
    assert "Figure 1 needs the EM as read" in (run / "report.html").read_text()


def test_truth_of_a_file_scores_before_and_after(finished, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    em = np.load(finished / "data/em_cutout_u8_zyx.npy")[:8, :64, :64]
    np.save("em.npy", em)
    np.save("truth.npy", np.load(finished / "data/truth_neurites_i32_zyx.npy")[:8, :64, :64])
    size = {"voxel_size_nm": (40.0, 8.0, 8.0), "cutout_xyz": (64, 64, 8)}
    settings = PipelineSettings(dataset="em.npy", truth="truth.npy", simulate_misalignment_px=1.0, **size)
    run_pipeline(settings, "out", quiet=True)
    before = (tmp_path / "out/tables/scores.json").read_bytes()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")  # the paths of the run begin where it was started
    rebuild(RebuildSettings(), tmp_path / "out", quiet=True)
    assert (tmp_path / "out/tables/scores.json").read_bytes() == before
    (tmp_path / "truth.npy").unlink()
    rebuilt = rebuild(RebuildSettings(), tmp_path / "out", quiet=True)
    assert any("neurites are not scored" in line for line in rebuilt.run.warnings)


def test_the_newest_labels_are_the_default(tmp_path):
    names = ["neurite_labels_i32_zyx", "neurite_labels_corrected_i32_zyx", "neurite_labels_refined_rf_i32_zyx"]
    (tmp_path / "data").mkdir()
    for name in names:
        path = tmp_path / f"data/{name}.npy"
        path.touch()
        os.utime(path, (1000, 1000))
    assert newest_labels(tmp_path).stem == names[2]  # of equal age, the one that was made of the others
    os.utime(tmp_path / f"data/{names[1]}.npy", (2000, 2000))
    assert newest_labels(tmp_path).stem == names[1]


def test_the_script_says_what_changed(run, call_script):
    merged(run)
    done = call_script(SCRIPT, "--outdir", run)
    assert done.returncode == 0, done.stderr
    for words in ("(1 merged)", "VOI between the labels", "1 inside one neurite now", "against truth: VOI"):
        assert words in done.stdout
    assert done.stdout.splitlines()[-1] == f"written: {run / 'report.html'}"


def test_a_missing_run_is_one_line(tmp_path, call_script):
    done = call_script(SCRIPT, "--outdir", tmp_path / "nowhere")
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert "no such folder; run run_pipeline.py" in done.stderr and not (tmp_path / "nowhere").exists()


def test_bad_input_is_told_and_nothing_is_replaced(run, tmp_path):
    np.save(tmp_path / "small.npy", np.ones((12, 64, 64), np.int32))
    np.save(tmp_path / "float.npy", np.ones((12, 128, 128), np.float32))
    np.save(tmp_path / "negative.npy", np.full((12, 128, 128), -1, np.int32))
    before = tables(run)
    for name, words in (
        ("small", r"small.npy has shape \(12, 64, 64\) and the aligned volume of the run \(12, 128, 128\)"),
        ("float", "float.npy holds float32; labels must be integers"),
        ("negative", "holds the label -1; labels must not be negative"),
        ("absent", "no such file or folder"),
    ):
        with pytest.raises(UserError, match=words):
            rebuild(RebuildSettings(str(tmp_path / f"{name}.npy")), run, quiet=True)
        assert read_runs(run)[0]["status"] == "failed"
    with run_lock(run), pytest.raises(UserError, match="is writing to"):
        rebuild(RebuildSettings(), run, quiet=True)
    with pytest.raises(UserError, match="no such table"):
        rebuild(RebuildSettings(synapse_edits=str(tmp_path / "edits.csv")), run, quiet=True)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="there is no run in"):
        rebuild(RebuildSettings(), tmp_path / "empty", quiet=True)
    assert tables(run) == before and not (run / "rebuilt").exists()


def test_missing_or_replaced_em_is_told(run):
    sidecar = run / "data/em_aligned_float32_zyx.json"
    content = json.loads(sidecar.read_text())
    sidecar.write_text(json.dumps({**content, "seed": 1}))
    with pytest.raises(UserError, match="a later run has begun to replace it"):
        rebuild(RebuildSettings(), run, quiet=True)
    (run / "data/em_aligned_float32_zyx.npy").unlink()
    with pytest.raises(UserError, match=r"em_aligned_float32_zyx\.npy is missing, .* kept with --save_minimal too"):
        rebuild(RebuildSettings(), run, quiet=True)
