"""Planned memory against measured peaks, what is free, and the preset for small machines under a limit."""

import json
import os
import resource
import runpy
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from emlib.errors import UserError
from emlib.pipeline import PipelineSettings, memory, plan_memory
from emlib.pipeline.memory import MemoryPlan, free_bytes, planned_bytes
from emlib.runs import cli

ROOT = Path(__file__).resolve().parent.parent
MIB, GIB = 2**20, 2**30
ANISOTROPIC, ISOTROPIC = (50, 4.6, 4.6), (10, 10, 10)
PHANTOM = PipelineSettings(dataset="sample://phantom")
OWN = PipelineSettings(dataset="em.tif")
AWAY = PipelineSettings(dataset="bossdb://a/b/c")  # out of reach, so that the phantom takes its place
CONTACTS = replace(OWN, edge_model="edge_model.npz")
NETWORK = replace(OWN, boundaries_from="experts", model_path="m.pth", until="boundaries")  # with three maps
BASELINE = replace(OWN, stages=replace(OWN.stages, segment=replace(OWN.stages.segment, segmenter="watershed")))
MEASURED = [  # (Z, Y, X), voxel size, settings, threads, peak MiB of the whole command
    ((20, 128, 128), ANISOTROPIC, OWN, 2, 260),
    ((20, 512, 512), ANISOTROPIC, OWN, 2, 483),
    ((20, 512, 512), ANISOTROPIC, OWN, 8, 520),
    ((20, 1024, 1024), ANISOTROPIC, OWN, 2, 1280),
    ((20, 1024, 1024), ANISOTROPIC, BASELINE, 2, 866),
    ((64, 128, 128), ISOTROPIC, OWN, 2, 277),
    ((250, 250, 250), ISOTROPIC, OWN, 2, 797),
    ((250, 250, 250), ISOTROPIC, BASELINE, 2, 549),
    ((64, 512, 512), ISOTROPIC, OWN, 2, 1064),
    ((32, 1024, 1024), ISOTROPIC, OWN, 2, 1645),
    ((125, 250, 250), ISOTROPIC, OWN, 2, 604),
    ((32, 512, 512), ISOTROPIC, OWN, 2, 558),
    ((48, 192, 192), (40, 8, 8), PHANTOM, 2, 372),
    ((48, 192, 192), (40, 8, 8), AWAY, 2, 375),
    ((64, 256, 256), (40, 8, 8), AWAY, 2, 570),
    ((64, 256, 256), (40, 8, 8), PHANTOM, 2, 551),
    ((32, 512, 512), (40, 8, 8), PHANTOM, 2, 881),
    ((64, 128, 128), ISOTROPIC, CONTACTS, 2, 333),
    ((125, 250, 250), ISOTROPIC, CONTACTS, 2, 634),
    ((64, 250, 250), ISOTROPIC, NETWORK, 1, 488),
    # Held out: nothing was fitted to these.
    ((180, 180, 180), ISOTROPIC, OWN, 2, 472),
    ((100, 220, 200), ISOTROPIC, OWN, 2, 400),
    ((20, 384, 384), ANISOTROPIC, OWN, 2, 364),
]


@pytest.mark.parametrize(("shape", "voxel", "settings", "threads", "peak"), MEASURED)
def test_the_plan_meets_what_was_measured(shape, voxel, settings, threads, peak):
    assert planned_bytes(shape, voxel, settings, threads=threads) / MIB == pytest.approx(peak, rel=0.1)


@pytest.mark.parametrize("voxel", [ANISOTROPIC, ISOTROPIC])
@pytest.mark.parametrize("until", ["cutout", "preprocess", "align", "boundaries", "segment", "publish"])
def test_more_voxels_take_more(voxel, until):
    settings = replace(OWN, until=until)
    sizes = [planned_bytes((z, s, s), voxel, settings, threads=2) for z in (8, 64, 512) for s in (64, 512, 4096)]
    assert sizes[0] < sizes[1] < sizes[2] < sizes[5] < sizes[8]
    whole = planned_bytes((64, 512, 512), voxel, OWN, threads=2)
    assert planned_bytes((64, 512, 512), voxel, settings, threads=2) <= whole


