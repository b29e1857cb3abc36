"""A run as a folder that any Neuroglancer opens once it is on a web server.

em/ boundaries/        images with coarser scales
neurites/              ids (compressed_segmentation) and neurites/mesh/, a surface of each
synapses/              lines from sender to receiver, found by place and by neurite
state.json             the page: layers, place, scale
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from emlib.errors import UserError
from emlib.view.contents import Contents
from emlib.view.meshes import MESH_INFO, Mesher, encode_mesh, mesh_manifest
from emlib.view.state import PROPERTIES, RELATIONSHIPS, make_state, synapse_rows
from emlib.volumes.atomic import atomic_path
from emlib.volumes.precomputed import write_precomputed
from emlib.volumes.synthetic import SYNTHETIC_MARK

STATE = "state.json"
DEFAULT_URL = "http://127.0.0.1:9000"


def export_precomputed(
    contents: Contents, folder: str | Path, title: str, url: str = DEFAULT_URL, tick: Callable[[], None] = lambda: None
) -> list[Path]:
    """Write a run as precomputed volumes, meshes and annotations; the folder appears whole or not at all.

    Parameters
    ----------
    contents : Contents
    folder : path
        An export that is there already is replaced.
    title : str
        Of the page.
    url : str
        Where the folder will be served, for ``state.json``.
    tick : function
        Called after each block and each mesh.

    Returns
    -------
    list of Path
        What is in the folder.

    Raises
    ------
    UserError
        If the folder holds something else, or cannot be written.
    """
    folder = Path(folder)
    refuse_foreign(folder, STATE)
    with atomic_path(folder) as temporary:
        temporary.mkdir()
        for name, image in contents.images.items():
            write_precomputed(temporary / name, image, "image", tick=tick)
        how = {"encoding": "compressed_segmentation", "extra": {"mesh": "mesh"}}
        write_precomputed(temporary / "neurites", contents.neurites, "segmentation", **how, tick=tick)
        _write_meshes(contents, temporary / "neurites" / "mesh", tick)
        if len(contents.synapses):
            _write_annotations(contents, temporary / "synapses")
        state = make_state(contents, url.rstrip("/"), title, listed=False)
        (temporary / STATE).write_text(json.dumps(state, indent=1) + "\n", encoding="utf-8")
        if contents.files.synthetic:
            (temporary / SYNTHETIC_MARK).write_text(f"{contents.files.synthetic}\n", encoding="utf-8")
        names = sorted(path.name for path in temporary.iterdir())
    return [folder / name for name in names]


def refuse_foreign(folder: Path, own: str) -> None:
    """Refuse to replace a folder in which there is something and not our file ``own``."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file; name a folder")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / own).is_file():
        raise UserError(f"{folder} holds something else than an export; name another folder")


def _write_meshes(contents: Contents, folder: Path, tick: Callable[[], None]) -> None:
    folder.mkdir()
    (folder / "info").write_text(MESH_INFO, encoding="utf-8")
    mesher = Mesher(contents.neurites)
    for neurite in mesher.ids:
        mesh = mesher.make(neurite)
        if mesh is not None:
            (folder / str(neurite)).write_bytes(encode_mesh(mesh))
            (folder / f"{neurite}:0").write_text(mesh_manifest(neurite), encoding="utf-8")
        tick()


def _write_annotations(contents: Contents, folder: Path) -> None:
    """Lines from sender to receiver with their score, indexed by both."""
    from neuroglancer import AnnotationPropertySpec, CoordinateSpace
    from neuroglancer.write_annotations import AnnotationWriter

    z, y, x = contents.voxel_size_nm
    space = CoordinateSpace(names=["x", "y", "z"], units=["nm"] * 3, scales=[x, y, z])
    properties = [AnnotationPropertySpec(**one) for one in PROPERTIES]
    writer = AnnotationWriter(space, "line", relationships=RELATIONSHIPS, properties=properties)
    rows = synapse_rows(contents)
    for row in rows:
        writer.add_line(row["a"], row["b"], id=row["id"] + 1, pre=row["pre"], post=row["post"], score=row["score"])
    ends = np.array([row[end] for row in rows for end in "ab"], np.float32)
    writer.lower_bound, writer.upper_bound = ends.min(0), ends.max(0)  # the writer takes a for the lower end of a line
    writer.write(folder)
