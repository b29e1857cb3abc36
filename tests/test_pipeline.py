"""run_pipeline.py as a user runs it: what it writes, what it says, and how it ends when something is wrong."""

import json
import os
import resource
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from emlib.volumes.tiff import write_tiff

ROOT = Path(__file__).resolve().parent.parent
SMALL = ["--dataset", "sample://phantom", "--cutout", "96", "96", "12"]
NO_NETWORK = {"INTERN_PROTOCOL": "http", "INTERN_HOST": "127.0.0.1:9", "INTERN_TOKEN": "public"}


@pytest.fixture(scope="session")
def finished(tmp_path_factory, run_script):
    """One small run on the phantom, as a user types it."""
    outdir = tmp_path_factory.mktemp("run") / "outputs"
    done = run_script("run_pipeline.py", *SMALL, "--outdir", outdir)
    assert done.returncode == 0, done.stderr
    return outdir, done


def row(outdir):
    with sqlite3.connect(outdir / "runs" / "pipeline_runs.sqlite") as db:
        db.row_factory = sqlite3.Row
        return dict(db.execute("SELECT * FROM runs ORDER BY started DESC, rowid DESC").fetchone())


def stack(shape=(12, 64, 64), seed=0):
    """A small uint8 stack with blobs, so that it has structure."""
    from scipy import ndimage

    noise = ndimage.gaussian_filter(np.random.default_rng(seed).random(shape), (1, 3, 3))
    return (255 * (noise - noise.min()) / np.ptp(noise)).astype(np.uint8)


def test_a_run_writes_what_the_documents_name(finished):
    outdir, done = finished
    expected = [
        "data/em_cutout_u8_zyx.npy",
        "data/em_preprocessed_f32_zyx.npy",
        "data/em_aligned_float32_zyx.npy",
        "data/boundaries_f16_zyx.npy",
        "data/neurite_labels_i32_zyx.npy",
        "tables/alignment_shifts.json",
        "tables/synapse_candidates.csv",
        "tables/graph_node_stats.csv",
        "tables/graph_edges.csv",
        "tables/neurite_stats.csv",
        "tables/graph.graphml",
        "tables/scores.json",
        "figures/Figure1_EM_preprocess_align_segment.png",
        "figures/Figure1_EM_preprocess_align_segment.pdf",
        "figures/Figure2_synapse_candidates_overlay.png",
        "figures/Figure2_synapse_candidates_overlay.pdf",
        "figures/Figure3_graph.png",
        "figures/Figure3_graph.pdf",
        "figures/Figure4_alignment_shifts.png",
        "figures/Figure4_alignment_shifts.pdf",
        "report.html",
    ]
    assert [name for name in expected if not (outdir / name).is_file()] == []
    assert not [path for path in outdir.rglob(".*") if path.is_file()], "temporary files are left"
    assert "neurites" in done.stdout and "VOI" in done.stdout and str(outdir / "report.html") in done.stdout


def test_arrays_keep_shape_range_and_provenance(finished):
    outdir, _ = finished
    aligned = np.load(outdir / "data/em_aligned_float32_zyx.npy")
    labels = np.load(outdir / "data/neurite_labels_i32_zyx.npy")
    assert aligned.shape == labels.shape == (12, 96, 96)
    assert aligned.dtype == np.float32 and 0 <= aligned.min() and aligned.max() <= 1
    assert labels.dtype == np.int32 and labels.min() >= 0
    sidecar = json.loads((outdir / "data/neurite_labels_i32_zyx.json").read_text())
    assert sidecar["voxel_size_nm"] == [40.0, 8.0, 8.0] and sidecar["seed"] == 0
    assert sidecar["synthetic"] and sidecar["source"]["uri"] == "sample://phantom"
    assert not {"command", "time", "git_commit"} & set(sidecar)


