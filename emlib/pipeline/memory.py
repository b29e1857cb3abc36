"""How much memory a run will take, told before it starts, and refused if there is not that much.

1. Shape and type of the cutout, from the header of the volume; nothing is read.
2. The peak of the dearest stage: bytes per voxel by kind of volume and segmenter, and what runs on several threads.
3. What is free: of the machine, of the control group (container, batch job), of the limit on address space.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

from emlib.errors import UserError
from emlib.pipeline.settings import PipelineSettings
from emlib.stages.boundaries import near_isotropic
from emlib.threads import get_threads
from emlib.volumes.cutout import ASSUMED_VOXEL_SIZE_NM, place_box
from emlib.volumes.open import open_volume
from emlib.volumes.volume import ZYX

MIB = 2**20
BASE = 205 * MIB  # interpreter, libraries, figures
FILTER = 26  # bytes per voxel while a Hessian and its eigenvalues are computed, on each thread
# Bytes per voxel of the cutout at the peak of a run that ends with this stage (near isotropic, anisotropic).
UNTIL = {"cutout": (3, 3), "preprocess": (10, 10), "align": (20, 20), "boundaries": (21, 37)}
MULTICUT = (41, 51)  # from segment on
# Near isotropic, where a float32 array stays below 32 MiB: the C library keeps the room of such arrays for later, and
# gives that of larger ones back to the system at once (glibc, mallopt(3), M_MMAP_THRESHOLD).
HEAPED, HEAPED_VOXELS = 54, 2**23
NETWORK = 170 * MIB  # PyTorch and the weights of a network, with --boundaries experts
EXPERTS = (21, 25)  # bytes per voxel at the peak of the boundaries with a network, in place of those of the filters
MAPS = (8, 8)  # more where it tells mitochondria and synapses too, which only its file says: assumed
KEPT = 4  # of these two maps from then on
CONTACTS = 50 * MIB  # scikit-learn and the features of contacts, with --edge_model; below the peak of large volumes
TILED = 200  # bytes for each pixel of a tile, with its margin, while a network sees it
LIVE, PUBLISHING = 17, 55 * MIB  # what a run holds while figures and report are made, and these themselves
SLICE_WISE = (24, 33)  # from segment on with --segmenter watershed, or with labels from a file
TRUTH = 4  # labels of a file, moved with the sections
PHANTOM = 27  # the phantom's own truth: neurites, clefts, mitochondria, vesicles
PHANTOM_BASE = 30 * MIB  # what making it and scoring against its truth load and leave
DRAWING = 17  # bytes per voxel that the phantom draws
STEP = 16  # sizes that are suggested are multiples of it
SMALLEST = 64  # a section below this is of no use


@dataclass(frozen=True)
class MemoryPlan:
    """What a run is expected to take, beside what there is.

    Attributes
    ----------
    needed, free : int
        Bytes.
    shape : (Z, Y, X)
        Of the cutout.
    fitting_xyz : (X, Y, Z) or None
        A cutout of the same depth that would fit; None if none would.
    without_fallback : int or None
        Bytes without the phantom, where it takes the place of a server that is out of reach.
    """

    needed: int
    free: int
    shape: tuple[int, int, int]
    fitting_xyz: tuple[int, int, int] | None
    without_fallback: int | None = None

    def line(self) -> str:
        """One line for the shell."""
        return f"planned memory {self.needed / 2**30:.1f} GiB of {self.free / 2**30:.1f} GiB free"

    def check(self, force: bool = False) -> None:
        """Refuse a run that cannot fit.

        Raises
        ------
        UserError
            If more is needed than free, unless ``force``.
        """
        if force or self.needed <= self.free:
            return
        advice = "close other programs"
        if self.fitting_xyz:
            advice = f"take --cutout {' '.join(map(str, self.fitting_xyz))} or less"
        if self.without_fallback is not None and self.without_fallback <= self.free:
            advice += f", or --no_fallback, as it is {self.without_fallback / 2**30:.1f} GiB without the phantom"
        x, y, z = reversed(self.shape)
        raise UserError(
            f"a cutout of {x} {y} {z} (x y z) is planned to take {self.needed / 2**30:.1f} GiB of memory and "
            f"{self.free / 2**30:.1f} GiB are free; {advice}, or run it all the same with --force"
        )


def plan_memory(settings: PipelineSettings) -> MemoryPlan | None:
    """Plan the memory of a run from its settings.

    Parameters
    ----------
    settings : PipelineSettings

    Returns
    -------
    MemoryPlan or None
        None where the volume cannot be opened: the run itself says why. BossDB is not asked: the cutout is taken as
        typed, 8 bit, with the voxel size that is assumed where none is given, and the phantom counts, which takes its
        place where it is out of reach.
    """
    shape, itemsize, voxel = tuple(reversed(settings.cutout_xyz)), 1, settings.voxel_size_nm
    if min(shape) < 1:
        return None
    if "://" not in settings.dataset:
        try:
            source = open_volume(settings.dataset)
            box = place_box(source, settings.cutout_xyz, settings.offset_xyz, settings.seed, [])
        except UserError:
            return None
        shape = tuple(side.stop - side.start for side in box)
        itemsize, voxel = source.dtype.itemsize, voxel or source.voxel_size_nm
    voxel = voxel or ASSUMED_VOXEL_SIZE_NM
    free = free_bytes()
    needed = planned_bytes(shape, voxel, settings, itemsize=itemsize)
    fitting = _fitting(shape, voxel, settings, itemsize, free)
    if settings.dataset.startswith("sample://") or not _may_be_phantom(settings):
        return MemoryPlan(needed, free, shape, fitting)
    own = planned_bytes(shape, voxel, replace(settings, fallback=False), itemsize=itemsize)
    return MemoryPlan(needed, free, shape, fitting, own)


def planned_bytes(
    shape: tuple[int, int, int],
    voxel_size_nm: ZYX,
    settings: PipelineSettings,
    *,
    itemsize: int = 1,
    threads: int | None = None,
) -> int:
    """Estimate the peak of resident memory of a run, the interpreter included.

    Parameters
    ----------
    shape : (Z, Y, X)
        Of the cutout.
    voxel_size_nm : (z, y, x) in nm
    settings : PipelineSettings
    itemsize : int
        Bytes of a voxel in the file.
    threads : int, optional
        Default: those in force.

    Returns
    -------
    int
        Bytes.

    Notes
    -----
    205 MiB and so many bytes per voxel for the dearest stage, see the constants above. Fitted to the peaks of 17 runs:
    FIB-25 (10 nm, 128² × 64 to 1024² × 32 and 250³, larger sections mirrored), drosophila-vnc (50 nm sections, 128² to
    1024² by 20), the phantom, also in place of a server, both segmenters, 2 and 8 threads. Over these, 229 to 1645 MiB,
    the plan is off by 3 % on average and by 8 % at most; over three runs that were held out, by 8 % at most. Learned
    contacts rest on two runs (FIB-25, 128² × 64 and 250² × 125: 1 % below and 4 % above), networks on one. Truth from a
    file, other types than 8 bit and runs that stop early rest on one or two runs each, or on counting arrays. Many
    small fragments make a larger graph, and several runs in one process (``--cutouts``) leave something behind, here 36
    MiB, neither of which is foreseen. ``benchmarks/memory.py`` prints plan and peak side by side.

    Examples
    --------
    >>> own = PipelineSettings(dataset="em.tif")
    >>> round(planned_bytes((20, 1024, 1024), (50, 4.6, 4.6), own, threads=2) / 2**20)
    1277
    """
    z, y, x = (int(n) for n in shape)
    voxels, threads = z * y * x, threads or get_threads()
    flat = not near_isotropic(voxel_size_nm)  # the second of each pair of costs
    reading = voxels * (1 if itemsize == 1 else 2 * itemsize + 2)  # percentiles of wider types sort a copy
    at_once = _filtered_at_once(z, voxel_size_nm, settings, threads) * y * x * FILTER
    if settings.until in UNTIL:
        early = [name for name in UNTIL if name == settings.until]
    else:
        early = [] if settings.labels_from or settings.stages.segment.segmenter == "watershed" else ["boundaries"]
    segmented, until = bool(early), UNTIL
    learned = _shows_a_network(settings, "boundaries" in early)
    if learned:
        at_once, early = _tile_pixels(shape, settings) * TILED, ["boundaries"]
        until = {**UNTIL, "boundaries": tuple(one + more for one, more in zip(EXPERTS, MAPS, strict=True))}
    costs = [reading, *(voxels * until[name][flat] + (at_once if name == "boundaries" else 0) for name in early)]
    if settings.until not in UNTIL:
        whole = MULTICUT if segmented else SLICE_WISE
        later = [voxels * whole[flat] + (threads * y * x * FILTER if flat else 0), voxels * LIVE + PUBLISHING]
        if segmented and not flat and voxels < HEAPED_VOXELS:
            later.append(voxels * HEAPED)
        more = (voxels * KEPT if learned else 0) + (CONTACTS if settings.edge_model else 0)
        costs += [cost + more for cost in later]
    if settings.truth:
        costs = [cost + voxels * TRUTH for cost in costs]
    if _may_be_phantom(settings):
        costs = [PHANTOM_BASE + cost + voxels * PHANTOM for cost in costs] + [_drawn(shape) * DRAWING]
    return BASE + max(costs) + (NETWORK if learned else 0)


def _shows_a_network(settings: PipelineSettings, boundaries: bool) -> bool:
    """Whether a run sees its volume through a network: for boundaries that it makes, or for synapses."""
    if settings.until in ("cutout", "preprocess", "align"):
        return False
    return (boundaries and settings.boundaries_from == "experts") or settings.synapses_from == "experts"


def _may_be_phantom(settings: PipelineSettings) -> bool:
    """Whether the run is on the phantom, or may end there because a server is out of reach."""
    return settings.dataset.startswith("sample://") or (settings.dataset.startswith("bossdb://") and settings.fallback)


def _filtered_at_once(depth: int, voxel_size_nm: ZYX, settings: PipelineSettings, threads: int) -> int:
    """Sections in the hands of the Hessian at the same time: one a thread, or one slab with its margins a thread."""
    if not near_isotropic(voxel_size_nm):
        return min(threads, depth)
    # As emlib.stages.boundaries cuts its slabs.
    margin = math.ceil(5 * settings.stages.segment.boundaries.ridge_sigma_nm / voxel_size_nm[0]) + 1
    step = max(16, 4 * margin)
    slabs = [min(depth, start + step + margin) - max(0, start - margin) for start in range(0, depth, step)]
    return sum(sorted(slabs)[-threads:])


def _tile_pixels(shape: tuple[int, int, int], settings: PipelineSettings) -> int:
    """Pixels of the largest tile that a network sees, its margin included."""
    margin, tile = 64, settings.stages.experts.tile
    sides = sorted(min(side, tile) + margin for side in shape)
    return sides[-1] * sides[-2]


def _drawn(shape: tuple[int, int, int]) -> int:
    """Voxels that the phantom draws for a cutout: finer in z, and with a margin for the jitter."""
    from emlib.volumes.phantom import FINE_NM, MARGIN_PX, PhantomSettings

    z, y, x = shape
    layers = max(1, round(PhantomSettings().voxel_size_nm[0] / FINE_NM))
    return z * layers * (y + 2 * MARGIN_PX) * (x + 2 * MARGIN_PX)


def _fitting(
    shape: tuple[int, int, int], voxel_size_nm: ZYX, settings: PipelineSettings, itemsize: int, free: int
) -> tuple[int, int, int] | None:
    """The largest cutout of this depth and proportions that fits, as X Y Z; None below a useful size."""
    z, y, x = shape
    for side in range(max(y, x) // STEP * STEP, SMALLEST - 1, -STEP):
        scale = side / max(y, x)
        smaller = (z, *(min(n, max(STEP, int(n * scale) // STEP * STEP)) for n in (y, x)))
        if planned_bytes(smaller, voxel_size_nm, settings, itemsize=itemsize) <= free:
            return tuple(reversed(smaller))
    return None


def free_bytes() -> int:
    """Memory that this process can still take and what it has: the least of all limits on it.

    Returns
    -------
    int
        Bytes: free memory of the machine, room in the control group, room in the address space (``ulimit -v``), each
        with what is resident already.
    """
    own = psutil.Process().memory_info()
    room = [psutil.virtual_memory().available, *_group_rooms()]
    with suppress(ImportError):  # Windows has no such limits
        import resource

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        if limit != resource.RLIM_INFINITY:
            room.append(limit - own.vms)
    return max(0, min(room)) + own.rss


def _group_rooms(root: Path = Path("/sys/fs/cgroup"), membership: Path = Path("/proc/self/cgroup")) -> Iterator[int]:
    """Room in the control groups (version 2) that this process is in; files that are only cached count as free."""
    try:
        lines = membership.read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return
    group = root / next((line[3:].strip().lstrip("/") for line in lines if line.startswith("0::")), "")
    for folder in (group, *group.parents):
        if folder == root.parent:
            return
        with suppress(OSError, ValueError):  # the root of the tree has no limit, and "max" is none
            limit, used = (int((folder / f"memory.{name}").read_text()) for name in ("max", "current"))
            cached = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
            yield limit - used + int(cached.get("inactive_file", 0))
