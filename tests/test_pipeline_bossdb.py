"""run_pipeline.py on a Boss server: what was downloaded stays, coarser levels, listings, annotations."""

import hashlib
import json

import numpy as np
import pytest
from boss_server import ARRAY, TOKEN, channel, running

from emlib.pipeline import PipelineSettings
from emlib.pipeline.dependence import dependence

CUTOUT = ["--cutout", "40", "30", "8", "--offset", "0", "0", "0", "--until", "preprocess"]


@pytest.fixture
def call(call_script, tmp_path):
    """Return a function that runs the pipeline against a server on loopback, and that server."""
    with running() as server:
        known = {"INTERN_PROTOCOL": "http", "INTERN_HOST": server.host, "INTERN_TOKEN": TOKEN, "HOME": str(tmp_path)}
        yield lambda *args: call_script("run_pipeline.py", *args, "--outdir", tmp_path / "out", env=known), server


def sidecar(folder):
    return json.loads((folder / "out" / "data" / "em_cutout_u8_zyx.json").read_text())


def test_a_second_run_downloads_no_voxel_again(call, tmp_path):
    run, server = call
    first = run("--dataset", "bossdb://lab/brain/em", *CUTOUT)
    assert first.returncode == 0, first.stderr
    fetched = [path for path in server.paths if "/cutout/" in path]
    em = np.load(tmp_path / "out" / "data" / "em_cutout_u8_zyx.npy")
    server.paths.clear()
    assert run("--dataset", "bossdb://lab/brain/em", *CUTOUT).returncode == 0
    assert fetched and not [path for path in server.paths if "/cutout/" in path]
    assert np.array_equal(em, np.load(tmp_path / "out" / "data" / "em_cutout_u8_zyx.npy"))
    assert sidecar(tmp_path)["voxel_size_nm"] == [50, 4.2, 3.5]


@pytest.mark.slow
def test_refresh_fetches_again_what_has_changed(call, tmp_path):
    run, server = call
    assert run("--dataset", "bossdb://lab/brain/em", *CUTOUT).returncode == 0
    before = sidecar(tmp_path)["source"]["sha256"]
    assert before == hashlib.sha256(np.ascontiguousarray(ARRAY[:8])[:, :30, :40].tobytes()).hexdigest()
    server.channels["lab/brain/em"] = (channel("em"), 255 - ARRAY)
    assert run("--dataset", "bossdb://lab/brain/em", *CUTOUT).returncode == 0
    assert sidecar(tmp_path)["source"]["sha256"] == before, "what is kept is not compared with the server"
    assert run("--dataset", "bossdb://lab/brain/em", *CUTOUT, "--refresh").returncode == 0
    assert np.array_equal(np.load(tmp_path / "out/data/em_cutout_u8_zyx.npy"), 255 - ARRAY[:8, :30, :40])


def test_a_coarser_level(call, tmp_path):
    run, _ = call
    size = ["--cutout", "20", "15", "8", "--offset", "0", "0", "0", "--until", "preprocess"]
    done = run("--dataset", "bossdb://lab/brain/em", "--resolution", "1", *size)
    assert done.returncode == 0, done.stderr
    assert sidecar(tmp_path)["voxel_size_nm"] == [50, 8.4, 7]
    wrong = run("--dataset", "bossdb://lab/brain/em", "--resolution", "9", *size)
    assert wrong.returncode == 2 and wrong.stderr.count("\n") == 1 and "0" in wrong.stderr and "2" in wrong.stderr


def test_a_listing(call):
    run, _ = call
    done = run("--list", "bossdb://lab")
    assert done.returncode == 0, done.stderr
    assert "bossdb://lab/brain/em" in done.stdout and "uint64" in done.stdout


def test_annotations_are_no_em(call):
    run, _ = call
    refused = run("--dataset", "bossdb://lab/brain/neurites", *CUTOUT)
    assert refused.returncode == 2 and "annotation" in refused.stderr and refused.stderr.count("\n") == 1


