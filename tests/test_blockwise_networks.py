"""Networks in blocks: the very bytes of the whole volume in memory, however blocks, windows and tiles lie."""

import numpy as np
import pandas as pd
import pytest
from blockwise_run import engine_of, everything
from test_learned_boundaries import save

from emlib.blockwise import networks
from emlib.blockwise.budget import NetworkCost, stage_bytes
from emlib.errors import UserError
from emlib.learn.normalisation import Normalisation
from emlib.learn.tiles import TileSettings
from emlib.learn.volumes.boundary_model import load_boundary_model
from emlib.learn.volumes.box_prediction import predict_box
from emlib.learn.volumes.prediction import Resampling, predict_along
from emlib.learn.volumes.resizing import resized, seen_by
from emlib.pipeline.settings import StageSettings
from emlib.stages.align import apply_shifts
from emlib.stages.expert_boundaries import ExpertSettings, expert_boundaries, plan_experts
from emlib.volumes.phantom import PhantomSettings, make_phantom

ISOTROPIC, FLAT = (10.0, 10.0, 10.0), (40.0, 8.0, 8.0)
MAPS = ("boundaries", "mitochondria", "synapses")


@pytest.fixture(scope="module")
def grey():
    """A phantom with a section that holds a single grey value."""
    em = make_phantom(PhantomSettings(shape=(9, 44, 51), seed=4)).em.copy()
    em[4] = 137
    return em


def boxes_of(shape, count):
    rng = np.random.default_rng(1)
    for _ in range(count):
        yield tuple(slice(*map(int, sorted(rng.choice(n + 1, 2, replace=False)))) for n in shape)


def in_blocks(engine, model, settings, shifts=None):
    """The maps of a network, boundaries as they were rounded."""
    plan = plan_experts(model, engine.site.voxel_size_nm, settings, MAPS)
    told = networks.predict_maps(engine, model, plan, settings, shifts)
    arrays = {name: networks.ARRAYS[name][0] for name in told}
    return {name: engine.site.read(array, everything(engine.site)) for name, array in arrays.items()}


# ---- a box alone


@pytest.mark.parametrize(
    ("sections", "axes", "model_nm"), [(1, (0,), None), (3, (0, 1, 2), None), (3, (0, 1), (14, 8, 13))], ids=str
)
def test_a_box_has_the_bytes_of_the_whole(tmp_path, sections, axes, model_nm):
    """Several tiles along y and x, and what is read lies within the volume and is no more than tiles can see."""
    em = np.random.default_rng(0).integers(0, 256, (11, 90, 101), np.uint8)
    network = load_boundary_model(save(tmp_path / "m.pth", ["a", "membrane"], sections)).network
    how = {"sections": sections, "axes": axes, "tiles": TileSettings(64, 32)}
    how["resampling"] = None if model_nm is None else Resampling(ISOTROPIC, model_nm)
    whole = predict_along(network, em, Normalisation(0.5, 0.2), **how)
    for box in boxes_of(em.shape, 4):
        seen = []

        def read(part, seen=seen):
            seen.append(part)
            assert all(0 <= side.start < side.stop <= n for side, n in zip(part, em.shape, strict=True))
            return em[part]

        found = predict_box(network, read, em.shape, box, Normalisation(0.5, 0.2), **how)
        assert found.dtype == np.float32 and len(seen) == len(axes)
        assert found.astype(np.float16).tobytes() == whole[(slice(None), *box)].tobytes()


def test_a_part_is_resized_like_the_whole():
    rng = np.random.default_rng(0)
    for shape, to in (((37, 53), (61, 20)), ((40, 40), (40, 17)), ((64, 70), (13, 200)), ((5, 7), (1, 1))):
        section = rng.random((2, *shape)).astype(np.float32)
        every = [tuple(slice(0, n) for n in size) for size in (shape, to)]
        whole = resized(section, every[0], shape, every[1], to)
        for window in boxes_of(to, 6):
            seen = tuple(seen_by(*lane) for lane in zip(window, shape, to, strict=True))
            found = resized(section[:, *seen], seen, shape, window, to)
            assert (found == whole[:, *window]).all()


# ---- in blocks


@pytest.mark.parametrize("block", [(9, 44, 51), (4, 23, 31)], ids=str)
@pytest.mark.parametrize(
    ("size", "names", "sections", "voxel"),
    [
        (ISOTROPIC, ("mitochondria", "membranes", "synapses"), 3, ISOTROPIC),
        (ISOTROPIC, ("neurites", "mitochondria"), 1, (12, 13, 11)),
        (FLAT, ("membranes", "clefts"), 1, FLAT),
    ],
    ids=["three axes", "resampled and turned round", "sections"],
)
def test_blocks_give_the_bytes_of_the_whole(tmp_path, grey, size, names, sections, voxel, block):
    model = load_boundary_model(save(tmp_path / "m.pth", names, sections, voxel))
    settings = ExpertSettings(mitochondria=0.4)
    expected = expert_boundaries(grey, size, model, settings, maps=MAPS)
    found = in_blocks(engine_of(tmp_path, grey, size, block), model, settings)
    assert {name for name, plane in vars(expected).items() if plane is not None} == found.keys()
    for name, plane in found.items():
        np.testing.assert_array_equal(plane, getattr(expected, name).astype(plane.dtype), err_msg=name)
        assert plane.std() > 0 and not plane[4].any()


