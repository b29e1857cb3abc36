"""Stages whose unit is a section: grey values, preprocessing, moving. A task does a layer of whole sections.

The statistics of a section are those of the whole section, so that a layer is as wide as the volume and as deep as a
chunk.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from emlib.blockwise.grid import lay
from emlib.blockwise.site import Site
from emlib.stages.align import apply_shifts
from emlib.stages.preprocess import PreprocessSettings, preprocess_section
from emlib.volumes.volume import Box

Outcome = tuple[list[dict[str, Any]], dict[str, Any]]


def layers(site: Site) -> list[Box]:
    """The layers of whole sections, each as deep as a chunk."""
    return lay(site.shape, (site.chunk[0], *site.shape[1:]))


def preprocess_layer(site: Site, shared: tuple[PreprocessSettings, str], box: Box) -> Outcome:
    """Denoise and equalise sections; ``shared`` is the settings and the array that is written."""
    settings, target = shared
    raw = site.read("raw", box)
    done = np.empty(raw.shape, np.float32)
    for z, section in enumerate(raw):
        done[z] = preprocess_section(section, settings)
    done = done.astype(site.open(target).dtype, copy=False)
    return [site.write(target, box, done)], _flat(done, box) if target == "em" else {}


def move_layer(site: Site, moves: list[list[float]], box: Box) -> Outcome:
    """Move sections by their shifts (dy, dx), pixels."""
    sections = site.read("preprocessed", box)
    shifts = pd.DataFrame(moves[box[0]], columns=["dy", "dx"])
    moved = apply_shifts(sections, shifts).astype(site.open("em").dtype)
    return [site.write("em", box, moved)], _flat(moved, box)


def _flat(sections: np.ndarray, box: Box) -> dict[str, Any]:
    """The sections that hold a single grey value."""
    flat = sections.reshape(len(sections), -1)
    return {"flat": [int(z) + box[0].start for z in np.flatnonzero(flat.max(axis=1) == flat.min(axis=1))]}
