"""What ``train_refine_rf.py`` does once its flags are parsed."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field, replace

from emlib.errors import UserError
from emlib.publish.page import put_figure
from emlib.refine.corrections import CorrectedRun, find_corrected_run, find_run_with_em, read_corrections, read_em
from emlib.refine.edge_features import EDGE_NAMES
from emlib.refine.edge_forest import EdgeForest
from emlib.refine.features import feature_names
from emlib.refine.figure_importance import figure_importance, importance_table
from emlib.refine.forest import check_forest
from emlib.refine.model_file import feature_settings, read_model, write_model
from emlib.refine.recording import Recording, recorded
from emlib.refine.refining import Refined, RefineSettings, apply_forests, refine
from emlib.runs.artefacts import plain
from emlib.stages.boundaries import damaged_sections
from emlib.stages.segment import SEGMENTERS

LABELS = "neurite_labels_refined_rf_i32_zyx"
BOUNDARIES = "boundaries_refined_rf_f16_zyx"
MODEL = "refine_rf_model"


@dataclass(frozen=True, kw_only=True)
class RefineRequest(CorrectedRun):
    """What the command line asks for.

    Attributes
    ----------
    with_edges : bool
    model : str or None
        A trained model to apply instead of training.
    settings : RefineSettings
    """

    with_edges: bool = False
    model: str | None = None
    settings: RefineSettings = field(default_factory=RefineSettings)


def check_settings(settings: RefineSettings) -> None:
    """Refuse settings that nothing can be learnt with.

    Raises
    ------
    UserError
        Naming the first of them.
    """
    check_forest("forest", settings.forest)
    check_forest("edges.forest", settings.edges.forest)
    limits = [("examples.pixels", settings.examples.pixels, 100), ("edges.folds", settings.edges.folds, 2)]
    limits += [("examples.band_px", settings.examples.band_px, 1)]
    for name, value, low in limits:
        if value < low:
            raise UserError(f"--set {name}={value}: must be at least {low}")
    if not 0 < settings.examples.held_out < 1:
        raise UserError(f"--set examples.held_out={settings.examples.held_out:g}: must lie between 0 and 1")
    for name, scales in vars(settings.features).items():
        if min(scales, default=1) <= 0:
            raise UserError(f"--set features.{name}: every scale must be above 0 nm")
    if settings.segment.segmenter not in SEGMENTERS[:1]:
        raise UserError(f"--set segment.segmenter={settings.segment.segmenter}: only {SEGMENTERS[0]} uses a forest")


def refine_run(request: RefineRequest, command: str = "", quiet: bool = False) -> list[str]:
    """Refine the labels of a run and write what comes of it into its folder.

    Parameters
    ----------
    request : RefineRequest
    command : str
        The command line, for the record.
    quiet : bool
        No notes on stderr.

    Returns
    -------
    list of str
        A summary and the paths written.

    Raises
    ------
    UserError
        If there is no run, nothing was corrected, a section cannot be learnt from, shapes differ, a model does not fit,
        or files are damaged or cannot be written.
    """
    if request.model and (request.slices is not None or request.with_edges or request.labels):
        raise UserError(
            "--model applies what was trained before, its edge forest too; leave out --slices, --labels and --edges"
        )
    check_settings(request.settings)
    find = find_run_with_em if request.model else find_corrected_run
    files = find(request.outdir, request.labels, request.voxel_size_nm)
    with recorded(files, {**vars(request)}, command) as recording:
        lines, recording.summary = _refine(request, recording, quiet)
    return [*lines, *recording.lines()]


def _refine(request: RefineRequest, recording: Recording, quiet: bool) -> tuple[list[str], dict]:
    files, watch = recording.files, recording.watch
    settings, voxel = request.settings, files.voxel_size_nm
    with watch.stage("read"):
        em = read_em(files)
        damaged = damaged_sections(em)
    if damaged.all():
        raise UserError(f"{files.em.uri} holds a single grey value in every section; there is nothing to segment")
    if request.model:
        forests, stored = read_model(request.model)
        if "pixels" not in forests:
            raise UserError(f"the model {request.model} has no forest of pixels; train it with train_refine_rf.py")
        settings = replace(settings, features=feature_settings(stored, forests["pixels"], voxel, request.model))
        edges = _stored_edges(forests, stored, request.model)
        refined = apply_forests(em, voxel, forests["pixels"], edges, settings, watch.stage)
        lines, learnt = [f"applied {request.model}{', with its edge forest' if edges else ''}"], {}
    else:
        with watch.stage("read corrections"):
            corrections = read_corrections(files, request.slices, damaged)
        if not quiet and len(corrections.sections) == 1:
            print("note: one corrected section; there is none to hold out", file=sys.stderr)
        refined = refine(
            em, voxel, corrections, settings, with_edges=request.with_edges, seed=request.seed, stage=watch.stage
        )
        lines, learnt = _lines(refined), {"sections": corrections.sections}
    with watch.stage("write"):
        _write(refined, recording, settings, {"seed": request.seed, "model": request.model, **learnt})
    neurites = int(refined.labels.max())
    summary = {"neurites": neurites, **learnt, "validation": _validation(refined)}
    return [*lines, f"{neurites} neurites"], summary


def _stored_edges(forests: dict, stored: dict, path: str) -> EdgeForest | None:
    if "edges" not in forests:
        return None
    if forests["edges"].names != EDGE_NAMES:
        raise UserError(f"the model {path} has an edge forest of other features than this emlib makes; train it anew")
    try:
        return EdgeForest(forests["edges"], *(float(stored["calibration"][name]) for name in ("slope", "intercept")))
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"the model {path} has an edge forest without calibration; train it anew") from error


def _write(refined: Refined, recording: Recording, settings: RefineSettings, about: dict) -> None:
    files, outputs = recording.files, recording.outputs
    source = {"em": files.em.uri, "labels": files.labels.uri, **about}
    meta = {"source": source, "settings": settings}
    recording.volumes((LABELS, BOUNDARIES), refined.labels, refined.boundaries, "forest", **meta)
    if refined.pixels is None:
        return
    forests = {"pixels": refined.pixels.forest}
    stored = {"features": settings.features, "voxel_size_nm": files.voxel_size_nm, "training": plain(source)}
    if refined.edges:
        forests["edges"] = refined.edges.forest
        stored["calibration"] = {"slope": refined.edges.slope, "intercept": refined.edges.intercept}
    write_model(outputs.path(f"data/{MODEL}.npz"), forests, stored)
    outputs.note(f"data/{MODEL}.npz", "The trained forests")
    outputs.json("refine_rf_validation", _validation(refined), "AUC on held-out pixels and sections")
    names = feature_names(files.voxel_size_nm, settings.features)
    tables = {"importance": importance_table(names, refined.pixels.importance, refined.pixels.permutation)}
    if refined.edges:
        tables["edge_importance"] = importance_table(list(EDGE_NAMES), refined.edge_importance)
    for name, table in tables.items():
        what = "contacts" if name.startswith("edge") else "pixels"
        outputs.table(f"refine_rf_{name}", table, f"What the forest of {what} relies on")
        if table[["impurity", "auc_fall"]].isna().all(axis=None):
            continue
        subtitle = " ".join(_lines(refined)[1 if what == "contacts" else 0 :][:1])
        figure = figure_importance(table, f"What the forest of {what} relies on", subtitle, files.synthetic)
        put_figure(outputs, figure, f"refine_rf_{name}", f"What the forest of {what} relies on")


def _validation(refined: Refined) -> dict:
    """What is known of how well the forests tell."""
    return {
        **({"pixels": refined.pixels.validation} if refined.pixels else {}),
        **({"edges": refined.edge_validation} if refined.edge_validation else {}),
    }


def _lines(refined: Refined) -> list[str]:
    """The validation in words."""
    told = refined.pixels.validation
    pixels, sections = told["auc_held_out_pixels"], told["auc_held_out_sections"]
    held = "no section to hold out" if sections is None else f"{sections:.3f} on held-out sections"
    lines = [f"pixels: AUC {pixels:.3f} on held-out pixels of the same sections (neighbours leak), {held}"]
    if told := refined.edge_validation:
        lines.append(
            f"edges: AUC {told['auc']:.3f} on contacts of held-out sections, Brier score {told['brier']:.3f} "
            f"({told['brier_of_the_mean']:.3f} without learning), {told['edges']} contacts"
        )
    return lines