def test_tables_agree_with_each_other(finished):
    outdir, _ = finished
    candidates = pd.read_csv(outdir / "tables/synapse_candidates.csv")
    assert list(candidates.columns[:6]) == ["z", "y", "x", "pre_id", "post_id", "score"]
    edges = pd.read_csv(outdir / "tables/graph_edges.csv")
    kept = candidates[candidates["score"] >= 0.1]
    assert edges["weight"].sum() == len(kept)
    nodes = pd.read_csv(outdir / "tables/graph_node_stats.csv")
    assert set(nodes["node"]) == set(kept["pre_id"]) | set(kept["post_id"])
    assert {"in_degree", "out_degree", "pagerank"} <= set(nodes.columns)


def test_the_run_is_on_record(finished):
    outdir, _ = finished
    record = row(outdir)
    assert (record["status"], record["dataset"], record["cutout_xyz"]) == ("done", "sample://phantom", "[96, 96, 12]")
    assert set(json.loads(record["stage_seconds"])) == set(json.loads(record["stage_peak_mib"]))
    assert json.loads(record["summary"])["scores"]["segmentation"]["voi"] > 0
    assert (outdir / "runs" / f"{record['run_id']}_config.json").is_file()


def test_the_same_command_gives_the_same_bytes(finished, tmp_path, pipeline):
    outdir, _ = finished
    assert pipeline(*SMALL, "--outdir", tmp_path / "again")[0] == 0
    for folder in ("data", "tables"):
        names = sorted(path.name for path in (outdir / folder).iterdir())
        assert names == sorted(path.name for path in (tmp_path / "again" / folder).iterdir())
        for name in names:
            again = tmp_path / "again" / folder / name
            assert (outdir / folder / name).read_bytes() == again.read_bytes(), name


@pytest.mark.slow
def test_another_number_of_threads_gives_the_same_bytes(finished, tmp_path, run_script):
    outdir, _ = finished
    assert run_script("run_pipeline.py", *SMALL, "--threads", 1, "--outdir", tmp_path / "one").returncode == 0
    for name in ("data/neurite_labels_i32_zyx.npy", "tables/synapse_candidates.csv", "tables/graph_edges.csv"):
        assert (outdir / name).read_bytes() == (tmp_path / "one" / name).read_bytes(), name


def test_the_laptop_command_without_network_uses_the_phantom_and_says_so(tmp_path, pipeline, monkeypatch):
    for name, value in NO_NETWORK.items():
        monkeypatch.setenv(name, value)
    command = ["--preset", "safe8gb", "--save_minimal", "--aligned_dtype", "float16"]
    code, out, err = pipeline(*command, "--outdir", tmp_path)
    assert code == 0, err
    assert "THIS RUN USES THE SYNTHETIC PHANTOM INSTEAD" in err
    assert "SYNTHETIC PHANTOM, NOT REAL DATA" in out
    aligned = np.load(tmp_path / "data/em_aligned_float16_zyx.npy")
    assert aligned.shape == (48, 192, 192) and aligned.dtype == np.float16
    for absent in ("em_cutout_u8_zyx", "em_preprocessed_f32_zyx", "boundaries_f16_zyx"):
        assert not (tmp_path / f"data/{absent}.npy").exists()
    for sidecar in (tmp_path / "data").glob("*.json"):
        assert "SYNTHETIC" in json.loads(sidecar.read_text())["synthetic"]
    for folder in ("data", "tables"):
        assert "SYNTHETIC" in (tmp_path / folder / "SYNTHETIC_PHANTOM_NOT_REAL_DATA.txt").read_text()
    for name in ("alignment_shifts", "scores"):
        assert "SYNTHETIC" in json.loads((tmp_path / f"tables/{name}.json").read_text())["synthetic"]
    assert "SYNTHETIC PHANTOM" in (tmp_path / "tables/graph.graphml").read_text()
    record = row(tmp_path)
    assert record["dataset"] == "bossdb://mulcahy2022/1h_L1/em" and "SYNTHETIC" in record["synthetic"]
    assert "SYNTHETIC PHANTOM" in (tmp_path / "report.html").read_text()