def test_what_costs_more_is_planned_higher():
    shape = (64, 512, 512)
    usual = planned_bytes(shape, ISOTROPIC, OWN, threads=2)
    assert planned_bytes(shape, ISOTROPIC, replace(OWN, truth="t.tif"), threads=2) > usual
    assert planned_bytes(shape, ISOTROPIC, replace(OWN, labels_from="l.tif"), threads=2) < usual
    smaller = (125, 250, 250)  # of larger ones the boundaries are dearest
    assert planned_bytes(smaller, ISOTROPIC, CONTACTS) > planned_bytes(smaller, ISOTROPIC, OWN)
    network = replace(OWN, model_path="m.pth", synapses_from="experts")
    assert planned_bytes(shape, ISOTROPIC, network, threads=2) > usual
    assert planned_bytes(shape, ISOTROPIC, replace(network, labels_from="l.tif"), threads=2) > usual / 2
    assert planned_bytes(shape, ISOTROPIC, replace(network, until="align")) < usual
    early = replace(OWN, until="cutout")
    assert planned_bytes(shape, ISOTROPIC, early, itemsize=8) > 2 * planned_bytes(shape, ISOTROPIC, early) / 1.5


def test_a_run_that_may_end_on_the_phantom_is_planned_for_it():
    """The dearer of the two: 293 MiB were planned for 192 x 192 x 48 of BossDB, and 375 measured on the phantom."""
    shape, voxel, away = (48, 192, 192), (40, 8, 8), PipelineSettings(dataset="bossdb://a/b/c")
    assert planned_bytes(shape, voxel, away, threads=2) == planned_bytes(shape, voxel, PHANTOM, threads=2)
    own = planned_bytes(shape, voxel, OWN, threads=2)
    assert planned_bytes(shape, voxel, replace(away, fallback=False), threads=2) == own < 300 * MIB
    truth = replace(away, truth="t.tif")
    assert planned_bytes(shape, voxel, truth, threads=2) > planned_bytes(shape, voxel, away, threads=2)


def test_a_refusal_for_the_phantoms_sake_names_no_fallback(monkeypatch):
    monkeypatch.setattr(memory, "free_bytes", lambda: 330 * MIB)
    settings = PipelineSettings(dataset="bossdb://a/b/c", cutout_xyz=(192, 192, 48))
    line = r"take --cutout 128 128 48 or less, or --no_fallback, as it is 0\.3 GiB without the phantom, or run it all"
    with pytest.raises(UserError, match=line):
        plan_memory(settings).check()
    plan_memory(replace(settings, fallback=False)).check()
    monkeypatch.setattr(memory, "free_bytes", lambda: 250 * MIB)
    for chosen in (settings, replace(settings, dataset="sample://phantom")):
        with pytest.raises(UserError) as refusal:
            plan_memory(chosen).check()
        assert "fallback" not in str(refusal.value)


def test_the_shape_is_that_of_the_volume_where_the_cutout_is_larger(tmp_path):
    np.save(tmp_path / "em.npy", np.zeros((8, 40, 30), np.float32))
    settings = PipelineSettings(dataset=str(tmp_path / "em.npy"), cutout_xyz=(10**6, 10**6, 10**6))
    plan = plan_memory(settings)
    assert plan.shape == (8, 40, 30) and plan.needed < 300 * MIB
    assert plan_memory(replace(settings, offset_xyz=(10, 0, 0))).shape == (8, 40, 20)
    assert plan_memory(replace(settings, dataset=str(tmp_path / "absent.npy"))) is None
    assert plan_memory(replace(settings, dataset="bossdb://a/b/c", cutout_xyz=(64, 32, 16))).shape == (16, 32, 64)


def test_a_refusal_names_the_flag_and_a_size_that_fits(monkeypatch):
    monkeypatch.setattr(memory, "free_bytes", lambda: 1 * GIB)
    settings = PipelineSettings(dataset="bossdb://a/b/c", cutout_xyz=(2048, 1024, 64), fallback=False)
    plan = plan_memory(settings)
    with pytest.raises(UserError, match=r"--cutout \d+ \d+ 64 or less, or run it all the same with --force") as refusal:
        plan.check()
    assert "a cutout of 2048 1024 64 (x y z) is planned to take 6." in str(refusal.value)
    x, y, _ = plan.fitting_xyz
    assert abs(x - 2 * y) <= 32, "the proportions are kept, in steps of 16"
    plan_memory(replace(settings, cutout_xyz=plan.fitting_xyz)).check()
    with pytest.raises(UserError):
        plan_memory(replace(settings, cutout_xyz=(x + 64, y + 32, 64))).check()
    plan.check(force=True)


