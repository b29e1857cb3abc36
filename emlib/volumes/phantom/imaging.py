"""From tissue to grey levels: section thickness, blur, texture, section jitter, contrast drift, noise, damage."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter, gaussian_filter1d, shift, zoom

from emlib.threads import map_threads
from emlib.volumes.phantom.grid import Grid
from emlib.volumes.phantom.tissue import DEPTH_STEP_NM, Tissue

CYTOPLASM, MEMBRANE_STAIN = 160.0, 98.0  # grey level, and grey levels off at the middle of a membrane
MEMBRANE_NM = 8.0  # half of two bilayers (7 to 8 nm each) and the cleft between them (10 to 20 nm, partly stained)
CORE_NM = 5.0  # labels stop this far from the wall: leaves a seam of one to two voxels and does not cut thin neurites
GRAIN_NM = 3.0  # sd of the blur of organelles: no stain is sharper than its grains
DARKEST = 115.0  # organelles take off no more than this many grey levels: stain saturates
DAMAGE = ("black", "partial", "fold")


def expose(
    tissue: Tissue, sections: Grid, dark: np.ndarray, blur_nm: float, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Average the stained tissue over the thickness of each section.

    Parameters
    ----------
    tissue : Tissue
    sections : Grid
    dark : (Z, Y, X) float32 array
        Grey levels that organelles take off.
    blur_nm : float
        Sd of the blur within the plane.
    seed : int

    Returns
    -------
    em : (Z, Y, X) float32 array of ``sections.shape``, grey levels before drift and noise
    labels : (Z, Y, X) int32 array
        Owner at the middle of the section, 0 within membranes.
    membranes : (Z, Y, X) bool array
        Where membrane fills half of the voxel or more.
    """
    rng = np.random.default_rng([seed, 5])
    count = int(tissue.owner.max()) + 1
    grey = CYTOPLASM + rng.normal(0, 7, count).astype(np.float32)
    grey[rng.random(count) < 0.04] -= 30  # a few neurites stain dark throughout
    depth = np.arange(256, dtype=np.float32) * np.float32(DEPTH_STEP_NM)
    # two leaflets side by side with a lighter cleft between
    profile = np.exp(-0.5 * ((depth - 4.5) / 3.2) ** 2) + 0.8 * np.exp(-0.5 * (depth / 3.2) ** 2)
    profile = (MEMBRANE_STAIN * np.minimum(profile, 1)).astype(np.float32)
    wall = (depth <= MEMBRANE_NM).astype(np.float32)
    em = np.empty(sections.shape, np.float32)
    labels = np.empty(sections.shape, np.int32)
    membranes = np.empty(sections.shape, bool)
    fz, fy, fx = (f // s for f, s in zip(tissue.grid.shape, sections.shape, strict=True))
    blur = [blur_nm / p for p in sections.pitch[1:]]

    # grains have a size, also across thin sections
    dark = gaussian_filter(dark, [GRAIN_NM / p if GRAIN_NM > 0.3 * p else 0 for p in sections.pitch])

    def average(values: np.ndarray) -> np.ndarray:
        values = values.sum(axis=0, dtype=np.float32)
        return values.reshape(sections.shape[1], fy, sections.shape[2], fx).sum(axis=(1, 3)) / (fz * fy * fx)

    def one(z: int) -> None:
        part = slice(z * fz, (z + 1) * fz)
        owner, near = tissue.owner[part], tissue.depth[part]
        membranes[z] = average(wall[near]) >= 0.5
        middle = (fz // 2, slice(fy // 2, None, fy), slice(fx // 2, None, fx))
        labels[z] = np.where(near[middle] < CORE_NM / DEPTH_STEP_NM, 0, owner[middle])
        em[z] = gaussian_filter(average(grey[owner] - profile[near]) - DARKEST * np.tanh(dark[z] / DARKEST), blur)

    map_threads(one, range(sections.shape[0]))
    if blur_nm > 0.5 * sections.pitch[0]:  # thicker sections blur by themselves
        em = gaussian_filter1d(em, blur_nm / sections.pitch[0], axis=0, mode="nearest")
    for size, strength in ((8.0, 8.0), (22.0, 6.0)):  # nm, grey levels: granules and clumps of the cytosol
        em += strength * _speckle(sections, size, rng)
    return em, labels, membranes


def _speckle(grid: Grid, size_nm: float, rng: np.random.Generator) -> np.ndarray:
    """Blurred white noise of unit sd on a grid."""
    noise = rng.standard_normal(grid.shape, dtype=np.float32)
    sigma = [size_nm / p for p in grid.pitch]
    noise = gaussian_filter1d(noise, sigma[0], axis=0, mode="nearest") if sigma[0] > 0.3 else noise
    noise = np.stack(map_threads(lambda plane: gaussian_filter(plane, sigma[1:], mode="wrap"), noise))
    return noise / max(float(noise.std()), 1e-6)


def jitter(
    em: np.ndarray, masks: list[np.ndarray], moves: np.ndarray, margin: int
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Move each section by (dy, dx) pixels and cut the margin: the image by splines, the masks to the nearest voxel."""
    height, width = em.shape[1] - 2 * margin, em.shape[2] - 2 * margin
    moved = np.empty((len(em), height, width), np.float32)
    cut = [np.empty(moved.shape, m.dtype) for m in masks]

    def one(z: int) -> None:
        whole = shift(em[z], moves[z], order=3, mode="nearest") if moves[z].any() else em[z]
        moved[z] = whole[margin : margin + height, margin : margin + width]
        dy, dx = np.rint(moves[z]).astype(int)
        for source, target in zip(masks, cut, strict=True):
            target[z] = source[z, margin - dy : margin - dy + height, margin - dx : margin - dx + width]

    map_threads(one, range(len(em)))
    return moved, cut


def develop(em: np.ndarray, drift: float, noise: float, damaged: dict[int, str], seed: int) -> np.ndarray:
    """Contrast drift, noise, damage and eight bits.

    Parameters
    ----------
    em : (Z, Y, X) float array, grey levels; changed in place
    drift : float
        Sd in grey levels of the brightness of sections; contrast and illumination vary in proportion.
    noise : float
        Sd in grey levels at grey 140; half of the variance grows with the signal, as counting electrons does.
    damaged : dict, section to one of `DAMAGE`
    seed : int
    """
    rng = np.random.default_rng([seed, 6])
    count, height, width = em.shape
    slow = gaussian_filter1d(rng.standard_normal((3, count + 24)), 6, axis=1)[:, 12:-12]
    slow /= 0.217  # sd of white noise after a blur of 6
    gain = 1 + 0.010 * drift * (0.7 * slow[0] + 0.7 * rng.standard_normal(count))
    offset = drift * (0.7 * slow[1] + 0.7 * rng.standard_normal(count))
    light = gaussian_filter1d(rng.standard_normal((count + 24, 4, 4)), 6, axis=0)[12:-12] / 0.217
    streams = np.random.SeedSequence([seed, 7]).spawn(count)

    def one(z: int) -> np.ndarray:
        own = np.random.default_rng(streams[z])
        lamp = zoom(light[z], (height / 4, width / 4), order=1, mode="nearest", grid_mode=True)
        plane = (em[z] - 135) * gain[z] + 135 + offset[z] + drift * lamp
        if z in damaged:
            plane = _damage(plane, damaged[z], own)
        sd = noise * np.sqrt(0.5 + 0.5 * np.clip(plane, 0, 255) / 140)
        plane = plane + sd * own.standard_normal(plane.shape, dtype=np.float32)
        return np.clip(np.rint(plane), 0, 255).astype(np.uint8)

    return np.stack(map_threads(one, range(count)))


def _damage(plane: np.ndarray, kind: str, rng: np.random.Generator) -> np.ndarray:
    """A lost section (black), dirt over part of it (partial), or a dark fold across it (fold)."""
    height, width = plane.shape
    if kind == "black":
        return np.zeros_like(plane)
    y, x = np.mgrid[:height, :width] / max(height, width)
    angle = rng.uniform(0, np.pi)
    across = (y - 0.5 * height / max(plane.shape)) * np.sin(angle) + (x - 0.5 * width / max(plane.shape)) * np.cos(
        angle
    )
    across += 0.03 * np.sin(9 * (y * np.cos(angle) - x * np.sin(angle)) + rng.uniform(0, 6))
    if kind == "fold":
        return plane * (1 - 0.8 * np.exp(-0.5 * (across / 0.03) ** 2))
    return np.where(across > rng.uniform(-0.1, 0.15), 0.15 * plane + 10, plane)