def test_without_fallback_an_unreachable_network_is_an_error(tmp_path, call_script):
    done = call_script("run_pipeline.py", "--no-fallback", "--outdir", tmp_path, env=NO_NETWORK)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "cannot be reached" in done.stderr and row(tmp_path)["status"] == "failed"


def test_a_4xx_never_falls_back(tmp_path, call_script):
    code = (
        "import http.server, threading\n"
        "class Refuse(http.server.BaseHTTPRequestHandler):\n"
        "    def do_GET(self): self.send_error(404)\n"
        "    def log_message(self, *a): pass\n"
        "s = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Refuse)\n"
        "print(s.server_port, flush=True); s.serve_forever()"
    )
    server = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        host = f"127.0.0.1:{server.stdout.readline().strip()}"
        done = call_script("run_pipeline.py", "--outdir", tmp_path, env={**NO_NETWORK, "INTERN_HOST": host})
    finally:
        server.kill()
    assert done.returncode == 2 and "404" in done.stderr and "PHANTOM" not in done.stderr


def test_until_stops_after_a_stage(pipeline, tmp_path):
    code, _, _ = pipeline(*SMALL, "--until", "segment", "--outdir", tmp_path)
    assert code == 0
    assert (tmp_path / "data/neurite_labels_i32_zyx.npy").exists() and (tmp_path / "report.html").exists()
    assert not (tmp_path / "tables/synapse_candidates.csv").exists()
    code, _, _ = pipeline(*SMALL, "--until", "cutout", "--outdir", tmp_path / "first")
    assert code == 0 and [p.name for p in (tmp_path / "first/data").glob("*.npy")] == ["em_cutout_u8_zyx.npy"]


def test_enter_in_the_middle_with_labels_and_boundaries(pipeline, tmp_path):
    em = stack()
    write_tiff(tmp_path / "em.tif", em, (10, 10, 10))
    labels = np.ones(em.shape, np.int32)
    labels[:, :, 32:] = 7
    np.save(tmp_path / "labels.npy", labels)
    wall = np.zeros(em.shape, np.float32)
    wall[:, :, 30:34] = 1
    np.save(tmp_path / "wall.npy", wall)
    base = ["--dataset", tmp_path / "em.tif", "--quiet"]
    code, out, _ = pipeline(*base, "--labels", tmp_path / "labels.npy", "--outdir", tmp_path / "a")
    assert code == 0 and out == ""
    assert np.array_equal(np.load(tmp_path / "a/data/neurite_labels_i32_zyx.npy"), labels)
    assert not (tmp_path / "a/data/boundaries_f16_zyx.npy").exists()
    np.save(tmp_path / "labels.npy", np.where(labels == 7, 2**40, labels.astype(np.int64)))
    code, _, _ = pipeline(*base, "--labels", tmp_path / "labels.npy", "--outdir", tmp_path / "huge")
    assert code == 0, "an id of any size is an id"
    code, _, _ = pipeline(*base, "--boundaries", tmp_path / "wall.npy", "--outdir", tmp_path / "b")
    assert code == 0
    found = np.load(tmp_path / "b/data/neurite_labels_i32_zyx.npy")
    assert not set(found[:, :, :28].ravel()) & set(found[:, :, 36:].ravel())


def test_truth_scores_the_run_and_moves_with_the_sections(pipeline, tmp_path):
    """Labels given as truth and as segmentation alike move by the same shifts, so they must agree perfectly."""
    em = stack((10, 80, 80))
    write_tiff(tmp_path / "em.tif", em, (40, 8, 8))
    labels = np.arange(1, 101, dtype=np.uint8).reshape(10, 10).repeat(8, 0).repeat(8, 1)[None].repeat(10, 0)
    np.save(tmp_path / "truth.npy", labels)
    code, out, _ = pipeline(
        *["--dataset", tmp_path / "em.tif", "--labels", tmp_path / "truth.npy", "--truth", tmp_path / "truth.npy"],
        *["--cutout", 64, 64, 8, "--offset", 8, 4, 1, "--simulate-misalignment", 1.5, "--outdir", tmp_path / "out"],
    )
    assert code == 0 and "known shifts recovered" in out
    scores = json.loads((tmp_path / "out/tables/scores.json").read_text())
    assert scores["alignment"]["rms_px"] < 1.5
    moved = np.load(tmp_path / "out/data/neurite_labels_i32_zyx.npy")
    assert moved.shape == (8, 64, 64)