@pytest.mark.parametrize("sections", [1, 3])
def test_sections_that_move(tmp_path, grey, sections):
    """One section alone is seen before it is moved, neighbours lie on each other when they are seen."""
    model = load_boundary_model(save(tmp_path / "m.pth", ["membranes"], sections, FLAT))
    moves = np.random.default_rng(0).normal(0, 2, (len(grey), 2))
    shifts = pd.DataFrame(moves, columns=["dy", "dx"])
    shown = grey if sections == 1 else np.rint(apply_shifts(grey.astype(np.float32), shifts)).astype(np.uint8)
    expected = expert_boundaries(shown, FLAT, model).boundaries.astype(np.float32)
    if sections == 1:
        expected = apply_shifts(expected, shifts).astype(np.float16).astype(np.float32)
    found = in_blocks(engine_of(tmp_path, grey, FLAT, (2, 30, 20)), model, ExpertSettings(), shifts)
    np.testing.assert_array_equal(found["boundaries"], expected)


def test_windows_cut_large_sections(tmp_path, monkeypatch):
    """Each window computes the tiles that reach into it; the outcome is that of whole sections."""
    em = np.random.default_rng(0).integers(0, 256, (2, 400, 420), np.uint8)
    model = load_boundary_model(save(tmp_path / "m.pth", ["membranes"], 1, FLAT))
    monkeypatch.setattr(networks, "DEPTHS", {4: 32, 1: 64})
    engine, settings = engine_of(tmp_path, em, FLAT, (1, 200, 200)), ExpertSettings(tile=384)
    assert len(networks.windows(engine.site, 0, 384)[1]) == 8
    found = in_blocks(engine, model, settings)["boundaries"]
    expected = expert_boundaries(em, FLAT, model, settings).boundaries
    np.testing.assert_array_equal(found, expected.astype(np.float32))


def test_windows_that_are_done_are_not_shown_again(tmp_path, grey):
    """Unless the model is another one, or what was stored is damaged."""
    first, second = (save(tmp_path / f"{name}.pth", [name], 1, FLAT) for name in ("membranes", "boundary"))
    size, block = FLAT, (2, 30, 20)
    expected = in_blocks(engine_of(tmp_path, grey, size, block), load_boundary_model(first), ExpertSettings())
    chunk = next(path for path in (tmp_path / "work/arrays/network0_boundaries/c").rglob("*") if path.is_file())
    chunk.write_bytes(chunk.read_bytes()[:-9])
    again = engine_of(tmp_path, grey, size, block, resume=True)
    found = in_blocks(again, load_boundary_model(first), ExpertSettings())
    assert again.skipped["network0"] == len(networks.windows(again.site, 0, 1024)[1]) - 1 > 0
    np.testing.assert_array_equal(found["boundaries"], expected["boundaries"])
    other = engine_of(tmp_path, grey, size, block, resume=True)
    in_blocks(other, load_boundary_model(second), ExpertSettings())
    assert other.skipped["shown"] and not other.skipped["network0"]


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_windows_are_whole_chunks_and_cover_the_volume(tmp_path, grey, axis):
    site = engine_of(tmp_path, grey, ISOTROPIC, (3, 21, 33)).site
    chunk, boxes = networks.windows(site, axis, 384)
    covered = np.zeros(site.shape, int)
    for box in boxes:
        covered[box] += 1
        assert all(side.start % c == 0 for side, c in zip(box, chunk, strict=True))
        assert all(side.stop % c == 0 or side.stop == n for side, c, n in zip(box, chunk, site.shape, strict=True))
    assert (covered == 1).all()


def test_the_plan_counts_tile_and_maps(tmp_path, grey):
    """A tile as large as the section with its margin, and so many maps of a window; nothing without a network."""
    site = engine_of(tmp_path, grey, ISOTROPIC, (3, 21, 33)).site
    assert "network" not in stage_bytes(site, StageSettings(), 1)
    one, two = (stage_bytes(site, StageSettings(), 1, NetworkCost(1e4, maps, 1))["network"] for maps in (1, 2))
    assert one > 1e4 * (44 + 64) * (51 + 64) and one < two < 1.1 * one
    assert stage_bytes(site, StageSettings(), 1, NetworkCost(1e4, 1, 1, zoom=2.0))["network"] > 1.4 * one


def test_a_worker_with_another_model_is_told(tmp_path):
    path = save(tmp_path / "m.pth", ["membranes"])
    with pytest.raises(UserError, match="is another file here than where the run was started"):
        networks._network(str(path), "0" * 64, ("boundaries",))
