"""The state of a Neuroglancer page as JSON: layers, where it looks, how large everything is drawn."""

from __future__ import annotations

from typing import Any

import numpy as np

from emlib.view.contents import Contents, largest_neurites

SHOWN = 12  # neurites that are drawn in 3D when the page opens: the largest
MOST_LISTED = 5000  # synapses in the page itself; more make it slow
PANEL_PX = 350  # height of one of four panels on a common screen
SENDS, RECEIVES, UNKNOWN = "vec3(1.0, 0.55, 0.0)", "vec3(0.2, 0.75, 1.0)", "vec3(1.0, 0.9, 0.3)"
EM_SHADER = "#uicontrol invlerp normalized\nvoid main() { emitGrayscale(normalized()); }\n"
BOUNDARY_SHADER = (
    "#uicontrol invlerp normalized\nvoid main() { float p = normalized(); emitRGBA(vec4(1.0, 0.25, 0.2, p)); }\n"
)
PROPERTIES = [{"id": "score", "type": "float32", "default": 0, "description": "0 … 1"}]
RELATIONSHIPS = ["pre", "post"]


def make_state(contents: Contents, base: str, title: str, *, listed: bool = True) -> dict[str, Any]:
    """Return the state of a page.

    Parameters
    ----------
    contents : Contents
    base : str
        Address of the folder with ``em/``, ``boundaries/``, ``neurites/`` and ``synapses/``.
    title : str
        Of the page.
    listed : bool
        Whether synapses stand in the state itself, where they can be edited; otherwise they are read from
        ``synapses/``.
    """
    size, shape = np.array(contents.voxel_size_nm), np.array(contents.neurites.shape)
    extent, finest = size * shape, size.min()
    layers = [_image_layer(name, base) for name in contents.images]
    layers.append(_neurite_layer(contents, base))
    if len(contents.synapses):
        layers.append(_synapse_layer(contents, base, listed))
    return {
        "title": title,
        "dimensions": dimensions(contents),
        "position": (shape / 2)[::-1].tolist(),
        "crossSectionScale": round(float(extent.max() / PANEL_PX / finest), 4),
        "projectionScale": round(float(np.linalg.norm(extent) * 1.1 / finest), 1),
        "projectionOrientation": [0.86, 0.22, -0.1, 0.45],
        "layers": layers,
        "layout": "4panel",
        "selectedLayer": {"layer": "neurites", "visible": False},
        "showSlices": False,
    }


def dimensions(contents: Contents) -> dict[str, list]:
    """Return the axes x, y, z of a page, in metres."""
    z, y, x = (float(f"{size * 1e-9:.9g}") for size in contents.voxel_size_nm)
    return {"x": [x, "m"], "y": [y, "m"], "z": [z, "m"]}


def _image_layer(name: str, base: str) -> dict[str, Any]:
    layer = {"type": "image", "name": name, "source": f"precomputed://{base}/{name}", "shader": EM_SHADER}
    if name == "em":
        return layer | {"opacity": 1}
    return layer | {"shader": BOUNDARY_SHADER, "opacity": 0.6, "visible": False, "blend": "default"}


def _neurite_layer(contents: Contents, base: str) -> dict[str, Any]:
    return {
        "type": "segmentation",
        "name": "neurites",
        "source": f"precomputed://{base}/neurites",
        "segments": [str(one) for one in largest_neurites(contents.neurites, SHOWN)],
        "selectedAlpha": 0.35,
        "notSelectedAlpha": 0.12,
    }


def _synapse_layer(contents: Contents, base: str, listed: bool) -> dict[str, Any]:
    layer = {
        "type": "annotation",
        "name": "synapses",
        "linkedSegmentationLayer": dict.fromkeys(RELATIONSHIPS, "neurites"),
        "filterBySegmentation": [],
        "shader": _line_shader(contents.directed),
    }
    if not listed:
        return layer | {"source": f"precomputed://{base}/synapses"}
    return layer | {
        "source": {"url": "local://annotations", "transform": {"outputDimensions": dimensions(contents)}},
        "annotationProperties": PROPERTIES,
        "annotationRelationships": RELATIONSHIPS,
        "annotations": [_annotation(row, contents.directed) for row in synapse_rows(contents)],
    }


def _line_shader(directed: bool) -> str:
    ends = f"{SENDS if directed else UNKNOWN}, {RECEIVES if directed else UNKNOWN}"
    return (
        "void main() {\n"
        "  setLineWidth(3.0);\n"
        f"  setLineColor({ends});\n"
        f"  setEndpointMarkerColor({ends});\n"
        "  setEndpointMarkerSize(7.0, 7.0);\n"
        "}\n"
    )


def synapse_rows(contents: Contents) -> list[dict[str, Any]]:
    """Return the synapses: ``id``, ``pre`` and ``post`` (ids), ``a`` and ``b`` (x, y, z in voxels), ``score``."""
    table = contents.synapses
    ends = {
        name: table[[f"{side}_{axis}" for axis in "xyz"]].to_numpy(np.float64) + 0.5  # the middle of the voxel
        for name, side in (("a", "pre"), ("b", "post"))
    }
    return [
        {
            "id": number,
            "pre": int(row.pre_id),
            "post": int(row.post_id),
            "a": ends["a"][number].tolist(),
            "b": ends["b"][number].tolist(),
            "score": round(float(row.score), 4),
        }
        for number, row in enumerate(table.itertuples(index=False))
    ]


def _annotation(row: dict[str, Any], directed: bool) -> dict[str, Any]:
    arrow = "→" if directed else "–"
    return {
        "type": "line",
        "id": str(row["id"]),
        "pointA": row["a"],
        "pointB": row["b"],
        "segments": [[str(row["pre"])], [str(row["post"])]],
        "props": [row["score"]],
        "description": f"{row['pre']} {arrow} {row['post']}, score {row['score']:g}",
    }
