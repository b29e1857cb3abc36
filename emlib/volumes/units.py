"""Length units as files spell them, in nm, and what counts as a voxel size."""

from __future__ import annotations

from collections.abc import Iterable

from emlib.volumes.volume import ZYX

_NM = {
    "nm nanometer nanometers nanometre nanometres": 1.0,
    "um µm μm \\u00b5m micron microns micrometer micrometers micrometre micrometres": 1e3,
    "mm millimeter millimeters millimetre millimetres": 1e6,
    "cm centimeter centimeters centimetre centimetres": 1e7,
    "m meter meters metre metres": 1e9,
    "å angstrom angstroms ångström a": 0.1,
    "pm picometer picometers picometre picometres": 1e-3,
}
_FACTORS = {name: factor for names, factor in _NM.items() for name in names.split()}


def nm_per(unit: str | None) -> float | None:
    """Return how many nm one ``unit`` holds, or None if it is no length (``pixel``), none of bio-imaging, or missing.

    Inches are left out on purpose: they come from printing (72 dpi), never from a microscope.

    Examples
    --------
    >>> nm_per("micrometer"), nm_per("Å"), nm_per("inch")
    (1000.0, 0.1, None)
    """
    return _FACTORS.get(str(unit or "").strip().lower())


_FINEST, _COARSEST = 1e-3, 1e9  # nm: a thousandth of an atom, a metre


def voxel_size(values: Iterable[float] | None) -> ZYX | None:
    """Return (z, y, x) as floats if these are three numbers of nm that a microscope could have, else None.

    Rounded to 7 digits: no microscope is calibrated better, and 4.2 nm kept as a fraction or a float32 in Å reads back
    as 4.2.

    Examples
    --------
    >>> voxel_size([40, 4, 4]), voxel_size([0, 4, 4])
    ((40.0, 4.0, 4.0), None)
    """
    try:
        z, y, x = (float(f"{float(value):.7g}") for value in values)
    except (TypeError, ValueError):
        return None
    return (z, y, x) if all(_FINEST <= v <= _COARSEST for v in (z, y, x)) else None
