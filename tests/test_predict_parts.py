"""The parts of a prediction: blocks, planes, memory, names, the record; against what is known by hand."""

import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from torch import nn

from emlib.annotations.classes import MaskClass
from emlib.errors import UserError
from emlib.learn.inference import predict_section
from emlib.learn.models.build import build_model
from emlib.learn.normalisation import Normalisation
from emlib.learn.prediction.blocks import BlockSettings, lay_blocks, predict_block, usable_grey
from emlib.learn.prediction.channels import channel_classes, chosen_channels
from emlib.learn.prediction.inputs import ImageInput, unique_names
from emlib.learn.prediction.memory import GB, PROGRAM, measure_bytes_per_pixel, plan_memory
from emlib.learn.prediction.predictor import Predictor, SomeChannels
from emlib.learn.prediction.record import DONE, RECORD, open_journal
from emlib.learn.prediction.run import check_planes, compare_sizes, folder_name
from emlib.learn.prediction.stores import Store
from emlib.learn.tiles import TileSettings
from emlib.volumes.ome_zarr import open_zarr

RNG = np.random.default_rng(0)
SMALL = TileSettings(128, 64)


def blurring(channels: int = 2) -> Predictor:
    """A network that looks 3 pixels far: different convolutions for each channel."""
    torch.manual_seed(0)
    network = nn.Conv2d(1, channels, 7, padding=3)
    names = [f"o{k}" for k in range(channels)]
    classes = channel_classes(names, "sigmoid", {})
    return Predictor(network, classes, "sigmoid", Normalisation(0.5, 0.25), None, Path("m.pth"), "0" * 64)


def whole(predictor, volume, axis=0):
    planes = np.moveaxis(volume, axis, 0)
    found = [predict_section(predictor.network, one, predictor.normalisation, SMALL) for one in planes]
    return np.moveaxis(np.stack(found, 1), 1, axis + 1)


def in_blocks(predictor, volume, most, how):
    out = np.full((len(predictor.classes), *volume.shape), np.nan, np.float32)
    boxes = lay_blocks(volume.shape, most, how, 1)
    for box in boxes:
        out[(slice(None), *box)] = predict_block(predictor, lambda part: volume[part], volume.shape, box, how)
    return out, len(boxes)


def test_blocks_give_what_the_whole_section_gives():
    predictor, volume = blurring(), RNG.integers(0, 256, (1, 1160, 200), np.uint8)
    expected = whole(predictor, volume)
    for most, count in ((10**9, 1), (231_000, 2), (130_000, 3)):
        found, blocks = in_blocks(predictor, volume, most, BlockSettings(SMALL))
        assert blocks >= count and np.abs(found - expected).max() < 1e-6


def test_orthogonal_is_the_mean_of_three_planes():
    predictor, volume = blurring(), RNG.integers(0, 256, (12, 70, 300), np.uint8)
    expected = sum(whole(predictor, volume, axis) for axis in range(3)) / 3
    how = BlockSettings(SMALL, orthogonal=True)
    for most in (10**9, 165_000):
        found, blocks = in_blocks(predictor, volume, most, how)
        assert np.abs(found - expected).max() < 1e-6 and (blocks > 1) == (most < 10**9)


def test_no_block_exceeds_what_is_allowed():
    how = BlockSettings(SMALL)
    for box in lay_blocks((1, 5000, 3000), 600_000, how, 1):
        assert np.prod([min(5000, s.stop + 64) - max(0, s.start - 64) for s in box[1:]]) <= 600_000
    with pytest.raises(UserError, match="--memory_gb 1 is too little"):
        lay_blocks((1, 5000, 3000), 300_000, how, 1)


def test_resampled_sections_are_seen_at_the_models_pixels():
    """A blob of 12 pixels at half the pixel size is one of 6 pixels to the network, and lies where it lay."""
    seen = []

    class Spy(nn.Module):
        def forward(self, x):
            seen.append(x.shape)
            return 20 * (x - 0.5)

    image = np.zeros((1, 120, 160), np.uint8)
    image[0, 40:52, 60:72] = 255
    spy = Predictor(Spy(), channel_classes(["o"], "sigmoid", {}), "sigmoid", Normalisation(), None, Path("m"), "")
    how = BlockSettings(SMALL, factors=(1.0, 0.5, 0.5))
    found, _ = in_blocks(spy, image, 10**9, how)
    assert seen[0][-2:] == (64 + 64, 96 + 64)  # 60 × 80 up to the grid, and the margin
    mask = found[0, 0] >= 0.5
    assert (mask == (image[0] > 0)).mean() > 0.995 and mask[42:50, 62:70].all()