def test_alignment_is_skipped_when_near_isotropic_unless_asked(pipeline, tmp_path):
    write_tiff(tmp_path / "em.tif", stack(), (10, 10, 10))
    base = ["--dataset", tmp_path / "em.tif", "--until", "align", "--quiet"]
    for flags, skipped in (([], "near-isotropic"), (["--align"], None), (["--no-align"], "--no-align")):
        assert pipeline(*base, *flags, "--outdir", tmp_path / "out")[0] == 0
        record = json.loads((tmp_path / "out/tables/alignment_shifts.json").read_text())
        assert (record["skipped"] is None) if skipped is None else (skipped in record["skipped"])
        assert len(record["sections"]) == 12 and {"dy", "dx"} <= set(record["sections"][0])
        if skipped:
            pre = np.load(tmp_path / "out/data/em_preprocessed_f32_zyx.npy")
            assert np.array_equal(pre, np.load(tmp_path / "out/data/em_aligned_float32_zyx.npy"))


def test_files_of_an_earlier_run_are_named(pipeline, tmp_path):
    assert pipeline(*SMALL, "--until", "align", "--outdir", tmp_path)[0] == 0
    np.save(tmp_path / "em.npy", stack())
    real = ["--dataset", tmp_path / "em.npy", "--save_minimal", "--until", "align", "--outdir", tmp_path]
    code, _, err = pipeline(*real)
    assert code == 0 and "left from an earlier run" in err and "data/em_preprocessed_f32_zyx.npy" in err
    marks = [path.parent.name for path in tmp_path.rglob("SYNTHETIC*")]
    assert marks == ["data"], "the mark stays where an array of the phantom is left, and only there"


def test_seed_moves_the_cutout_and_offset_fixes_it(pipeline, tmp_path):
    write_tiff(tmp_path / "em.tif", stack((20, 200, 200)), (40, 8, 8))
    base = ["--dataset", tmp_path / "em.tif", "--cutout", 40, 40, 8, "--until", "cutout", "--quiet"]
    offsets = []
    for more in (["--seed", 1], ["--seed", 2], ["--offset", 3, 5, 7]):
        assert pipeline(*base, *more, "--outdir", tmp_path / "out")[0] == 0
        offsets.append(json.loads(row(tmp_path / "out")["offset_xyz"]))
    assert offsets[0] != offsets[1] and offsets[2] == [3, 5, 7]
    cut = np.load(tmp_path / "out/data/em_cutout_u8_zyx.npy")
    assert np.array_equal(cut, stack((20, 200, 200))[7:15, 5:45, 3:43])


def test_a_cutout_larger_than_the_volume_is_clipped_and_said(pipeline, tmp_path):
    write_tiff(tmp_path / "em.tif", stack(), (40, 8, 8))
    code, _, err = pipeline("--dataset", tmp_path / "em.tif", "--until", "cutout", "--outdir", tmp_path / "out")
    assert code == 0 and "reaches beyond the volume" in err and "64 64 12" in err
    assert "reaches beyond the volume" in (tmp_path / "out/report.html").read_text()


def test_an_assumed_voxel_size_is_said(pipeline, tmp_path):
    np.save(tmp_path / "em.npy", stack())
    code, _, err = pipeline("--dataset", tmp_path / "em.npy", "--outdir", tmp_path / "out")
    assert code == 0 and "assumed 40 × 8 × 8 nm" in err
    assert "The voxel size was assumed" in (tmp_path / "out/report.html").read_text()


