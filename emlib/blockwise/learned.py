"""Learned contacts in blocks: the features that a model of contacts reads, gathered wherever a contact lies.

1. Each block sums what it has of every fragment and of every contact; these sums add up to those of the whole volume.
   Contacts that lie wholly inside are measured there; of the others, values on the faces go to the block that holds the
   seed of the first fragment, as in `emlib.blockwise.contacts`.
2. That block puts its contacts together.
3. Each block compares the contacts of the fragments whose seeds it holds: its own ones, and those that others hold.
4. With both sides of each contact known, the model is asked.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from emlib.blockwise.contacts import (
    JOINED,
    STAGE,
    faces_of,
    grouped,
    look,
    owner_of,
    senders,
    stacked,
    strength,
)
from emlib.blockwise.engine import Engine
from emlib.blockwise.grid import name, sides
from emlib.blockwise.site import Site
from emlib.refine.edge_contacts import MEDIAN, Contacts, describe, standing
from emlib.refine.edge_geometry import contact_sums, fragment_sums, shapes_of_contacts, shapes_of_fragments
from emlib.refine.edge_model import ContactModel, read_edge_model, write_edge_model
from emlib.stages.agglomerate import areas_of_faces
from emlib.stages.boundaries import near_isotropic
from emlib.stages.contact_features import FEATURES, measure_contacts, percentile
from emlib.stages.learned_edges import EdgeTuning, weighed
from emlib.volumes.atomic import atomic_path
from emlib.volumes.volume import Box

GATHERED, AROUND = "gathered", "around"
MODEL, SUMS = "edge_model.npz", "fragment_sums"
MAPS = ("boundaries", "em")
PLACES = 10  # sums of a fragment; after them come those of the maps
SOLID_BYTES, FLAT_BYTES, SLAB_BYTES = 64, 120, 100 * 2**20  # of a voxel; while the places of a slab are summed
PERCENT = {"p5": 5, "p10": 10, "p25": 25, "median": 50, "p75": 75, "p90": 90, "p95": 95}

Outcome = tuple[list[dict[str, Any]], dict[str, Any]]


def block_bytes(site: Site) -> int:
    """Bytes that a block takes at the peak."""
    voxels = np.prod([min(side, n) for side, n in zip(site.block, site.shape, strict=True)])
    return int(voxels * (SOLID_BYTES if near_isotropic(site.voxel_size_nm) else FLAT_BYTES)) + SLAB_BYTES


def learned_contacts(
    engine: Engine, blocks: Sequence[Box], model: ContactModel, tuning: EdgeTuning
) -> list[dict[str, Any]]:
    """Measure and weigh the contacts of a volume whose fragments are cut, as `emlib.blockwise.contacts` does.

    Returns
    -------
    list of dict
        What each block told of its contacts.
    """
    path = Path(engine.site.work) / MODEL
    write_edge_model(path, model)
    told = engine.run(STAGE, measure_block, MAPS, blocks)
    gather_sums(engine.site, blocks)
    told = engine.run(GATHERED, gather_block, None, blocks, list(enumerate(senders(told, blocks))))
    homes = senders(told, blocks)
    told = engine.run(AROUND, compare_block, None, blocks, list(enumerate(homes)))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return engine.run(JOINED, ask_block, (digest, tuning), blocks, list(enumerate(senders(told, blocks))))


def measure_block(site: Site, shared: tuple[str, ...], box: Box) -> Outcome:
    """Measure the contacts of a block, and sum what it has of others and of fragments; ``shared`` is `MAPS`.

    Its table holds ``inner`` (u, v), with ``measured`` (11 features of each map), ``faces`` and ``sums``; of the others
    the faces (``owner``, ``outer``, ``value``) and what they add up to (``part_owner``, ``part``, ``part_sums``); and
    ``fragment`` with ``fragment_sums``.
    """
    part = site.seen_part(box)
    if not sides(part)[0]:
        return [], {"owners": []}
    outer, core, local, rank, split = look(site, part)
    maps = [np.ascontiguousarray(site.read_seen(array, outer), np.float32) for array in shared]
    ends, along = measure_contacts(local, maps)
    first = [side.start for side in outer]
    sums = contact_sums(ends, len(rank), local, first, core).reshape(-1, len(ends)).T
    shared_with = split[ends].any(axis=1)
    mine, partial = ~shared_with, shared_with & (sums[:, ::PLACES].sum(axis=1) > 0)
    u, v, values = faces_of(local, maps, core, split)
    u, v = rank[u], rank[v]
    owner, part_owner = owner_of(site, u), owner_of(site, rank[ends[partial, 0]])
    order, part_order = np.lexsort((v, u, owner)), np.argsort(part_owner, kind="stable")
    there = np.flatnonzero(np.bincount(local[core].ravel(), minlength=len(rank)))
    whole = [
        *fragment_sums(local[core], len(rank), first),
        *(np.bincount(local[core].ravel(), one[core].ravel(), len(rank)) for one in maps),
    ]
    wrote = site.write_table(
        STAGE,
        name(box),
        inner=rank[ends[mine]],
        measured=np.concatenate([one[mine, :-1] for one in along], axis=1),
        faces=along[0][mine, -1],
        sums=sums[mine],
        owner=owner[order],
        outer=np.stack([u, v], axis=1)[order],
        value=np.stack(values, axis=1)[order],
        part_owner=part_owner[part_order],
        part=rank[ends[partial]][part_order],
        part_sums=sums[partial][part_order],
        fragment=rank[there],
        fragment_sums=np.stack(whole, axis=1)[there],
    )
    return [wrote], {"owners": [int(one) for one in np.unique(owner)]}


def gather_sums(site: Site, blocks: Sequence[Box]) -> None:
    """Add up what the blocks have of each fragment, on disk: 10 sums of its places, and those of the maps."""
    shape = (len(site.load("ids")) + 1, PLACES + len(MAPS))
    with atomic_path(Path(site.work) / f"{SUMS}.npy") as temporary:
        whole = np.lib.format.open_memmap(temporary, "w+", np.float64, shape)
        for box in blocks:
            if sides(site.seen_part(box))[0]:
                stored = site.read_table(STAGE, name(box))
                whole[stored["fragment"]] += stored["fragment_sums"]
        whole.flush()


def gather_block(site: Site, shared: tuple[None, int, list[str]], box: Box) -> Outcome:
    """Put the contacts of a block together; ``shared`` ends with its number and the names of those with faces for it.

    Its table holds ``ends`` (u, v), ascending, ``along`` (22), ``sums``, ``between``, ``overlap``, ``faces``, ``area``,
    and ``home``, the block that holds the seed of v.
    """
    _, number, sources = shared
    if not sides(site.seen_part(box))[0]:
        return [], {"owners": []}
    own = site.read_table(STAGE, name(box))
    ends, along, faces, sums = [own["inner"]], [own["measured"]], [own["faces"]], [own["sums"]]
    parts: list[list[np.ndarray]] = [[], [], [], []]
    for source in sources:
        stored = own if source == name(box) else site.read_table(STAGE, source)
        for of, columns, into in (("owner", ("outer", "value"), 0), ("part_owner", ("part", "part_sums"), 2)):
            first, last = np.searchsorted(stored[of], [number, number + 1])
            for k, column in enumerate(columns):
                parts[into + k].append(stored[column][first:last])
    if sources:
        pairs, values, part, part_sums = (np.concatenate(one) for one in parts)
        split, features, count = _along(pairs, values)
        ends.append(split)
        along.append(features)
        faces.append(count)
        sums.append(_added(part, part_sums))
    ends, along, faces, sums = (np.concatenate(one) for one in (ends, along, faces, sums))
    order = np.lexsort((ends[:, 1], ends[:, 0]))
    ends, along, faces, sums = ends[order], along[order], faces[order], sums[order]
    between, overlap = stacked(site, ends, faces)
    sections = not near_isotropic(site.voxel_size_nm) and site.seen[0] > 1
    area = areas_of_faces(faces, between, sections, site.voxel_size_nm)
    home = owner_of(site, ends[:, 1])
    columns = {"between": between, "overlap": overlap, "faces": faces, "area": area, "home": home}
    wrote = site.write_table(GATHERED, name(box), ends=ends, along=along, sums=sums, **columns)
    return [wrote], {"owners": [int(one) for one in np.unique([*home, number])] if len(ends) else []}


def _along(pairs: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features (22) of the values (F, 2) of each pair, as bioimage-cpp has them, and the number of values."""
    found = []
    for column in values.T:
        named, starts, count, ordered = grouped(pairs, column)
        if not len(named):
            return named, np.zeros((0, 2 * (len(FEATURES) - 1))), count.astype(float)
        last = starts + count - 1
        mean = np.add.reduceat(ordered, starts) / count
        spread = np.add.reduceat((ordered - np.repeat(mean, count)) ** 2, starts) / count
        known = {"mean": mean, "std": np.sqrt(spread), "min": ordered[starts], "max": ordered[last]}
        known |= {key: percentile(ordered, starts, count, percent) for key, percent in PERCENT.items()}
        found += [known[key] for key in FEATURES[:-1]]
    return named, np.stack(found, axis=1), count.astype(float)


