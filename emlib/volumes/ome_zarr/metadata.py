"""What an OME-Zarr group says of its levels: axes, voxel size and place in nm, for 0.4 and for 0.5."""

from __future__ import annotations

from typing import Any

from emlib.volumes.volume import ZYX

VERSIONS = {"0.4": 2, "0.5": 3}  # of OME-Zarr, and the Zarr format that each is made of
EVERY_CHUNK = "every_chunk_is_written"  # our stores say so: a chunk that is not there is lost, not black


def level_entry(path: str, voxel_size_nm: ZYX, translation_nm: ZYX) -> dict[str, Any]:
    """Return the entry of one level; ``translation_nm`` is the centre of its first voxel.

    Examples
    --------
    >>> level_entry("1", (40, 8, 8), (0, 2, 2))["coordinateTransformations"][1]
    {'type': 'translation', 'translation': [0.0, 2.0, 2.0]}
    """
    scale = {"type": "scale", "scale": [float(size) for size in voxel_size_nm]}
    place = {"type": "translation", "translation": [float(value) for value in translation_nm]}
    return {"path": path, "coordinateTransformations": [scale, place]}


def image_entry(name: str, levels: list[dict[str, Any]], version: str, unit: str | None = "nanometer") -> dict:
    """Return the multiscales entry of an image with the axes z, y, x; without a unit nobody knows the voxel size."""
    axes = [{"name": axis, "type": "space", **({"unit": unit} if unit else {})} for axis in "zyx"]
    entry = {"name": name, "axes": axes, "datasets": levels}
    return entry | ({"version": version} if version == "0.4" else {})


def read_ome(attributes: Any) -> dict[str, Any]:
    """Return the OME part of a group's attributes: all of them for 0.4, what is under ``ome`` for 0.5."""
    attributes = dict(attributes)
    ome = attributes.get("ome")
    return dict(ome) if isinstance(ome, dict) else attributes


def write_ome(group: Any, content: dict[str, Any]) -> None:
    """Add to the OME part of a group's attributes, where its Zarr format has it."""
    if group.metadata.zarr_format == 2:
        group.attrs.update(content)
    else:
        group.attrs["ome"] = {"version": "0.5", **read_ome(group.attrs), **content}