def test_a_black_section_survives(pipeline, tmp_path):
    em = stack((12, 80, 80))
    em[5] = 0
    write_tiff(tmp_path / "em.tif", em, (40, 8, 8))
    flags = ("--dataset", tmp_path / "em.tif", "--outdir", tmp_path / "out", "--quiet")
    assert pipeline(*flags, figures=True)[0] == 0
    labels = np.load(tmp_path / "out/data/neurite_labels_i32_zyx.npy")
    assert not labels[5].any() and labels[4].any()


def _bad_inputs(folder):
    """Pairs of arguments and what the one line must say."""
    em = stack()
    np.save(folder / "em.npy", em)
    np.save(folder / "flat.npy", np.full((4, 8, 8), 9, np.uint8))
    nan = em.astype(np.float32)
    nan[3, 4, 5] = np.nan
    np.save(folder / "nan.npy", nan)
    np.save(folder / "plane.npy", em[0])
    np.save(folder / "object.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    np.save(folder / "short.npy", em[:5])
    np.save(folder / "float_labels.npy", em.astype(np.float32))
    (folder / "empty").mkdir()
    (folder / "file").write_text("x")
    (folder / "bad.tif").write_bytes(b"II*\x00nothing")
    good = ["--dataset", folder / "em.npy"]
    return [
        (["--dataset", folder / "absent.tif"], "no such file or folder"),
        (["--dataset", folder / "empty"], "empty"),
        (["--dataset", folder / "bad.tif"], "bad.tif"),
        (["--dataset", folder / "flat.npy"], "single grey value 9"),
        (["--dataset", folder / "nan.npy"], "NaN"),
        (["--dataset", folder / "plane.npy"], "plane.npy"),
        (["--dataset", folder / "object.npy"], "object"),
        (["--dataset", "ftp://x/y"], "unknown scheme"),
        (["--dataset", "sample://mouse"], "no such sample"),
        (["--dataset", "bossdb://only"], "bossdb://"),
        ([*good, "--cutout", 0, 8, 8], "not positive"),
        ([*good, "--offset", 900, 0, 0], "outside"),
        ([*good, "--preset", "huge"], "invalid choice: 'huge'"),
        ([*good, "--voxel_size", 0, 1, 1], "must be above 0"),
        ([*good, "--voxel_size", "nan", 1, 1], "must be above 0"),
        ([*good, "--outdir", folder / "file"], "is a file; name a folder"),
        ([*good, "--outdir", folder / "file" / "sub"], "cannot write"),
        ([*good, "--set", "segment.multicut.bies=1"], "there is no 'bies'"),
        ([*good, "--truth", folder / "short.npy"], "short.npy"),
        ([*good, "--truth", folder / "float_labels.npy"], "must be integers"),
        ([*good, "--labels", folder / "absent.npy"], "no such file"),
        ([*good, "--boundaries", folder / "short.npy"], "short.npy"),
    ]


def test_bad_input_is_one_line_and_exit_code_2(pipeline, tmp_path):
    for argv, expected in _bad_inputs(tmp_path):
        more = [] if "--outdir" in argv else ["--outdir", tmp_path / "out"]
        code, out, err = pipeline(*argv, *more, "--quiet")
        line = [text for text in err.splitlines() if not text.startswith("warning: ")]
        assert code == 2, (argv, err)
        assert len(line) == 1 and expected in line[0] and "Traceback" not in err, (argv, err)
        assert out == ""


def _limit_file_size():
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))


def test_a_full_disk_leaves_no_half_file(tmp_path):
    """A limit on the size of files stands for the disk that is full."""
    command = [sys.executable, str(ROOT / "run_pipeline.py"), *SMALL, "--outdir", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, preexec_fn=_limit_file_size, cwd=ROOT)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "cannot write" in done.stderr
    assert not list((tmp_path / "data").glob("*.npy")) and not [p for p in tmp_path.rglob(".*") if p.is_file()]