def test_grey_values_that_nobody_knows_the_range_of():
    for array in (np.array([0.0, 300.0]), np.array([-5, 5], np.int16)):
        with pytest.raises(UserError, match="--grey_range LOW HIGH"):
            usable_grey(array, None)
        assert usable_grey(array, (-5, 300)).max() <= 1
    with pytest.raises(UserError, match="NaN"):
        usable_grey(np.array([np.nan]), None)


@pytest.mark.parametrize("widths", [[8, 16], [24, 48, 96, 160]])
def test_counted_memory_is_linear_in_pixels(widths):
    network = build_model(
        {"name": "experts-laptop", "organelles": ["a", "b"], "widths": widths, "expert_widths": [8] * len(widths)}
    )
    small, large = (measure_bytes_per_pixel(network, side) for side in (128, 256))
    assert small == pytest.approx(large, rel=0.02) and network.training


def test_counted_memory_is_that_of_the_layers():
    """Chain: input and output of a layer live at once; 1 → 32 → 16 channels peak at 1 + 32 + 16."""
    network = nn.Sequential(nn.Conv2d(1, 32, 1, bias=False), nn.Conv2d(32, 16, 1, bias=False), nn.Conv2d(16, 1, 1))
    assert measure_bytes_per_pixel(network, 64) == 4 * (1 + 32 + 16)


def test_planned_memory_stays_below_the_limit():
    for limit in (1.0, 2.0, 8.0):
        plan = plan_memory(limit, 1000, 4)
        assert plan.tile % 32 == plan.overlap % 32 == 0 and 2 * plan.overlap <= plan.tile
        assert PROGRAM + 1.6 * 1000 * (plan.tile + 64) ** 2 + plan.room <= limit * GB
    with pytest.raises(UserError, match=r"--memory_gb 0\.7 is too little for this model"):
        plan_memory(0.7, 5000, 4)


def test_some_experts_alone_decode():
    torch.manual_seed(0)
    network = build_model({"name": "experts-laptop", "organelles": list("abc"), "widths": [8], "expert_widths": [8]})
    image = torch.rand(1, 1, 33, 47)
    with torch.no_grad():
        few = SomeChannels(network.eval(), [2, 0])
        assert few.decodes and torch.equal(few(image), network(image)[:, [2, 0]])


def test_chosen_organelles():
    classes = channel_classes(["background", "er", "golgi"], "softmax", {})
    assert chosen_channels(classes, "softmax", ["golgi"], "m") == (2,)
    with pytest.raises(UserError, match="has no 'golgy'; did you mean golgi"):
        chosen_channels(classes, "softmax", ["golgy"], "m")
    with pytest.raises(UserError, match="has no 'background'"):
        chosen_channels(classes, "softmax", ["background"], "m")


def test_names_never_clash():
    paths = ["a/x.png", "b/x.png", "b/X.tif", "c/a_x.png", "b/y.png", "d/b/x.png"]
    names = unique_names([Path(p) for p in paths])
    assert len({name.lower() for name in names}) == len(paths) and names[4] == "y"
    many = [Path(f"{folder}/{stem}.{end}") for folder in "ab" for stem in ("x", "X", "b_x") for end in ("png", "tif")]
    assert len({name.lower() for name in unique_names(many)}) == len(many)


def test_colour_of_a_tiff_however_it_is_stored_becomes_grey(tmp_path):
    rgb = RNG.integers(0, 255, (20, 24, 3), np.uint8)
    expected, lines = np.asarray(Image.fromarray(rgb).convert("L")), []
    tifffile.imwrite(tmp_path / "planes.tif", np.moveaxis(rgb, -1, 0), photometric="rgb", planarconfig="separate")
    assert np.array_equal(ImageInput("a", tmp_path / "planes.tif").read(lines.append), expected)
    palette = Image.fromarray(rgb).quantize(16)
    palette.save(tmp_path / "palette.tif")
    found = ImageInput("b", tmp_path / "palette.tif").read(lines.append)
    assert np.array_equal(found, np.asarray(palette.convert("RGB").convert("L")))
    assert [line.split(" is in colour; ")[1] for line in lines] == ["its brightness is taken"] * 2
    tifffile.imwrite(tmp_path / "grey.tif", np.stack([expected] * 3, -1), photometric="rgb")
    assert np.array_equal(ImageInput("c", tmp_path / "grey.tif").read(lines.append), expected) and len(lines) == 2


def test_planes_of_long_voxels_are_refused():
    with pytest.raises(UserError, match=r"50 × 4 × 4 nm \(z, y, x\), a factor of 12\.5"):
        check_planes((9, 9, 9), (50, 4, 4), "a.tif")
    with pytest.raises(UserError, match=r"voxel size of a\.tif is unknown; give --voxel_size"):
        check_planes((9, 9, 9), None, "a.tif")
    assert compare_sizes((50, 4, 4), (50, 4.01, 4), False) is None
    assert "a factor of 0.5" in compare_sizes((50, 2, 2), (50, 4, 4), False)


