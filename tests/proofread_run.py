"""A small run to proofread, as `run_pipeline.py` leaves one, with labels that are known."""

import numpy as np
import pandas as pd

from emlib.runs.artefacts import Outputs

VOXEL = (40.0, 8.0, 8.0)


def blobs(shape=(6, 20, 24), neurites=9, seed=0, background=0.1):
    """Labels wall to wall (nearest of random points) with some background voxels."""
    rng = np.random.default_rng(seed)
    points = rng.random((neurites, 3)) * shape
    grid = np.stack(np.indices(shape), -1).reshape(-1, 1, 3)
    labels = (((grid - points) * (2, 1, 1)) ** 2).sum(-1).argmin(1).reshape(shape) + 1
    labels[rng.random(shape) < background] = 0
    return labels.astype(np.int32)


def boundary_of(labels):
    """High where a neighbour in the section has another label."""
    edge = np.zeros(labels.shape, np.float32)
    for axis in (1, 2):
        differ = np.diff(labels, axis=axis) != 0
        at = [slice(None)] * 3
        at[axis] = slice(1, None)
        edge[tuple(at)] = np.maximum(edge[tuple(at)], differ)
    noise = np.random.default_rng(1).random(labels.shape, np.float32)
    return 0.8 * edge + 0.2 * noise


def write_run(folder, labels=None, *, em=True, boundaries=True, candidates=True):
    """Write a run; return its labels."""
    labels = blobs() if labels is None else labels
    outputs, meta = Outputs(folder), {"voxel_size_nm": VOXEL}
    kind = "i32" if labels.dtype == np.int32 else "i64"
    outputs.array(f"neurite_labels_{kind}_zyx", labels, "labels", **meta)
    if em:
        outputs.array("em_aligned_float32_zyx", 1 - boundary_of(labels), "em", **meta)
    if boundaries:
        outputs.array("boundaries_f16_zyx", boundary_of(labels).astype(np.float16), "boundaries", **meta)
    if candidates:
        outputs.table("synapse_candidates", candidate_table(labels), "candidates")
    return labels


def candidate_table(labels, count=6, seed=2):
    """Candidates beside borders, between the two neurites there."""
    z, y, x = np.nonzero((labels[:, :, 1:] != labels[:, :, :-1]) & (labels[:, :, 1:] > 0) & (labels[:, :, :-1] > 0))
    chosen = np.random.default_rng(seed).choice(len(z), count, replace=False)
    z, y, x = z[chosen], y[chosen], x[chosen]
    partners = {"pre_id": labels[z, y, x], "post_id": labels[z, y, x + 1]}
    return pd.DataFrame({"z": z, "y": y, "x": x, **partners, "score": np.linspace(0.9, 0.1, count)})


def write_corrected_run(folder, slices=(1, 3, 6), synthetic=None):
    """A run whose labels were corrected in a few sections."""
    labels = blobs((8, 56, 60), 24, background=0.0)
    write_run(folder, labels)
    outputs = Outputs(folder)
    if synthetic:
        em = np.load(folder / "data" / "em_aligned_float32_zyx.npy")
        outputs.array("em_aligned_float32_zyx", em, "em", voxel_size_nm=VOXEL, synthetic=synthetic)
    outputs.array("neurite_labels_corrected_i32_zyx", labels, "corrected", voxel_size_nm=VOXEL)
    outputs.json("proofread_slices", {"slices": list(slices)}, "sections")
    return labels