def test_interrupt_ends_in_one_line_and_on_record(tmp_path):
    command = [
        sys.executable,
        str(ROOT / "run_pipeline.py"),
        "--dataset",
        "sample://phantom",
        "--outdir",
        str(tmp_path),
    ]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    deadline = time.monotonic() + 60
    while not list((tmp_path / "runs").glob("*_config.json")) if (tmp_path / "runs").exists() else True:
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.05)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and err.startswith("interrupted: ") and err.count("\n") == 1, err
    assert row(tmp_path)["status"] == "interrupted"
    assert not [path for path in tmp_path.rglob(".*") if path.is_file()]


def test_help_and_version(run_script):
    shown = run_script("run_pipeline.py", "--help")
    assert shown.returncode == 0 and "--save_minimal" in shown.stdout
    assert run_script("run_pipeline.py", "--version").stdout.startswith("emlib ")


def test_list_settings(call_script):
    lines = call_script("run_pipeline.py", "--list_settings", "--min_score", "0.3").stdout.splitlines()
    assert "graph.min_score=0.3" in lines and any(line.startswith("segment.multicut.bias=") for line in lines)


@pytest.mark.slow
def test_fetch_data_writes_a_phantom_that_the_pipeline_scores(tmp_path, call_script):
    folder = tmp_path / "phantom"
    done = call_script("fetch_data.py", "phantom", "--shape", 80, 72, 10, "--voxel_size", 40, 8, 8, "--output", folder)
    assert done.returncode == 0, done.stderr
    command = ["--dataset", folder / "em_u8_zyx.tif", "--truth", folder / "neurites_i32_zyx.tif", "--outdir", tmp_path]
    done = call_script("run_pipeline.py", *command)
    assert done.returncode == 0 and "against truth: VOI" in done.stdout, done.stderr
    assert np.load(tmp_path / "data/neurite_labels_i32_zyx.npy").shape == (10, 72, 80)
    assert json.loads((tmp_path / "data/neurite_labels_i32_zyx.json").read_text())["voxel_size_nm"] == [40, 8, 8]
    wrong = call_script("fetch_data.py", "phantom", "--shape", 4, 4, 4, "--output", folder)
    assert wrong.returncode == 2 and wrong.stderr.count("\n") == 1


@pytest.fixture(scope="session")
def phantom_files(tmp_path_factory):
    """A phantom on disk: EM, true neurites and true synapses in the frame of the EM."""
    from emlib.volumes.phantom import PhantomSettings
    from emlib.volumes.phantom_files import write_phantom

    folder = tmp_path_factory.mktemp("phantom")
    write_phantom(PhantomSettings(shape=(24, 160, 160), seed=1, synapses_per_um3=8, jitter_px=0), folder)
    return folder


def evaluated(call_script, kind, run, outdir, *more):
    """Scores that evaluate.py gives for the tables and labels of a run."""
    pair = {
        "synapses": ("synapse_candidates", "truth_synapses"),
        "graph": ("graph_edges", "truth_edges"),
    }[kind]
    tables = [
        item
        for flag, name in zip(("--pred", "--truth"), pair, strict=True)
        for item in (flag, run / f"tables/{name}.csv")
    ]
    done = call_script("evaluate.py", kind, *tables, "--outdir", outdir, *more)
    assert done.returncode == 0, done.stderr
    scores = json.loads((outdir / f"tables/evaluate_{kind}.json").read_text())
    return {name: scores[name] for name in scores if name not in ("inputs", "settings", "versions")}


def test_a_run_scores_as_evaluate_does(tmp_path, pipeline, call_script):
    """On the artefacts of a run on the phantom, evaluate.py gives the figures of scores.json."""
    run = tmp_path / "run"
    command = ["--dataset", "sample://phantom", "--cutout", 96, 96, 16, "--outdir", run]
    code, out, err = pipeline(*command)
    assert code == 0, err
    scores = json.loads((run / "tables/scores.json").read_text())
    labels = ["--pred_labels", run / "data/neurite_labels_i32_zyx.npy"]
    labels += ["--truth_labels", run / "data/truth_neurites_i32_zyx.npy"]
    assert evaluated(call_script, "synapses", run, tmp_path, *labels, "--min_score", "0.10") == scores["synapses"]
    assert evaluated(call_script, "graph", run, tmp_path, *labels) == scores["graph"]
    assert scores["synapses"]["truth"] == scores["graph"]["truth"] == 1 and scores["synapses"]["predicted"] > 0
    line = next(line for line in out.splitlines() if line.startswith("graph: edge precision"))
    assert f"F1 {scores['graph']['f1']:.2f} (chance" in line
    report = (run / "report.html").read_text()
    assert "Graph against truth" in report and "Synapses against truth" in report