@pytest.mark.parametrize("name", ["../x", "/etc", "", ".git", "a/b", "a\\b"])
def test_an_organelle_that_leads_out_of_the_folder(name):
    with pytest.raises(UserError, match="no name for a folder"):
        folder_name(name)


RECORDED = {"model": {"sha256": "a"}, "settings": {"threshold": 0.5}, "inputs": [{"name": "x"}]}


def opened(root, resume=False, overwrite=False, **changes):
    record = {**RECORDED, **changes}
    return open_journal(root, record, folders=["masks"], resume=resume, overwrite=overwrite)


def test_a_journal_that_was_cut_short(tmp_path):
    journal = opened(tmp_path)
    (tmp_path / "masks").mkdir()
    for name in "xyz":
        (tmp_path / f"masks/{name}.png").write_text(name)
        journal.add(name, files=[f"masks/{name}.png"], pixels=1)
    text = (tmp_path / DONE).read_text()
    (tmp_path / DONE).write_text(text[:-5])  # killed while the last line was written
    (tmp_path / "masks/y.png").unlink()
    again = opened(tmp_path, resume=True)
    assert again.get("x")["pixels"] == 1 and again.get("y") is None and again.get("z") is None
    again.add("z", files=["masks/z.png"], pixels=1)
    assert [json.loads(line)["name"] for line in (tmp_path / DONE).read_text().splitlines()] == ["x", "y", "z"]
    assert opened(tmp_path).get("x") is None  # without --resume all is done anew


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model": {"sha256": "b"}}, "another model"),
        ({"inputs": []}, "other inputs"),
        ({"settings": {"threshold": 0.6}}, "threshold was 0.5 and is 0.6"),
    ],
)
def test_results_of_other_work_are_kept(tmp_path, changes, said):
    journal = opened(tmp_path)
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks/x.png").write_text("old")
    (tmp_path / "masks/mine.txt").write_text("not of emlib")
    journal.add("x", files=["masks/x.png"])
    for resume in (False, True):
        with pytest.raises(UserError, match=said):
            opened(tmp_path, resume=resume, **changes)
    assert (tmp_path / "masks/x.png").exists()
    opened(tmp_path, overwrite=True, **changes)
    assert not (tmp_path / "masks/x.png").exists() and (tmp_path / "masks/mine.txt").exists()


def test_a_damaged_record_is_told(tmp_path):
    (tmp_path / RECORD).write_text("{")
    with pytest.raises(UserError, match="is damaged; choose another --output"):
        opened(tmp_path)


def test_masks_drawn_by_hand_are_not_replaced(tmp_path):
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks/x.png").write_text("by hand")
    with pytest.raises(UserError, match="no predictions on record"):
        opened(tmp_path)


def test_a_store_is_an_ome_zarr_with_its_voxel_size(tmp_path):
    store, block = Store(tmp_path / "a.zarr"), RNG.integers(0, 9, (2, 64, 36), np.uint8)
    assert not store.complete
    store.create((3, 64, 100), np.dtype(np.uint8), (1, 64, 64), (40, 4, 4))
    store.write((slice(1, 3), slice(0, 64), slice(64, 100)), block)
    source = open_zarr(store.path, fill_missing=True)  # of a block that is still to come
    found = source.read((slice(0, 3), slice(0, 64), slice(0, 100)))
    assert source.voxel_size_nm == (40, 4, 4) and not found[:, :, :64].any() and not found[0].any()
    assert np.array_equal(found[1:, :, 64:], block)
    store.create((3, 64, 100), np.dtype(np.uint8), (1, 64, 64), None)
    assert open_zarr(store.path).voxel_size_nm is None


def test_an_image_mask_of_many_ids():
    ids = {MaskClass(300, "er", (0, 0, 0)): 0}
    from emlib.learn.prediction.channels import index_mask

    assert index_mask({next(iter(ids)): np.array([True])}, (1,)).tolist() == [300]


def test_blocks_of_a_large_image_need_little_memory():
    """Peak of NumPy's memory: one block and its margin, not the image."""
    predictor = blurring()
    shape, how = (1, 2048, 1536), BlockSettings(TileSettings(512, 64))
    peaks = []
    for most in (10**9, 450_000):
        boxes = lay_blocks(shape, most, how, 1)
        tracemalloc.start()
        predict_block(predictor, lambda box: np.zeros([s.stop - s.start for s in box], np.uint8), shape, boxes[0], how)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] / 3