def test_where_nothing_fits_other_programs_must_go():
    with pytest.raises(UserError, match="close other programs, or run it all the same with --force"):
        MemoryPlan(GIB, 10 * MIB, (64, 64, 64), None).check()


@pytest.fixture
def main(monkeypatch):
    script = runpy.run_path(str(ROOT / "run_pipeline.py"))

    def call(*argv):
        argv = [str(a) for a in argv]
        monkeypatch.setattr(sys, "argv", ["run_pipeline.py", *argv])
        return cli.run(lambda: script["main"](argv))

    return call


def test_a_run_says_its_plan_and_does_not_start_what_cannot_fit(main, monkeypatch, tmp_path, capsys):
    np.save(tmp_path / "em.npy", np.random.default_rng(0).integers(0, 255, (8, 48, 48), dtype=np.uint8))
    flags = ["--dataset", tmp_path / "em.npy", "--until", "cutout", "--outdir", tmp_path / "out"]
    monkeypatch.setattr(memory, "free_bytes", lambda: 100 * MIB)
    assert main(*flags) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and "0.1 GiB are free" in err and not (tmp_path / "out").exists()
    assert main(*flags, "--force") == 0
    assert capsys.readouterr().out.startswith("planned memory 0.2 GiB of 0.1 GiB free\n")


def test_the_group_of_the_process_bounds_what_is_free(tmp_path, monkeypatch):
    """A container or batch job with 1 GiB, of which 300 MiB are taken and 100 MiB of these only cached."""
    group = tmp_path / "cgroup" / "job" / "step"
    group.mkdir(parents=True)
    (tmp_path / "self").write_text("1:cpu:/x\n0::/job/step\n")
    for name, content in (("max", GIB), ("current", 300 * MIB), ("stat", f"anon 5\ninactive_file {100 * MIB}")):
        (group.parent / f"memory.{name}").write_text(f"{content}\n")
        (group / f"memory.{name}").write_text("max\n" if name == "max" else f"{content}\n")
    rooms = memory._group_rooms
    assert list(rooms(tmp_path / "cgroup", tmp_path / "self")) == [GIB - 200 * MIB]
    assert list(rooms(tmp_path / "cgroup", tmp_path / "absent")) == []
    monkeypatch.setattr(memory, "_group_rooms", lambda: [50 * MIB])
    assert 50 * MIB < free_bytes() < 50 * MIB + 20 * GIB
    monkeypatch.setattr(memory, "_group_rooms", lambda: [])
    assert free_bytes() > 100 * MIB


def limited(gib, outdir, *flags):
    """Run the pipeline in an address space of so many GiB, of which each thread's stack takes a part: two threads.

    OpenBLAS has one, since its threads wait by spinning, which takes minutes where other tests run beside this one.
    """
    size = int(gib * GIB)
    command = [sys.executable, str(ROOT / "run_pipeline.py"), "--dataset", "sample://phantom"]
    return subprocess.run(
        [*command, *map(str, flags), "--outdir", str(outdir)],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (size, size)),
        env={**os.environ, "OMP_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.slow
def test_safe8gb_runs_in_two_gib_and_takes_what_was_planned(tmp_path):
    done = limited(2, tmp_path, "--preset", "safe8gb", "--save_minimal", "--aligned_dtype", "float16")
    assert done.returncode == 0 and done.stdout.startswith("planned memory 0.4 GiB of "), done.stderr
    with sqlite3.connect(tmp_path / "runs/pipeline_runs.sqlite") as db:
        peak, environment = db.execute("SELECT peak_mib, environment FROM runs").fetchone()
    planned = planned_bytes((48, 192, 192), (40, 8, 8), PHANTOM, threads=2) / MIB
    assert peak == pytest.approx(planned, rel=0.2) and json.loads(environment)["threads"] == 2


def test_a_limit_on_the_address_space_is_seen(tmp_path):
    done = limited(2, tmp_path / "out", "--cutout", 1024, 1024, 128)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "GiB are free; take --cutout " in done.stderr
    assert not (tmp_path / "out").exists()
