"""The part of the scoreboard that `reconstruction.py --curve` draws: segmenters over their bias, and the held-out half.

1. On fib25-medulla z 0-119, or --contacts_z: multicut and mean affinity (gasp) over the bias, with the costs of the
   boundary probability and with learned contacts. Learned probabilities are those of held-out blocks, so that nothing
   is scored that the model has seen. Circles mark the default, or for learned contacts the point that the training
   chose. Boundaries of a file are taken for those of a network, and segmented with its defaults.
2. On z 130-249, once: run_pipeline.py with each of them as a user types it, with seconds and peak memory per megavoxel,
   and the worst mergers as pictures.
"""

import json
import sqlite3
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from child import run_script

HELD = range(130, 250)
SIZE = (10, 10, 10)
WORST = 3  # mergers that are drawn
BEFORE_SEGMENT = ("cutout", "preprocess", "align", "boundaries")


def segmenting(boundaries: str) -> tuple:
    """The settings of segmentation for these boundaries, and what --set takes of them."""
    from emlib.pipeline import stage_defaults
    from emlib.runs.settings import listing

    own = stage_defaults("intensity" if boundaries == "intensity" else "experts").segment
    known = set(listing(stage_defaults().segment, "segment."))
    changed = [line for line in listing(own, "segment.") if line not in known]
    return own, ["--set", *changed] if changed else []


def curve(data: Path, boundaries: str, outdir: Path, train: range, seed: int) -> pd.DataFrame:
    """Draw the curve, train the model of contacts on the way, and score the held-out half."""
    model = draw_curve(data, boundaries, outdir, train, seed)
    rows = []
    with tempfile.TemporaryDirectory() as name:
        for method, flags in methods(model):
            run = Path(name) / method.replace(", ", "_").replace(" ", "_")
            rows.append(score_held_out(data, boundaries, run, method, flags))
            print(rows[-1], flush=True)
            draw_worst(data, run, method, outdir)
    return pd.DataFrame(rows)


