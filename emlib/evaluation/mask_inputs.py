"""Organelle masks as files: which prediction belongs to which truth, section by section, and what is foreground."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from emlib.errors import UserError
from emlib.evaluation.inputs import read_whole
from emlib.volumes.ome_zarr import is_zarr
from emlib.volumes.open import HDF5, open_volume
from emlib.volumes.reading import reading
from emlib.volumes.sections import SUFFIXES, list_sections
from emlib.volumes.volume import VolumeSource

RAW = "raw"  # the folder of the EM, beside those of the organelles
SHOWN = 8  # names that an error lists


@dataclass(frozen=True)
class MaskPair:
    """Predicted and true masks of one organelle, opened and matched, not yet read.

    Attributes
    ----------
    organelle : str
    pred, truth : VolumeSource
    sections : tuple of str
        What the sections of the truth are called: the stems of its files, or numbers.
    pred_sections : tuple of int
        Which section of ``pred`` belongs to each.
    notes : tuple of str
        Lines for the user.
    """

    organelle: str
    pred: VolumeSource
    truth: VolumeSource
    sections: tuple[str, ...]
    pred_sections: tuple[int, ...]
    notes: tuple[str, ...] = ()

    def read(self) -> tuple[np.ndarray, np.ndarray, list[str]]:
        """Read both stacks.

        Returns
        -------
        truth, pred : (Z, Y, X) bool arrays
        notes : list of str
            Lines for the user, with those found on reading.

        Raises
        ------
        UserError
            If a section cannot be read or is no mask (see `to_mask`), the truth also if it stays below half range.
        """
        truth, true_note = to_mask(read_whole(self.truth), self.truth.uri, self.sections)
        if true_note:
            raise UserError(f"{true_note}; give masks of 0 and 1 or of 0 and 255")
        pred, note = to_mask(_read(self.pred, self.pred_sections), self.pred.uri, self.sections)
        notes = [*self.notes, *([f"note: {note}: all of it is background"] if note else [])]
        if not truth.any():
            notes.append(
                f"warning: the truth of {self.organelle} is empty in all {len(truth)} sections; its scores say no more "
                "than whether anything was predicted"
            )
        return truth, pred, notes


def pair_masks(pred: str, truth: str, organelles: Iterable[str] | None = None) -> list[MaskPair]:
    """Open predicted and true masks and match them.

    Parameters
    ----------
    pred, truth : str
        Each a folder with one folder of sections per organelle (``raw`` is left out), or one stack: a folder of
        sections or any file that `emlib.volumes.open.open_volume` opens.
    organelles : names, optional
        Which to score (default: all of the truth). A single stack takes the one given here, else it is called as the
        folder or file of the truth.

    Returns
    -------
    list of MaskPair
        Sections of two folders are matched by the stems of their files, else by their order.

    Raises
    ------
    UserError
        If an organelle or a section is missing, sizes differ, or a file cannot be opened.
    """
    true, found = organelle_folders(truth), organelle_folders(pred)
    if not true:
        _open(truth)  # before it lends its name to anything
    names = list(dict.fromkeys(organelles or true or [_stack_name(truth)]))
    if unknown := [name for name in names if true and name not in true]:
        raise UserError(f"the truth {truth} has no masks of {_list(unknown)}; it has {_list(true)}")
    if "average" in names:
        raise UserError("no organelle can be called average, as the mean over organelles is; rename its folder")
    if len(names) > 1 and not true:
        raise UserError(f"the truth {truth} is one stack, of one organelle; --organelles names {_list(names)}")
    if len(names) > 1 and not found:
        _open(pred)  # what is wrong with it comes first
        raise UserError(
            f"the prediction {pred} is one stack, the truth {truth} has {_list(names)}; "
            "name the organelle it shows with --organelles"
        )
    if missing := [name for name in names if found and name not in found]:
        raise UserError(
            f"the prediction {pred} has no masks of {_list(missing)}; it has {_list(found)}: "
            "name those to score with --organelles"
        )
    return [_pair(name, str(found.get(name, pred)), str(true.get(name, truth))) for name in names]


def organelle_folders(path: str) -> dict[str, Path]:
    """Return the folders of sections within a folder by name, without ``raw``; none if it is a stack itself."""
    root = Path(path).expanduser()
    if not root.is_dir() or is_zarr(root):
        return {}
    with reading(path):
        folders = sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
        return {p.name: p for p in folders if p.name != RAW and _holds_images(p)}


def to_mask(stack: np.ndarray, where: str, sections: Sequence[str]) -> tuple[np.ndarray, str | None]:
    """Decide what is foreground.

    Parameters
    ----------
    stack : (Z, Y, X) array
        All sections of one organelle: a faint section must not be taken for a mask of 0 and 1.
    where : str
        Its file or folder, for errors.
    sections : names of the sections

    Returns
    -------
    mask : (Z, Y, X) bool array
        bool as it is. Floats must lie in [0, 1]; from 0.5 on is foreground. Integers that hold 0 and one other value:
        that; else the upper half of the range: from 128 in 8 bits, from 32768 in 16 bits. Wider integers count as 8 or
        16 bits, by their largest value.
    note : str or None
        Says so where integers above 1 stay below half range, so that nothing is foreground: ids, perhaps.

    Raises
    ------
    UserError
        If there is NaN, a float outside of [0, 1], a negative or a wider integer.

    Examples
    --------
    >>> to_mask(np.array([[[0, 127, 128, 255]]], np.uint8), "masks", ["00"])[0].astype(int).tolist()
    [[[0, 0, 1, 1]]]
    >>> to_mask(np.array([[[0, 1, 1, 0]]], np.uint8), "masks", ["00"])[0].astype(int).tolist()
    [[[0, 1, 1, 0]]]
    """
    if stack.dtype == bool:
        return stack, None
    low, high = stack.min(), stack.max()
    if stack.dtype.kind == "f":
        if np.isnan(low):
            at = sections[int(np.isnan(stack).any(axis=(1, 2)).argmax())]
            raise UserError(f"{where}, section {at}, holds NaN; a mask of floats lies in [0, 1]: fill NaN with 0")
        if low < 0 or high > 1:
            raise UserError(f"{where} holds values from {low:g} to {high:g}; a mask of floats lies in [0, 1]: rescale")
        return stack >= 0.5, None
    low, high = int(low), int(high)
    if low < 0 or high > 65535:
        raise UserError(f"{where} holds values from {low} to {high}; a mask holds 0 and 1, or 0 to 255, or 0 to 65535")
    if not stack[stack != 0].size or (stack[stack != 0] == high).all():
        return stack > 0, None
    half = 32768 if stack.dtype == np.uint16 or high > 255 else 128
    note = f"{where} holds values up to {high}, none in the upper half of its range (from {half})"
    return stack >= half, note if high < half else None


def _pair(organelle: str, pred: str, truth: str) -> MaskPair:
    sources = [_open(path) for path in (pred, truth)]
    found, true = (_stems(path) for path in (pred, truth))
    notes = []
    if found and true:
        if missing := [stem for stem in true if stem not in found]:
            kind = "sections" if len(missing) > 1 else "section"
            raise UserError(
                f"the prediction {pred} lacks the {kind} {_list(missing)} of {truth}; it has {_list(found)}"
            )
        if extra := [stem for stem in found if stem not in true]:
            notes.append(f"note: {pred} has {len(extra)} sections without truth, left out: {_list(extra)}")
        order = [found.index(stem) for stem in true]
    else:
        depths = [source.shape[0] for source in sources]
        if depths[0] != depths[1]:
            raise UserError(
                f"the prediction {pred} has {depths[0]} sections, the truth {truth} {depths[1]}: they must be equal; "
                "cut one to those of the other"
            )
        order = range(depths[0])
    names = true or found or [str(z) for z in order]
    if sources[0].shape[1:] != sources[1].shape[1:]:
        sizes = ["{} × {}".format(*source.shape[1:]) for source in sources]
        raise UserError(
            f"section {names[0]} of the prediction {pred} is {sizes[0]}, of the truth {truth} {sizes[1]} "
            "(height × width): they must be equal; crop, pad or resample one"
        )
    return MaskPair(organelle, *sources, tuple(names), tuple(order), tuple(notes))


def _open(path: str) -> VolumeSource:
    """Open one stack of masks."""
    if path.startswith("sample://"):
        raise UserError(f"{path} is EM, no mask; give a folder of sections or a file")
    root = Path(path).expanduser()
    if root.is_dir() and not is_zarr(root) and not _holds_images(root):
        raise UserError(f"{path} holds no masks: neither sections nor folders of sections, one per organelle")
    return open_volume(path)


def _read(source: VolumeSource, sections: Sequence[int]) -> np.ndarray:
    """Some sections of a stack; one by one only where it holds others as well."""
    if list(sections) == list(range(source.shape[0])):
        return read_whole(source)
    rows, columns = slice(0, source.shape[1]), slice(0, source.shape[2])
    return np.concatenate([source.read((slice(z, z + 1), rows, columns)) for z in sections])


def _stems(path: str) -> list[str] | None:
    """Stems of the files of a folder of sections, in its order; None for a file."""
    folder = Path(path).expanduser()
    if not folder.is_dir() or is_zarr(folder):
        return None
    stems = [p.stem for p in list_sections(folder)]
    if twice := [stem for stem, count in Counter(stems).items() if count > 1]:
        raise UserError(f"{path} has several files for the section {_list(twice)}; keep one of each")
    return stems


def _stack_name(path: str) -> str:
    """What a single stack shows, by the name of its folder, file or HDF5 dataset."""
    hdf5 = HDF5.fullmatch(path)
    if hdf5 and hdf5["dataset"]:
        return hdf5["dataset"].rstrip("/").rsplit("/", 1)[-1]
    return Path(path).expanduser().resolve().name.split(".")[0]


def _holds_images(folder: Path) -> bool:
    return any(p.suffix.lower() in SUFFIXES and not p.name.startswith(".") for p in folder.iterdir())


def _list(names: Iterable[str]) -> str:
    """Names for a message, the first few of many."""
    names = list(names)
    return ", ".join(names[:SHOWN]) + f" … ({len(names)} in all)" * (len(names) > SHOWN)
