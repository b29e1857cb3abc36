"""Several places of one volume: their folders, the table over them, and one that fails."""

import json

import numpy as np
import pandas as pd
import pytest

from emlib.errors import UserError
from emlib.pipeline import PipelineSettings, cutouts
from emlib.pipeline.cutouts import Cutout, cutout_lines, run_cutouts, statistics
from emlib.pipeline.steps import PHANTOM_URI
from emlib.runs.history import read_runs
from emlib.volumes.places import spread_places
from emlib.volumes.tiff import write_tiff


@pytest.fixture
def half_empty(tmp_path):
    """A volume of one grey where the second of three cutouts goes."""
    shape, size, seed = (12, 80, 400), (4, 32, 32), 3
    places = spread_places(shape, size, 3, seed)
    em = np.random.default_rng(0).integers(0, 255, shape, dtype=np.uint8)
    em[tuple(slice(first, first + n) for first, n in zip(places[1], size, strict=True))] = 7
    write_tiff(tmp_path / "em.tif", em, (40, 8, 8))
    return tmp_path / "em.tif", seed, size, places


def test_one_that_fails_is_named_and_the_others_run(half_empty, tmp_path, pipeline):
    path, seed, size, places = half_empty
    out = tmp_path / "out"
    flags = ["--cutout", *reversed(size), "--seed", seed, "--until", "preprocess", "--outdir", out]
    code, text, err = pipeline("--dataset", path, *flags, "--cutouts", 3)
    assert code == 2 and err.count("\n") == 1, err
    assert err.startswith(f"error: cutout_01 (seed {seed + 1}): {path} holds a single grey value 7 in this cutout")
    assert "1 of 3 cutouts failed: cutout_01" in text and "cutout_02 (seed" in text
    for index in (0, 2):
        sidecar = json.loads((out / f"cutout_{index:02d}/data/em_cutout_u8_zyx.json").read_text())
        assert sidecar["offset"] == list(places[index]) and sidecar["seed"] == seed + index
    runs = read_runs(out)
    assert sorted((run["folder"].name, run["status"]) for run in runs) == [
        *[("cutout_00", "done"), ("cutout_01", "failed"), ("cutout_02", "done")]
    ]
    cost = pd.read_csv(out / "runs/cutouts_cost.csv").set_index("figure")
    assert (cost["n"] == 2).all() and np.isnan(cost.loc["seconds", "cutout_01"]) and cost.loc["peak_mib", "mean"] > 50


def test_without_one_that_came_through_there_is_no_table(tmp_path, pipeline):
    code, text, err = pipeline("--dataset", tmp_path / "absent.tif", "--cutouts", 2, "--outdir", tmp_path / "out")
    assert code == 2 and err.count("no such file") == err.count("\n") == 1 and "cutout_" not in text
    em = np.random.default_rng(0).integers(0, 255, (8, 64, 64), dtype=np.uint8)
    write_tiff(tmp_path / "em.tif", em, (40, 8, 8))
    flags = ["--dataset", tmp_path / "em.tif", "--cutout", 32, 32, 8, "--truth", tmp_path / "absent.tif"]
    code, text, err = pipeline(*flags, "--cutouts", 2, "--outdir", tmp_path / "out")
    assert code == 2 and err.count("no such file") == 2 and "2 of 2 cutouts failed" in text
    assert not list(tmp_path.rglob("cutouts.*"))


class Fake:
    """Stands for a run: counts that follow from the seed, and nothing written."""

    def __init__(self, settings):
        rng = np.random.default_rng(settings.seed)
        self.values = {"neurites": int(rng.integers(100)), "edges": settings.seed}
        self.volume = type("V", (), {"offset": (1, 2, 3)})
        self.watch = type("W", (), {"seconds": {"a": rng.random(), "b": 1.0}, "peak_mib": {"a": 200.0, "b": 100.0}})
        self.synthetic = None