def _added(pairs: np.ndarray, sums: np.ndarray) -> np.ndarray:
    """Sums of each pair, pairs ascending."""
    rows, index = np.unique(pairs, axis=0, return_inverse=True)
    total = np.zeros((len(rows), sums.shape[1]))
    np.add.at(total, index.ravel(), sums)
    return total


def compare_block(site: Site, shared: tuple[None, int, list[str]], box: Box) -> Outcome:
    """Compare the contacts of each fragment whose seed a block holds.

    ``shared`` ends with the number of the block and the names of those that hold such contacts. The table holds, for
    each end of a contact, ``to`` (the block that holds the contact), ``ends`` (u, v), ``side`` (0 for u, 1 for v) and
    ``standing``: rank, contacts, weakest boundary and area of all contacts of the fragment; sorted by all of them.
    """
    _, number, sources = shared
    found: list[list[np.ndarray]] = [[], [], []]
    for source in sources:
        stored = site.read_table(GATHERED, source)
        own = np.full(len(stored["ends"]), source == name(box))
        for side, here in enumerate((own, stored["home"] == number)):
            ends = stored["ends"][here]
            measured = np.stack([stored["along"][here, MEDIAN], stored["area"][here]], axis=1)
            for into, values in zip(found, (ends, np.full(len(ends), side), measured), strict=True):
                into.append(values)
    if not sources:
        return [], {"owners": []}
    ends, side, measured = (np.concatenate(one) for one in found)
    order = np.lexsort((side, ends[:, 1], ends[:, 0]))  # as they stand in the graph of the whole volume
    ends, side, measured = ends[order], side[order], measured[order]
    nodes, node = np.unique(ends[np.arange(len(ends)), side], return_inverse=True)
    rank, contacts, weakest = standing(node, measured[:, 0], len(nodes))
    surface = np.bincount(node, measured[:, 1], len(nodes))
    known = np.stack([rank, contacts[node], weakest[node], surface[node]], axis=1)
    to = owner_of(site, ends[:, 0])
    order = np.argsort(to, kind="stable")
    columns = {"to": to[order], "ends": ends[order], "side": side[order], "standing": known[order]}
    wrote = site.write_table(AROUND, name(box), **columns)
    return [wrote], {"owners": [int(one) for one in np.unique(to)]}