def methods(model: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield each method with the flags of run_pipeline.py."""
    for segmenter in ("multicut", "gasp"):
        yield segmenter, ["--segmenter", segmenter]
        yield f"{segmenter}, learned contacts", ["--segmenter", segmenter, "--edge_model", str(model)]
    yield "watershed", ["--segmenter", "watershed"]


def draw_curve(data: Path, boundaries: str, outdir: Path, train: range, seed: int) -> Path:
    """Score both segmenters over the bias on the sections of ``train``; return the file of the model of contacts."""
    from emlib.publish.page import save_figure
    from emlib.refine.edge_blocks import label_table
    from emlib.refine.edge_command import CropRequest, CropSettings, cut_crop
    from emlib.refine.edge_figures import Curve, figure_curve
    from emlib.refine.edge_tuning import split_merge_curve
    from emlib.stages.agglomerate import MulticutSettings, edge_evidence
    from emlib.stages.segment import GaspSettings
    from emlib.volumes.cutout import read_cutout
    from emlib.volumes.open import open_volume

    folder = data / "fib25-medulla"
    em, labels = str(folder / "em_u8_zyx.tif"), str(folder / "neurites_u16_zyx.tif")
    given = ["--edges", "--volume", em, "--labels", labels, "--z", train.start, train.stop, "--voxel_size", *SIZE]
    given += ["--boundaries", boundaries] * (boundaries != "intensity") + ["--outdir", outdir, "--seed", seed]
    own, named = segmenting(boundaries)
    run_script("train_refine_rf.py", *given, *named, "--quiet")
    source = open_volume(em)
    volume = read_cutout(source, (*source.shape[:0:-1], len(train)), (0, 0, train.start), voxel_size_nm=SIZE)
    crop = cut_crop(volume, CropRequest(outdir, em, labels, boundaries, settings=CropSettings(segment=own)))
    table = label_table(crop.labels, crop.cut.fragments)
    curves = []
    for name, default in (("multicut", MulticutSettings().bias), ("gasp", GaspSettings().bias)):

        def evidence(bias: float):
            return edge_evidence(crop.cut.graph, replace(MulticutSettings(), bias=bias))

        enclosed = own.multicut.min_enclosed
        points = split_merge_curve(crop.cut, table, name, evidence, min_enclosed=enclosed)
        curves.append(Curve(name, points, int((points["bias"] - default).abs().argmin())))
    learned = pd.read_csv(outdir / "tables" / "edge_model_curve.csv")
    for name, points in learned.groupby("segmenter", sort=False):
        power = points.loc[points["chosen"], "size_power"].iloc[0]
        shown = points[points["size_power"] == power].reset_index(drop=True)
        curves.append(Curve(f"{name}, learned contacts", shown, int(shown["chosen"].argmax())))
    source_of = "intensity" if boundaries == "intensity" else Path(boundaries).name
    where = f"FIB-25 z {train.start}–{train.stop - 1}, boundaries from {source_of}"
    subtitle = f"{where}; learned contacts: probabilities of held-out blocks."
    figure = figure_curve(curves, "Splits against mergers over the bias", subtitle)
    for path in save_figure(figure, outdir / "figures", "reconstruction_curve"):
        print(f"written: {path}")
    every = pd.concat([one.points.assign(method=one.name) for one in curves])
    every.to_csv(outdir / "tables" / "reconstruction_curve.csv", index=False)
    return outdir / "data" / "edge_model.npz"


def score_held_out(data: Path, boundaries: str, run: Path, method: str, flags: list[str]) -> dict:
    """Run a method on the held-out half as a user types it, and score what it wrote."""
    import tifffile

    from emlib.measure.contingency import contingency
    from emlib.measure.instances import fill_zero, score_table

    folder = data / "fib25-medulla"
    truth = tifffile.imread(folder / "neurites_u16_zyx.tif")[HELD.start : HELD.stop].astype(np.int32)
    place = ["--cutout", *truth.shape[::-1], "--offset", 0, 0, HELD.start, "--voxel_size", *SIZE]
    how = ["--boundaries", boundaries, "--until", "segment", "--save_minimal", "--quiet", "--outdir", run]
    how += segmenting(boundaries)[1]
    _, peak = run_script("run_pipeline.py", "--dataset", folder / "em_u8_zyx.tif", *place, *flags, *how)
    with sqlite3.connect(run / "runs" / "pipeline_runs.sqlite") as db:
        query = "SELECT stage_seconds FROM runs ORDER BY rowid DESC LIMIT 1"
        stages = json.loads(db.execute(query).fetchone()[0])
    labels = np.load(next((run / "data").glob("neurite_labels_*.npy")))
    told = score_table(contingency(truth, fill_zero(labels)))
    scores = {name: round(told[name], 3) for name in ("voi_split", "voi_merge", "voi", "arand")}
    mvox = truth.size / 1e6
    before = sum(stages.get(name, 0) for name in BEFORE_SEGMENT)
    cost = {"s before": before / mvox, "s segment": stages["segment"] / mvox, "MiB": peak / mvox}
    return {"method": method, **scores, **{f"{name} / Mvox": round(value, 2) for name, value in cost.items()}}


def draw_worst(data: Path, run: Path, method: str, outdir: Path) -> None:
    """Draw the worst mergers of a run on the held-out half."""
    import tifffile

    from emlib.evaluation.error_views import error_view, locate
    from emlib.evaluation.label_pass import LabelPair
    from emlib.measure.contingency import contingency
    from emlib.measure.errors import worst_errors
    from emlib.publish.figure_errors import figure_errors
    from emlib.publish.page import save_figure
    from emlib.volumes.volume import VolumeSource

    folder = data / "fib25-medulla"
    whole = {
        name: tifffile.imread(folder / name)[HELD.start : HELD.stop]
        for name in ("neurites_u16_zyx.tif", "em_u8_zyx.tif")
    }
    truth, em = (array.astype(np.int32) if "neurites" in name else array for name, array in whole.items())
    pred = np.load(next((run / "data").glob("neurite_labels_*.npy")))
    sources = [VolumeSource("", a.shape, a.dtype, lambda box, a=a: a[box], SIZE) for a in (pred, truth, em)]
    pair = LabelPair(*sources, SIZE)
    worst = worst_errors(contingency(truth, pred), "merge", WORST)
    rows = locate(worst, "merge", pair, False)
    views = [error_view(row, "merge", pair, False) for _, row in rows.iterrows()]
    name = f"worst_merges_{method.replace(', ', '_').replace(' ', '_')}"
    for path in save_figure(figure_errors(views, SIZE), outdir / "figures", name):
        print(f"written: {path}")
