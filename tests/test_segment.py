"""The segmentation stages against constructed tissue whose answer is known."""

import numpy as np
import pytest
from scipy import ndimage

from emlib.measure.instances import score_instances
from emlib.stages.agglomerate import MulticutSettings, edge_costs, multicut, region_graph
from emlib.stages.boundaries import BoundarySettings, damaged_sections, intensity_boundaries, near_isotropic
from emlib.stages.inclusions import absorb_enclosed
from emlib.stages.segment import SegmentSettings, segment
from emlib.stages.stitch import segment_sections, stitch
from emlib.stages.watershed import watershed_fragments
from emlib.threads import set_threads

ISOTROPIC, ANISOTROPIC = (10.0, 10.0, 10.0), (40.0, 8.0, 8.0)


def cells(shape, voxel_size_nm, cell_nm=400.0, seed=0):
    """Bright cells in dark walls of 30 nm: columns along z in a jittered lattice; returns EM and true labels."""
    rng = np.random.default_rng(seed)
    _, dy, dx = voxel_size_nm
    height, width = shape[1] * dy, shape[2] * dx
    centres = np.stack(np.meshgrid(np.arange(cell_nm / 2, height, cell_nm), np.arange(cell_nm / 2, width, cell_nm)), -1)
    centres = centres.reshape(-1, 2) + rng.uniform(-60, 60, (centres.size // 2, 2))
    y, x = np.mgrid[: shape[1], : shape[2]] * np.array([dy, dx])[:, None, None]
    distance = np.sort(np.hypot(y[..., None] - centres[:, 0], x[..., None] - centres[:, 1]), axis=-1)
    truth = np.argmin(np.hypot(y[..., None] - centres[:, 0], x[..., None] - centres[:, 1]), axis=-1) + 1
    wall = (distance[..., 1] - distance[..., 0]) < 45
    section = np.where(wall, 0.15, 0.7)
    section = ndimage.gaussian_filter(section, 8 / dy)
    em = np.broadcast_to(section, shape) + rng.normal(0, 0.04, shape)
    return np.clip(em, 0, 1).astype(np.float32), np.broadcast_to(truth, shape).astype(np.int32).copy()


@pytest.mark.parametrize("voxel_size_nm", [ISOTROPIC, ANISOTROPIC])
def test_boundaries_are_high_on_walls_and_low_inside(voxel_size_nm):
    em, truth = cells((12, 120, 120), voxel_size_nm)
    p = intensity_boundaries(em, voxel_size_nm)
    edge = ndimage.morphological_gradient(truth[0], size=3) > 0
    deep = ndimage.distance_transform_edt(~edge) * voxel_size_nm[1] > 80
    assert p.shape == em.shape and p.dtype == np.float32
    assert p[:, edge].mean() > 0.7 and p[:, deep].mean() < 0.1


def test_a_dark_organelle_looks_less_like_membrane_than_a_wall_of_the_same_grey():
    """The ridge term tells the inside of a mitochondrion from a membrane; darkness alone cannot."""
    em, truth = cells((3, 120, 120), ANISOTROPIC)
    disc = np.hypot(*(np.mgrid[:120, :120] - np.array([78, 78])[:, None, None])) < 14
    em[:, disc] = 0.15
    inside = ndimage.binary_erosion(disc, iterations=6)
    wall = (ndimage.morphological_gradient(truth[0], size=3) > 0) & ~ndimage.binary_dilation(disc, iterations=6)

    def contrast(settings):
        p = intensity_boundaries(em, ANISOTROPIC, settings)
        return p[:, wall].mean() - p[:, inside].mean()

    assert contrast(BoundarySettings()) > 0.25
    assert contrast(BoundarySettings(ridge_weight=0.0)) < 0.05


def test_slabs_on_threads_give_the_same_as_the_whole():
    em, _ = cells((70, 90, 90), ISOTROPIC)
    try:
        set_threads(1)
        one = intensity_boundaries(em, ISOTROPIC)
        set_threads(3)
        assert np.array_equal(one, intensity_boundaries(em, ISOTROPIC))
    finally:
        set_threads(None)
    from bioimage_cpp.filters import hessian_of_gaussian_eigenvalues

    from emlib.stages.boundaries import _filtered, _ridge

    whole = hessian_of_gaussian_eigenvalues(em, [1.3] * 3)[..., 0]
    assert np.abs(_filtered(em, 13.0, ISOTROPIC, _ridge) - whole).max() < 1e-6


@pytest.mark.parametrize("voxel_size_nm", [ISOTROPIC, ANISOTROPIC])
def test_fragments_cover_everything_and_stay_inside_cells(voxel_size_nm):
    em, truth = cells((10, 120, 120), voxel_size_nm)
    fragments = watershed_fragments(intensity_boundaries(em, voxel_size_nm), voxel_size_nm)
    assert fragments.min() == 1 and fragments.dtype == np.int32
    assert score_instances(truth, fragments)["voi_merge"] < 0.25
    if not near_isotropic(voxel_size_nm):
        top = fragments.reshape(len(fragments), -1)
        assert (top.min(axis=1)[1:] > top.max(axis=1)[:-1]).all()


@pytest.mark.parametrize("voxel_size_nm", [ISOTROPIC, ANISOTROPIC])
def test_multicut_finds_the_cells(voxel_size_nm):
    em, truth = cells((12, 160, 160), voxel_size_nm)
    labels = segment(em, voxel_size_nm)
    scores = score_instances(truth, labels)
    assert scores["voi"] < 0.35 and scores["arand"] < 0.06
    assert labels.min() == 1 and np.array_equal(np.unique(labels), np.arange(1, labels.max() + 1))


def test_bias_moves_along_splits_and_merges():
    em, truth = cells((6, 160, 160), ANISOTROPIC)
    em += np.random.default_rng(1).normal(0, 0.12, em.shape).astype(np.float32)
    scores = [
        score_instances(truth, segment(em, ANISOTROPIC, SegmentSettings(multicut=MulticutSettings(bias=bias))))
        for bias in (-4.0, 4.0)
    ]
    assert scores[0]["voi_merge"] > scores[1]["voi_merge"] and scores[0]["voi_split"] < scores[1]["voi_split"]


def test_multicut_is_no_worse_than_every_partition_of_a_small_graph():
    """On four fragments in a row all 8 partitions can be tried; the greedy one must cost no more than the best."""
    fragments = np.repeat(np.arange(1, 5, dtype=np.int32), 5)[None, None].repeat(5, 1)
    boundaries = np.zeros(fragments.shape, np.float32)
    boundaries[..., 9:11] = 0.95
    graph = region_graph(fragments, boundaries, ISOTROPIC)
    costs = edge_costs(graph)
    edges = graph.rag.uv_ids()

    def cut(labels):
        return costs[labels[edges[:, 0]] != labels[edges[:, 1]]].sum()

    partitions = [np.array([0, *np.cumsum([1, *map(int, f"{bits:03b}")])]) for bits in range(8)]
    found = multicut(graph, costs)
    assert cut(found) == pytest.approx(min(cut(p) for p in partitions))
    assert found[1] == found[2] != found[3] == found[4]


def test_enclosed_segments_join_their_host_and_others_do_not():
    fragments = np.ones((7, 20, 20), np.int32)
    fragments[:, :, 10:] = 2
    fragments[2:5, 4:8, 3:7] = 3  # inside 1
    fragments[:, 12:16, 0:4] = 4  # reaches three borders
    graph = region_graph(fragments, np.zeros(fragments.shape, np.float32), ISOTROPIC)
    merged = absorb_enclosed(np.arange(5), graph, fragments, ISOTROPIC)
    assert merged.tolist() == [0, 1, 2, 1, 4]
    assert absorb_enclosed(np.arange(5), graph, fragments, ISOTROPIC, min_enclosed=1.1).tolist() == [0, 1, 2, 3, 4]


def test_a_damaged_section_is_bridged():
    em, truth = cells((9, 120, 120), ANISOTROPIC)
    em[4] = 0
    labels = segment(em, ANISOTROPIC)
    assert damaged_sections(em).tolist() == [z == 4 for z in range(9)]
    assert not labels[4].any()
    good = [0, 1, 2, 3, 5, 6, 7, 8]
    assert score_instances(truth[good], labels[good])["voi"] < 0.4


def test_stitch_is_a_transitive_union_of_enough_overlap():
    labels = np.zeros((3, 1, 8), np.int32)
    labels[0, 0, :4], labels[0, 0, 4:] = 1, 2
    labels[1, 0, :4], labels[1, 0, 5:] = 3, 4
    labels[2, 0, :1], labels[2, 0, 2:] = 5, 6  # 5 lies wholly on 3; 6 shares 2 of 4 with 3 and 3 of 3 with 4
    assert stitch(labels, 0.6)[:, 0].tolist() == [[1] * 4 + [2] * 4, [1] * 4 + [0] + [2] * 3, [1, 0] + [2] * 6]
    assert len(np.unique(stitch(labels, 0.5))) == 2  # now 6 joins both


def test_baseline_finds_columns_and_leaves_background_between():
    em, truth = cells((6, 160, 160), ANISOTROPIC)
    labels = segment(em, ANISOTROPIC, SegmentSettings(segmenter="watershed"))
    assert (labels == 0).any() and labels.dtype == np.int32
    assert score_instances(truth, labels)["voi"] < 1.0
    assert segment_sections(em, ANISOTROPIC).max() > labels.max()


@pytest.mark.parametrize("shape", [(1, 8, 8), (2, 3, 40), (1, 1, 1), (5, 16, 9)])
@pytest.mark.parametrize("voxel_size_nm", [ISOTROPIC, ANISOTROPIC])
@pytest.mark.parametrize("segmenter", ["multicut", "watershed"])
def test_tiny_volumes(shape, voxel_size_nm, segmenter):
    em = np.random.default_rng(0).random(shape).astype(np.float32)
    labels = segment(em, voxel_size_nm, SegmentSettings(segmenter=segmenter))
    assert labels.shape == shape and labels.dtype == np.int32


def test_bad_arguments():
    em = np.random.default_rng(0).random((2, 8, 8)).astype(np.float32)
    with pytest.raises(ValueError, match="segmenter must be one of multicut, watershed"):
        segment(em, ISOTROPIC, SegmentSettings(segmenter="magic"))
    with pytest.raises(ValueError, match=r"\(1, 8, 8\).*\(2, 8, 8\)"):
        segment(em, ISOTROPIC, boundaries=em[:1])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("folder", "labels", "voxel_size_nm", "voi", "arand"),
    [
        ("fib25-medulla", "neurites_u16_zyx.tif", (10, 10, 10), 3.1, 0.31),
        ("larval-vnc-3d", "neurites_u8_zyx.tif", (50, 4, 4), 3.6, 1.0),
    ],
)
def test_targets_on_real_data_with_default_settings(real_data, folder, labels, voxel_size_nm, voi, arand):
    import tifffile

    from emlib.stages.preprocess import preprocess

    em = preprocess(tifffile.imread(real_data / folder / "em_u8_zyx.tif"))
    scores = score_instances(tifffile.imread(real_data / folder / labels), segment(em, voxel_size_nm))
    assert scores["voi"] <= voi and scores["arand"] <= arand