@pytest.fixture
def fake_runs(monkeypatch):
    """Runs that take no time, and fail at seed 13 (a bug), 14 (a user's mistake) and 15 (memory)."""

    def run(settings, outdir, **options):
        for seed, error in ((13, ZeroDivisionError("bug")), (14, UserError("mistake")), (15, MemoryError("9 GiB"))):
            if settings.seed == seed:
                raise error
        return Fake(settings)

    monkeypatch.setattr(cutouts, "run_pipeline", run)
    monkeypatch.setattr(cutouts, "summary", lambda run: run.values)


def test_mean_and_sd_are_those_of_the_cutouts(fake_runs, tmp_path, capsys):
    settings = PipelineSettings(seed=5, dataset=PHANTOM_URI)
    done = run_cutouts(settings, 4, tmp_path / "a")
    run_cutouts(settings, 4, tmp_path / "b", quiet=True)
    neurites = [int(np.random.default_rng(seed).integers(100)) for seed in (5, 6, 7, 8)]
    table = pd.read_csv(tmp_path / "a/tables/cutouts.csv").set_index("figure")
    assert table.loc["edges", ["mean", "n"]].tolist() == [6.5, 4] and "seconds" not in table.index
    assert table.loc["neurites", "mean"] == pytest.approx(np.mean(neurites), rel=1e-5)
    assert table.loc["neurites", "sd"] == pytest.approx(np.std(neurites, ddof=1), rel=1e-5)
    content = json.loads((tmp_path / "a/tables/cutouts.json").read_text())
    assert content["figures"]["neurites"]["each"] == neurites
    assert [place["offset_xyz"] for place in content["cutouts"]] == [[3, 2, 1]] * 4
    for name in ("cutouts.csv", "cutouts.json"):
        assert (tmp_path / "a/tables" / name).read_bytes() == (tmp_path / "b/tables" / name).read_bytes()
    out = capsys.readouterr().out
    assert out.count("cutout_0") == 4, "one line for each as it is done, none when quiet"
    assert "6.500 ± 1.291" in "\n".join(cutout_lines(done, tmp_path))


def test_whatever_goes_wrong_with_one_the_others_count(fake_runs, tmp_path, capsys):
    done = run_cutouts(PipelineSettings(seed=12, dataset=PHANTOM_URI), 5, tmp_path)
    assert [bool(cutout.error) for cutout in done] == [False, True, True, True, False]
    err = capsys.readouterr().err
    assert "Traceback" in err and "cutout_01 (seed 13): ZeroDivisionError: bug" in err
    assert "cutout_02 (seed 14): mistake" in err and "cutout_03 (seed 15): out of memory (9 GiB); use" in err
    assert statistics(done)["edges"] == {
        "mean": 14.0,
        "sd": pytest.approx(2.828, abs=1e-3),
        "n": 2,
        "each": [12, *[None] * 3, 16],
    }


def test_a_single_cutout_has_no_sd(tmp_path):
    found = statistics([Cutout("cutout_00", 0, figures={"edges": 4})])
    assert found["edges"]["mean"] == 4 and np.isnan(found["edges"]["sd"])
    assert "4.000 ± –" in "\n".join(cutout_lines([Cutout("cutout_00", 0, figures={"edges": 4})], tmp_path))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--cutouts", 0], "argument --cutouts: must be above 0, got 0"),
        (["--cutouts", 2, "--offset", 0, 0, 0], "--cutouts takes different places and --offset fixes one"),
        (["--cutouts", 2, "--runs"], "not allowed with argument --cutouts"),
    ],
)
def test_flags_that_exclude_each_other(flags, message, tmp_path, pipeline):
    code, out, err = pipeline(*flags, "--quiet", "--outdir", tmp_path / "out")
    assert (code, out) == (2, "") and err.count("\n") == 1 and message in err
    assert not (tmp_path / "out").exists()