def test_true_synapses_of_a_file_score_synapses_and_graph(pipeline, phantom_files, tmp_path, call_script):
    """With the true neurites for a segmentation, a synapse found at the right place has the right neurites."""
    truth = phantom_files / "neurites_i32_zyx.tif"
    command = ["--dataset", phantom_files / "em_u8_zyx.tif", "--labels", truth, "--truth", truth, "--no_align"]
    run = tmp_path / "run"
    table = ["--truth_synapses", phantom_files / "synapses.csv", "--min_score", 0.01]
    code, out, err = pipeline(*command, *table, "--cutout", 160, 160, 24, "--outdir", run)
    assert code == 0, err
    scores = json.loads((run / "tables/scores.json").read_text())
    true = pd.read_csv(phantom_files / "synapses.csv")
    assert scores["synapses"]["truth"] == len(true) > 3 and scores["segmentation"]["voi"] == 0
    place = {name: scores["synapses"][name] for name in ("precision", "recall", "f1")}
    assert scores["synapses"]["partners_unordered"] == place
    assert place["f1"] > 0.4 > 2 * scores["synapses"]["chance"]["f1"]
    assert scores["graph"]["undirected"]["f1"] > 0.4 > 2 * scores["graph"]["chance"]["f1"]
    assert scores["graph"]["truth"] == len(true[["pre_id", "post_id"]].drop_duplicates())
    assert "graph: edge precision" in out and "synapses: precision" in out
    labels = ["--pred_labels", run / "data/neurite_labels_i32_zyx.npy", "--truth_labels", truth]
    assert evaluated(call_script, "synapses", run, tmp_path, *labels, "--min_score", 0.01) == scores["synapses"]
    assert evaluated(call_script, "graph", run, tmp_path, *labels) == scores["graph"]


def test_true_synapses_are_cut_and_moved_like_the_truth(pipeline, phantom_files, tmp_path):
    """Those in the box remain, less the offset, and lie on the same place of the aligned labels."""
    true = pd.read_csv(phantom_files / "synapses.csv")
    offset, size = np.array([2, 40, 10]), np.array([20, 110, 140])
    code, _, err = pipeline(
        *["--dataset", phantom_files / "em_u8_zyx.tif", "--labels", phantom_files / "neurites_i32_zyx.tif"],
        *["--truth_synapses", phantom_files / "synapses.csv", "--cutout", *size[::-1], "--offset", *offset[::-1]],
        *["--align", "--simulate_misalignment", 2, "--outdir", tmp_path],
    )
    assert code == 0, err
    moved = pd.read_csv(tmp_path / "tables/truth_synapses.csv")
    places = true[["z", "y", "x"]].to_numpy() - offset
    inside = ((places > -0.5) & (places < size - 0.5)).all(axis=1)
    assert 0 < inside.sum() < len(true)
    assert moved["pre_id"].tolist() == true["pre_id"][inside].tolist()
    found, start = json.loads((tmp_path / "tables/alignment_shifts.json").read_text())["sections"], places[inside]
    from emlib.stages.align import simulate_misalignment

    added = simulate_misalignment(np.zeros(size, np.uint8), 2, 0)[1]
    for row, (z, y, x) in zip(moved.itertuples(), start, strict=True):
        at = round(z)
        assert row.z == pytest.approx(z, abs=1e-3)
        assert row.y == pytest.approx(y + added["dy"][at] + found[at]["dy"], abs=1e-2)
        assert row.x == pytest.approx(x + added["dx"][at] + found[at]["dx"], abs=1e-2)
    scores = json.loads((tmp_path / "tables/scores.json").read_text())
    assert "partners" not in scores["synapses"] and "graph" not in scores and "segmentation" not in scores


