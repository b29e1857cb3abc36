"""Figures and report: right scale, nothing missing, nothing unescaped, whole files, also at degenerate inputs."""

import io
import re
import shutil
import subprocess

import networkx as nx
import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from emlib.errors import UserError
from emlib.publish.candidate_arrows import directions
from emlib.publish.figure_synapses import Clefts, close_views
from emlib.publish.figures import NAMES, figure1, figure2, figure3, figure4, figure5, figure6, save_figure
from emlib.publish.graph_layout import edge_table, layout, strongest_part
from emlib.publish.number_formats import format_value
from emlib.publish.page import Page, scale_bar, set_extent
from emlib.publish.report import (
    Artefact,
    FigureItem,
    Number,
    ReportContext,
    Table,
    Timing,
    cost_table,
    render_report,
)
from emlib.publish.style import label_colours, outline, overlay
from emlib.publish.surface_view import View, draw_clouds, grid_nm, surface_clouds
from emlib.stages.fragment_planes import middle_planes

NOTE = "SYNTHETIC PHANTOM: BossDB could not be reached"
ENDS = ["pre_z", "pre_y", "pre_x", "post_z", "post_y", "post_x"]


def volume(shape=(12, 80, 100), seed=0):
    """Blocky neurites with noise: what figures 1 and 2 take."""
    rng = np.random.default_rng(seed)
    z, y, x = np.ogrid[tuple(slice(n) for n in shape)]
    labels = (1 + (y // 20) * 7 + x // 25 + 0 * z).astype(np.int32)
    labels[:, ::20] = 0
    aligned = np.clip(rng.normal(0.5, 0.1, shape) - 0.3 * (labels == 0), 0, 1).astype(np.float32)
    return (aligned * 255).astype(np.uint8), aligned, aligned, labels


def segmented(shape=(12, 80, 100), fragments=True):
    """What figure 5 takes: EM, boundaries, fragments, labels."""
    _, aligned, _, labels = volume(shape)
    planes = middle_planes(labels * 2 + (np.indices(shape)[2] // 10) % 2, np.ones(shape[0], bool))
    return aligned, (labels == 0).astype(np.float16), planes if fragments else None, labels


def candidates(n, shape=(12, 80, 100), ends=True, seed=0):
    rng = np.random.default_rng(seed)
    table = pd.DataFrame(rng.uniform(0, np.array(shape) - 1, (n, 3)), columns=["z", "y", "x"])
    table["pre_id"], table["post_id"] = rng.integers(1, 29, (2, n))
    table["score"] = rng.uniform(0.3, 1, n)
    if ends:
        table[ENDS] = np.hstack([table[["z", "y", "x"]] + 3, table[["z", "y", "x"]] - 3])
    return table


def graph(n, seed=0):
    """A directed graph with heavy-tailed degrees and weights."""
    rng = np.random.default_rng(seed)
    result = nx.DiGraph()
    result.add_nodes_from(range(1, n + 1))
    if n > 1:
        chance = 1 / np.arange(1, n + 1) ** 0.8
        ends = rng.choice(np.arange(1, n + 1), (2, 2 * n), p=chance / chance.sum())
        for u, v in ends.T.tolist():
            result.add_edge(u, v, weight=int(rng.zipf(2.0)))
    return result


def shift_table(n, seed=0):
    rng = np.random.default_rng(seed)
    table = pd.DataFrame(rng.normal(0, 2, (n, 2)), columns=["dy", "dx"])
    table.insert(0, "z", range(n))
    table["reliability"] = 0.9
    table["residual_before_px"], table["residual_after_px"] = 1.5, 0.1
    table["used"] = np.arange(n) % 9 != 5
    return table


def words(figure: Figure) -> str:
    return " ".join(text.get_text() for text in figure.findobj(Text)).replace("\n", " ")


FIGURES = {
    "figure 1": lambda: figure1(*volume(), (10, 10, 10), note=NOTE),
    "figure 1, not preprocessed, anisotropy 12": lambda: figure1(
        volume()[0], None, *volume()[2:], (48, 4, 4), note=NOTE
    ),
    "figure 1, tall sections": lambda: figure1(*volume((5, 90, 30)), (10, 10, 10), note=NOTE),
    "figure 1, one section": lambda: figure1(*volume((1, 30, 90)), (40, 4, 4), z=0, note=NOTE),
    "figure 1, nothing segmented": lambda: figure1(*volume()[:3], 0 * volume()[3], (10, 10, 10), note=NOTE),
    "figure 1, flat grey": lambda: figure1(
        np.full((3, 40, 40), 7, np.uint8), None, np.zeros((3, 40, 40)), np.ones((3, 40, 40), int), (9, 9, 9), note=NOTE
    ),
    "figure 2": lambda: figure2(
        *volume()[2:], candidates(40), (10, 10, 10), 0.4, truth_synapses=candidates(9, seed=1), note=NOTE
    ),
    "figure 2, no partners' places": lambda: figure2(
        *volume()[2:], candidates(3, ends=False), (50, 4, 4), None, note=NOTE
    ),
    "figure 2, one candidate": lambda: figure2(*volume()[2:], candidates(1), (10, 10, 10), 0.9, note=NOTE),
    "figure 2, no candidates": lambda: figure2(*volume()[2:], candidates(0), (10, 10, 10), 0.4, note=NOTE),
    "figure 2, no table": lambda: figure2(*volume()[2:], pd.DataFrame(), (10, 10, 10), None, note=NOTE),
    "figure 2, one tall section": lambda: figure2(
        *volume((1, 90, 30))[2:], candidates(5, (1, 90, 30)), (10, 10, 10), 0.4, note=NOTE
    ),
    "figure 3, 10 nodes": lambda: figure3(graph(10), note=NOTE),
    "figure 3, 10 000 nodes": lambda: figure3(graph(10_000), note=NOTE),
    "figure 3, 1 node": lambda: figure3(graph(1), note=NOTE),
    "figure 3, only a self-connection": lambda: figure3(nx.DiGraph([(4, 4)]), note=NOTE),
    "figure 3, 1 connection": lambda: figure3(nx.DiGraph([(4, 7)]), note=NOTE),
    "figure 3, empty": lambda: figure3(nx.DiGraph(), note=NOTE),
    "figure 2, of a network, undirected": lambda: figure2(
        *volume()[2:],
        candidates(8, ends=False).assign(direction="unknown"),
        (40, 4, 4),
        0.4,
        note=NOTE,
        clefts=Clefts(volume()[1], 0.5),
    ),
    "figure 4": lambda: figure4(shift_table(30), (10, 10, 10), added=shift_table(30), note=NOTE),
    "figure 4, 1 section": lambda: figure4(shift_table(1), (50, 4, 5), note=NOTE),
    "figure 4, only shifts": lambda: figure4(shift_table(400)[["z", "dy", "dx"]], (50, 4, 5), note=NOTE),
    "figure 4, skipped": lambda: figure4(None, (10, 10, 10), reason="Aligned already.", note=NOTE),
    "figure 5": lambda: figure5(*segmented(), (10, 10, 10), "Boundaries: intensity.", note=NOTE),
    "figure 5, anisotropy 12": lambda: figure5(*segmented(), (48, 4, 4), note=NOTE),
    "figure 5, one section, no fragments": lambda: figure5(*segmented((1, 30, 90), False), (40, 4, 4), note=NOTE),
    "figure 5, tall": lambda: figure5(*segmented((60, 90, 30)), (10, 10, 10), note=NOTE),
    "figure 6": lambda: figure6(volume()[3], range(1, 29), [9] * 28, (10, 10, 10), note=NOTE),
    "figure 6, three neurites, anisotropy 12": lambda: figure6(volume()[3], [1, 2, 99], [9] * 3, (48, 4, 4), note=NOTE),
    "figure 6, one section": lambda: figure6(volume((1, 30, 90))[3], [1, 8], [600, 600], (40, 4, 4), note=NOTE),
    "figure 6, nothing segmented": lambda: figure6(0 * volume()[3], [], [], (10, 10, 10), note=NOTE),
}


@pytest.mark.parametrize("name", FIGURES)
def test_figures_become_whole_readable_files(name, tmp_path, monkeypatch):
    """PNG and PDF are whole, the note is in the title, no text is cut off or overlaps another."""
    figure, drawn, draw = FIGURES[name](), [], Text.draw

    def record(text, renderer, *args, **kwargs):
        if isinstance(renderer, RendererAgg) and text.get_visible() and text.get_text().strip():
            drawn.append((text.get_text(), text.get_window_extent(renderer)))
        return draw(text, renderer, *args, **kwargs)

    monkeypatch.setattr(Text, "draw", record)
    assert NOTE in figure.get_suptitle().replace("\n", " ")
    assert "Figure" in figure.get_suptitle()
    png, pdf = save_figure(figure, tmp_path / "figures", NAMES["figure1"])
    picture = np.asarray(Image.open(png))
    assert picture.shape[:2] == pytest.approx(figure.get_size_inches()[::-1] * figure.dpi, abs=1)
    assert picture.std() > 1
    assert pdf.read_bytes().startswith(b"%PDF") and pdf.read_bytes().rstrip().endswith(b"%%EOF")
    assert sorted(path.name for path in png.parent.iterdir()) == sorted([pdf.name, png.name])

    page = figure.bbox
    for text, box in drawn:
        assert min(box.x0 - page.x0, page.x1 - box.x1, box.y0 - page.y0, page.y1 - box.y1) > -1, f"{text} is cut off"
    boxes = np.array([box.extents for _, box in drawn])
    common = np.minimum(boxes[:, None, 2:], boxes[None, :, 2:]) - np.maximum(boxes[:, None, :2], boxes[None, :, :2])
    clash = np.triu((common > 2).all(2), 1)  # boxes are a little larger than the ink
    assert not clash.any(), [(drawn[i][0], drawn[j][0]) for i, j in np.argwhere(clash)]


@pytest.mark.parametrize("name", ["figure 1", "figure 3, 10 nodes"])
def test_equal_figures_give_equal_bytes(name, tmp_path):
    first = [path.read_bytes() for path in save_figure(FIGURES[name](), tmp_path / "a", "f")]
    second = [path.read_bytes() for path in save_figure(FIGURES[name](), tmp_path / "b", "f")]
    assert first == second


def test_a_failed_write_leaves_nothing_behind(tmp_path, monkeypatch):
    def full_disk(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full_disk)
    with pytest.raises(UserError, match="No space left"):
        save_figure(FIGURES["figure 4, skipped"](), tmp_path, "f")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("width", "nm"), [(60, 10.0), (1024, 4.0), (250, 10.0), (33, 48.0), (90, 0.7)])
def test_scale_bar_is_as_long_as_its_label_says(width, nm):
    axes = Page(6, 4, "t").picture(0.2, 0.3, 3, 3, np.zeros((20, 20), np.uint8), "p")
    set_extent(axes, (width, width))
    bar = scale_bar(axes, nm)
    number, unit = bar.label.split()
    stated = float(number) * {"nm": 1, "µm": 1000}[unit]
    (drawn,) = [patch for patch in axes.patches if patch.get_gid() == "scale_bar"]
    assert drawn.get_width() * nm == pytest.approx(stated)
    assert 0.05 < drawn.get_width() / width < 0.4
    assert abs(np.subtract(*axes.get_xlim())) == width


def test_pictures_keep_their_physical_shape():
    """One µm is as long down as across, in sections and in cuts, at anisotropy 12."""
    figure = figure1(*volume((40, 80, 100)), (48, 4, 4))
    for axes in figure.axes:
        box = axes.get_position()
        across = box.width * figure.get_figwidth() / abs(np.subtract(*axes.get_xlim()))
        down = box.height * figure.get_figheight() / abs(np.subtract(*axes.get_ylim()))
        section = abs(np.subtract(*axes.get_ylim())) == 80
        assert down / across == pytest.approx(1 if section else 12, rel=1e-6)


def test_thin_stacks_say_that_they_are_stretched():
    assert re.search(r"z × \d", words(figure1(*volume((2, 80, 100)), (10, 10, 10))))


def test_figures_say_what_is_missing():
    assert "No synapse candidates" in words(FIGURES["figure 2, no candidates"]())
    assert "graph is empty" in words(FIGURES["figure 3, empty"]())
    assert "Aligned already." in words(FIGURES["figure 4, skipped"]())
    assert "single section" in words(FIGURES["figure 1, one section"]())


def test_figure2_shows_the_section_with_most_candidates():
    table = candidates(6)
    table["z"] = [2.0, 7.0, 7.2, 8.4, 9.0, 11.0]
    assert "sections z = 8 ± 1 have most (4)" in words(figure2(*volume()[2:], table, (10, 10, 10), 0.4))


def test_arrows_point_from_pre_to_post():
    labels = np.ones((1, 20, 20), int)
    labels[:, :, 10:] = 2
    table = pd.DataFrame({"z": 0, "y": 10, "x": [10, 10, 2], "pre_id": [1, 2, 1], "post_id": [2, 1, 9]})
    way = directions(table, labels, (10, 10))
    assert way[:2] == pytest.approx(np.array([[0, 1], [0, -1]]))
    assert np.isnan(way[2]).all()
    table[ENDS] = [[0, 5, 5, 0, 8, 1]] * 3
    assert directions(table, labels, (10, 10))[0] == pytest.approx([0.6, -0.8])


def test_close_views_are_the_best_the_middle_and_the_last_that_count():
    table = candidates(40).assign(score=np.arange(40) / 40)
    rows = close_views(table, 0.5)
    assert [chosen["score"].mul(40).round().astype(int).tolist() for _, chosen in rows] == [
        [39, 38, 37],
        [30, 29, 28],
        [22, 21, 20],
    ]
    for count in range(1, 12):  # never one candidate twice, and as many rows as there are candidates for
        rows = close_views(table.head(count), None)
        ids = [score for _, chosen in rows for score in chosen["score"]]
        assert len(set(ids)) == len(ids) == min(count, 9) and len(rows) == -(-min(count, 9) // 3)
    words, chosen = close_views(table, 2)[0]
    assert "none reaches the minimum" in words and len(chosen) == 3 and close_views(table.head(0), 0.5) == []


def ball(shape=(40, 40, 40), radius=12):
    z, y, x = np.ogrid[tuple(slice(n) for n in shape)]
    return ((z - 20) ** 2 + (y - 20) ** 2 + (x - 20) ** 2 <= radius**2).astype(np.int32)


def test_points_lie_on_the_surface_and_look_outwards():
    (cloud,) = surface_clouds(ball(), [1], (10, 10, 10), 10.0)
    away = cloud.points - 205
    distance = np.linalg.norm(away, axis=1)
    assert abs(distance.mean() - 120) < 4 and distance.std() < 4
    assert ((away / distance[:, None]) * cloud.normals).sum(1).min() > 0.95


def test_a_view_is_no_mirror_image_and_the_nearer_neurite_hides_the_other():
    """Seen from straight above a section looks as it does on a screen: x to the right, y down."""
    labels = np.zeros((30, 40, 60), np.int32)
    labels[3:8, 5:15, 40:55] = 1  # top right, in the first sections
    labels[20:25, 2:20, 35:58] = 2  # below it
    labels[3:8, 25:35, 5:20] = 3  # bottom left
    clouds = surface_clouds(labels, [1, 2, 3], (10, 10, 10), 10.0)
    colours = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255]])
    above = draw_clouds(clouds, colours, (300, 400, 600), 10.0, View(0, 90), (80, 120))
    seen = above.place([[50, 100, 475], [225, 30, 370], [50, 300, 125]]).round().astype(int)
    assert [above.rgba[y, x, :3].argmax() for x, y, _ in seen] == [0, 1, 2]
    (x1, y1, d1), _, (x3, y3, _) = above.place([[50, 100, 475], [225, 100, 475], [50, 300, 125]])
    assert x1 > x3 and y1 < y3 and d1 > above.place([[225, 100, 475]])[0, 2]
    axes = View(33, 21).axes()
    assert axes @ axes.T == pytest.approx(np.eye(3))
    assert np.linalg.det(axes[:, ::-1]) == pytest.approx(1), "right, up, towards the viewer as x, y, z: no mirror"


def test_a_scale_bar_holds_across_the_line_of_sight():
    picture = draw_clouds([], np.zeros((0, 3)), (300, 400, 600), 10.0, View(33, 21), (80, 120))
    right = picture.axes[0]
    (x0, y0, _), (x1, y1, _) = picture.place([picture.middle_nm, picture.middle_nm + 100 * right])
    assert (x1 - x0) * picture.nm_per_pixel == pytest.approx(100) and y0 == pytest.approx(y1)
    assert (picture.rgba == 0).all()


def test_the_coarse_grid_has_a_bounded_number_of_voxels():
    for shape, size in (((20, 4096, 4096), (50, 4, 4)), ((500, 500, 500), (10, 10, 10)), ((3, 9, 9), (40, 8, 8))):
        side = grid_nm(shape, size)
        assert np.prod(np.multiply(shape, size) / side) < 1.01e6 and side >= min(size)


def test_figure3_counts_what_it_shows():
    big = graph(10_000)
    part = strongest_part(edge_table(big))
    title = figure3(big).get_suptitle().replace("\u202f", "").replace("\n", " ")
    assert f"{len(part.nodes)} strongest of 10000 neurites" in title
    assert f"{len(part.source)} of {big.number_of_edges()} connections shown" in title


def test_strongest_part_holds_the_heaviest_edges_whatever_their_order():
    edges = edge_table(graph(300))
    part = strongest_part(edges, max_nodes=20, max_edges=15)
    assert len(part.nodes) <= 20 and len(part.source) <= 15
    proper = edges[edges.source != edges.target]
    assert part.weight.max() == proper.weight.max()
    shuffled = strongest_part(edges.sample(frac=1, random_state=1), max_nodes=20, max_edges=15)
    assert shuffled.nodes == part.nodes and np.array_equal(shuffled.source, part.source)


@pytest.mark.parametrize("n", [1, 2, 10, 60])
def test_layout_keeps_labels_apart_and_inside(n):
    part = strongest_part(edge_table(graph(40 * n)), max_nodes=n + 1)
    n = len(part.nodes)
    xy = layout(part.source, part.target, n, 480, 470, (30, 25))
    assert (xy >= (14, 12)).all() and (xy <= (466, 458)).all()
    gap = np.abs(xy[:, None] - xy[None]) / (30, 25)
    np.fill_diagonal(gap[..., 0], 9)
    assert gap.max(2).min(initial=9) > 0.9


def test_colours_of_labels_do_not_depend_on_what_else_is_there():
    ids = np.array([[5, 9], [2**40, 5]])
    assert np.array_equal(label_colours(ids)[0, 0], label_colours(np.array([5]))[0])
    assert len(np.unique(label_colours(np.arange(1, 61)), axis=0)) == 60


def test_overlay_leaves_background_grey():
    grey = np.full((8, 8), 100, np.uint8)
    assert (overlay(grey, np.zeros((8, 8), int), (16, 16)) == 100).all()


def test_outline_is_closed_inside_the_picture():
    mask = np.zeros((5, 6), bool)
    mask[1:3, 2:5] = True
    assert len(outline(mask).vertices) == 2 * 10  # the perimeter of a 2 × 3 rectangle


def png_bytes():
    buffer = io.BytesIO()
    Image.new("RGB", (40, 20), "teal").save(buffer, format="png")
    return buffer.getvalue()


def context(**changes):
    base = {
        "title": "EM to wiring graph",
        "run_id": "r-17",
        "status": "finished",
        "dataset": "bossdb://a/b?<script>alert(1)</script>",
        "voxel_size_nm": (48.0, 4.0, 4.0),
        "shape": (64, 250, 251),
        "offset": (3, 1001, 2002),
        "seed": 4711,
        "command": "python run_pipeline.py --dataset x --note '<b>'",
        "synthetic_note": NOTE,
        "warnings": ["voxel size <assumed>"],
        "settings": {"align": {"reach": 3, "max_shift_px": 40.25}},
        "numbers": [Number("Neurites", 41_250, "kept labels"), Number("Mean score", 0.654321, unit="per candidate")],
        "scores": [Table("Segmentation", ["score", "value"], [["VOI split", 0.43219], ["adapted Rand", 0.087654]])],
        "tables": [Table.from_frame("Top candidates", candidates(30), 5, "Best first.", "../tables/c d.csv")],
        "figures": [FigureItem("Figure 1", "raw & aligned", png_bytes(), "../figures/f.pdf")],
        "distrust": ["few sections"],
        "timings": [Timing("align", 1.2345, 456.0), Timing("graph", 0.1)],
        "artefacts": [Artefact("data/l.npy", "neurites", (64, 250, 251), "int32", 16_064_000)],
        "versions": {"emlib": "0.9.9"},
    }
    return ReportContext(**{**base, **changes})


def test_report_contains_what_it_is_given():
    page = render_report(context())
    for needle in (
        "r-17 finished 251 × 250 × 64 2002, 1001, 3 4711 --note 41\u202f250 0.6543 0.4322 0.08765 40.25 1.23 456 0.9.9"
    ).split():
        assert needle in page.replace("&#39;", "'"), needle
    for needle in (NOTE, "few sections", "voxel size &lt;assumed&gt;", "5 of 30 rows shown", "15.3 MiB", "c%20d.csv"):
        assert needle in page, needle
    assert "quality unknown" not in page


def test_report_escapes_and_loads_nothing():
    page = render_report(context())
    assert "<script" not in page and "&lt;script&gt;" in page
    assert not re.search(r"(src|href)\s*=\s*[\"']?\s*(https?:|//|javascript:)", page)
    assert "@import" not in page and "url(" not in page
    assert page.count("<img") == page.count('src="data:image/png;base64,') == 1


def test_costs_are_told_per_megavoxel():
    timings = [Timing("align", 4.0, 400.0, 3.0), Timing("segment", 2.0, 600.0, 1.5)]
    table = cost_table(context(shape=(20, 500, 200), timings=timings, start_mib=200.0))
    assert table.columns == ["stage", "seconds", "CPU seconds", "s / Mvox", "peak MiB", "MiB / Mvox"]
    assert table.rows == [
        ["align", 4, 3, 2, 400, 100],
        ["segment", 2, 1.5, 1, 600, 200],
        ["total", 6, 4.5, 3, 600, 200],
    ]
    assert "2 megavoxels" in table.caption and "200 MiB" in table.caption and cost_table(context(timings=[])) is None
    page = render_report(context(timings=[Timing("align", 1.0)], used=Table("What each stage used", ["a"], [["<b>"]])))
    assert "What each stage used" in page and "&lt;b&gt;" in page


def test_links_cannot_carry_a_scheme():
    page = render_report(context(artefacts=[Artefact("javascript:alert(1)", "x")]))
    assert 'href="javascript:' not in page


def test_report_without_truth_says_that_quality_is_unknown():
    page = render_report(context(scores=None, synthetic_note=None))
    assert "No truth given: quality unknown" in page and "merge" in page
    assert "synthetic" not in page.lower()


def test_report_of_nothing():
    page = render_report(
        context(numbers=[], scores=None, tables=[], figures=[], timings=[], artefacts=[], settings={}, versions={})
    )
    assert "</html>" in page


@pytest.mark.parametrize(
    ("value", "column", "text"),
    [
        (np.int64(12345), "pre_id", "12345"),
        (12345, "voxels", "12\u202f345"),
        (np.float32(0.5), "score", "0.5"),
        (31.25, "pre_y", "31.2"),
        (float("nan"), "", "–"),
        (None, "", "–"),
        (np.True_, "", "yes"),
        (1e-7, "", "1e-07"),
        ((1, 99), "clip", "1, 99"),
        (pd.NA, "", "–"),
    ],
)
def test_values_are_written_for_readers(value, column, text):
    assert format_value(value, column) == text


@pytest.mark.gui
def test_report_in_a_browser(tmp_path):
    """All pictures decode, the page is no wider than a phone, and nothing but the page itself is asked for."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        pytest.skip("neither chromium nor google-chrome is installed")
    page = tmp_path / "report.html"
    # The report itself runs no script; this one is added to read what the browser made of it.
    probe = """<script>addEventListener("load", () => { document.title = "PROBE " + [
        [...document.images].filter(i => !i.naturalWidth).length, document.images.length,
        performance.getEntriesByType("resource").filter(e => !e.name.startsWith("data:")).length,
        document.documentElement.scrollWidth <= innerWidth].join(" "); });</script></body>"""
    page.write_text(render_report(context()).replace("</body>", probe), encoding="utf-8")
    flags = (
        "--headless --no-sandbox --disable-gpu --disable-background-networking --disable-sync --no-first-run".split()
    )
    flags += [
        f"--user-data-dir={tmp_path / 'profile'}",
        "--window-size=500,900",
        "--enable-logging=stderr",
        "--dump-dom",
    ]
    done = subprocess.run([browser, *flags, page.as_uri()], capture_output=True, text=True, timeout=120)
    found = re.search("<title>(PROBE [^<]*)", done.stdout)
    assert found and found.group(1) == "PROBE 0 1 0 true", found or done.stderr[-2000:]
    assert "CONSOLE" not in done.stderr