def test_a_resolution_is_for_bossdb_alone(pipeline, tmp_path):
    np.save(tmp_path / "em.npy", ARRAY)
    for dataset in (str(tmp_path / "em.npy"), "sample://phantom"):
        code, out, err = pipeline("--dataset", dataset, "--resolution", "2", "--outdir", tmp_path / "out")
        assert code == 2 and out == "" and err.count("\n") == 1
        assert "--resolution 2 is for bossdb:// and precomputed:// alone and" in err
        assert f"{dataset} is read as it is; leave it out" in err
    assert not (tmp_path / "out").exists()
    flags = ["--resolution", "0", "--dataset", tmp_path / "em.npy", "--until", "cutout", "--outdir", tmp_path / "out"]
    assert pipeline(*flags)[0] == 0


def test_a_resolution_may_be_that_of_labels(call, tmp_path):
    run, server = call
    np.save(tmp_path / "em.npy", ARRAY[:, ::2, ::2])
    server.channels["lab/brain/neurites"] = (channel("neurites", "uint64", "annotation"), ARRAY)
    flags = ["--dataset", tmp_path / "em.npy", "--voxel_size", 50, 8.4, 7, "--labels", "bossdb://lab/brain/neurites"]
    done = run(*flags, "--resolution", "1", "--until", "segment", "--quiet")
    assert done.returncode == 0, done.stderr
    assert [path.split("/")[6] for path in server.paths if "/cutout/" in path] == ["1"] * 3


@pytest.mark.parametrize("stage", ["cutout", "segment"])
def test_a_stage_depends_on_the_server_and_never_on_the_token(stage, monkeypatch, tmp_path):
    """Two servers may have a channel of the same name."""
    uri = "bossdb://lab/brain/em"

    def depends(host, token=TOKEN, protocol="http"):
        path = tmp_path / "my.cfg"
        path.write_text(f"[Default]\nprotocol = {protocol}\nhost = {host}\ntoken = {token}\n")
        return dependence(PipelineSettings(dataset=uri, labels_from=uri, boss_config=str(path)), stage)

    one = depends("one.org")
    assert one[f"the server of {uri}"] == "http://one.org" and TOKEN not in json.dumps(one)
    assert one == depends("one.org", "another-token")
    assert one != depends("two.org") and one != depends("one.org", protocol="https")
    for name, value in (("PROTOCOL", "http"), ("HOST", "one.org"), ("TOKEN", TOKEN)):
        monkeypatch.setenv(f"INTERN_{name}", value)
    assert dependence(PipelineSettings(dataset=uri, labels_from=uri), stage) == one, "wherever the host was named"
    monkeypatch.delenv("INTERN_HOST")
    assert dependence(PipelineSettings(dataset=uri, labels_from=uri), stage)[f"the server of {uri}"] == ""


@pytest.mark.slow
def test_a_run_is_not_resumed_with_the_voxels_of_another_server(call, run_script, tmp_path):
    run, _ = call
    flags = ["--dataset", "bossdb://lab/brain/em", *CUTOUT]
    done = run(*flags, "--boundaries", tmp_path / "absent.npy", "--until", "boundaries", "--quiet")
    assert done.returncode == 2 and "absent.npy" in done.stderr
    with running() as second:
        second.channels["lab/brain/em"] = (channel("em"), 255 - ARRAY)
        known = {"INTERN_PROTOCOL": "http", "INTERN_HOST": second.host, "INTERN_TOKEN": TOKEN, "HOME": str(tmp_path)}
        done = run_script("run_pipeline.py", *flags, "--resume", "--outdir", tmp_path / "out", env=known)
    assert done.returncode == 0, done.stderr
    assert "--resume: the server of bossdb://lab/brain/em has changed (http://127.0.0.1:" in done.stderr
    assert np.array_equal(np.load(tmp_path / "out/data/em_cutout_u8_zyx.npy"), 255 - ARRAY[:8, :30, :40])