def ask_block(site: Site, shared: tuple[tuple[str, EdgeTuning], int, list[str]], box: Box) -> Outcome:
    """Ask the model for the contacts of a block and weigh its answers.

    ``shared`` is the checksum of the model and how it is used, the number of the block, and the names of those that
    compared its contacts. The table is that of `emlib.blockwise.contacts.join_block`.
    """
    (_, tuning), number, sources = shared
    if not sides(site.seen_part(box))[0]:
        return [], {"edges": 0}
    stored = site.read_table(GATHERED, name(box))
    ends = stored["ends"]
    same, weight = np.zeros(0), np.zeros(0)
    if len(ends):
        model = read_edge_model(Path(site.work) / MODEL)
        features = describe(_known(site, stored, _standing(site, number, sources, len(ends))))
        same, weight = weighed(model.probability(features), stored["area"], tuning)
    columns = {"faces": stored["faces"].astype(np.int64), "between": stored["between"]}
    wrote = site.write_table(JOINED, name(box), ends=ends, same=same, weight=weight, **columns)
    return [wrote], {"edges": len(ends), "strength": strength(same, weight)}


def _standing(site: Site, number: int, sources: list[str], count: int) -> np.ndarray:
    """What `compare_block` found of both ends of each contact of a block, (E, 2, 4)."""
    parts: list[list[np.ndarray]] = [[], [], []]
    for source in sources:
        stored = site.read_table(AROUND, source)
        first, last = np.searchsorted(stored["to"], [number, number + 1])
        for into, key in zip(parts, ("ends", "side", "standing"), strict=True):
            into.append(stored[key][first:last])
    ends, side, known = (np.concatenate(part) for part in parts)
    return known[np.lexsort((side, ends[:, 1], ends[:, 0]))].reshape(count, 2, -1)


def _known(site: Site, stored: dict[str, np.ndarray], around: np.ndarray) -> Contacts:
    """All that is known of the contacts of a block."""
    nodes, ends = np.unique(stored["ends"], return_inverse=True)
    ends, wide = ends.reshape(-1, 2), len(FEATURES) - 1
    of_nodes = np.asarray(site.load(SUMS)[nodes]).T
    inside = (of_nodes[PLACES:] / np.maximum(of_nodes[0], 1)).T
    sums = np.ascontiguousarray(stored["sums"].T).reshape(3, PLACES, -1)
    contact, across = shapes_of_contacts(sums, site.voxel_size_nm)
    rank, others, weakest, surface = np.moveaxis(around, 2, 0)
    return Contacts(
        *(ends, stored["along"][:, :wide], stored["along"][:, wide:], inside),
        *(shapes_of_fragments(of_nodes[:PLACES], site.voxel_size_nm), contact, across, stored["area"]),
        *(stored["between"], stored["overlap"], surface, weakest, rank, others),
    )