@pytest.mark.slow
def test_without_partners_or_true_labels_only_places_are_scored(pipeline, phantom_files, tmp_path):
    truth = phantom_files / "neurites_i32_zyx.tif"
    places = pd.read_csv(phantom_files / "synapses.csv")[["z", "y", "x"]]
    places.to_csv(tmp_path / "places.csv", index=False)
    command = ["--dataset", phantom_files / "em_u8_zyx.tif", "--labels", truth, "--no_align", "--quiet"]
    code, _, err = pipeline(
        *command, "--truth_synapses", tmp_path / "places.csv", "--truth", truth, "--outdir", tmp_path
    )
    scores = json.loads((tmp_path / "tables/scores.json").read_text())
    assert code == 0 and scores["synapses"]["truth"] == len(places) and scores["segmentation"]["voi"] == 0, err
    assert "partners" not in scores["synapses"] and "graph" not in scores
    assert not (tmp_path / "tables/truth_edges.csv").exists()
    (places + 10_000).assign(pre_id=1, post_id=2).to_csv(tmp_path / "far.csv", index=False)
    code, _, err = pipeline(*command, "--truth_synapses", tmp_path / "far.csv", "--outdir", tmp_path / "far")
    assert code == 0 and "no true synapse lies in this cutout" in err
    places.assign(pre_id=77_777, post_id=88_888).to_csv(tmp_path / "alien.csv", index=False)
    alien = ["--truth_synapses", tmp_path / "alien.csv", "--truth", truth]
    code, _, err = pipeline(*command, *alien, "--outdir", tmp_path / "alien")
    assert code == 0 and "no neurite that the true synapses name is in the true labels" in err
    assert "graph" not in json.loads((tmp_path / "alien/tables/scores.json").read_text())


def test_a_table_of_true_synapses_is_checked_before_the_work(pipeline, tmp_path):
    np.save(tmp_path / "em.npy", stack())
    cases = {
        "absent": (None, "no such table"),
        "columns": ("z,y\n1,2\n", "lacks the column x"),
        "half": ("z,y,x,pre_id\n1,2,3,4\n", "lacks the column post_id"),
        "nan": ("z,y,x\n1,,3\n", "line 2: y is"),
        "empty": ("z,y,x\n", "holds no synapse"),
    }
    for name, (content, expected) in cases.items():
        if content:
            (tmp_path / f"{name}.csv").write_text(content)
        out = tmp_path / f"out_{name}"
        flags = ["--dataset", tmp_path / "em.npy", "--truth_synapses", tmp_path / f"{name}.csv", "--outdir", out]
        code, _, err = pipeline(*flags)
        assert code == 2 and err.count("\n") == 1 and expected in err, (name, err)
        assert not list((out / "data").glob("*.npy"))


@pytest.mark.slow
def test_the_fib25_command(real_data, tmp_path, run_script):
    folder = real_data / "fib25-medulla"
    command = ["--dataset", folder / "em_u8_zyx.tif", "--voxel_size", 10, 10, 10, "--cutout", 250, 250, 250]
    done = run_script(
        "run_pipeline.py", *command, "--truth", folder / "neurites_u16_zyx.tif", "--save_minimal", "--outdir", tmp_path
    )
    assert done.returncode == 0, done.stderr
    scores = json.loads((tmp_path / "tables/scores.json").read_text())["segmentation"]
    assert scores["voi"] <= 3.1 and scores["arand"] <= 0.31
    assert row(tmp_path)["synthetic"] is None


if os.name == "nt":  # limits of file size and interrupts work otherwise there
    del test_a_full_disk_leaves_no_half_file, test_interrupt_ends_in_one_line_and_on_record
