"""Data for training: what is found, what is refused, and which patches come out."""

import multiprocessing
import os
import pickle
import re
import shutil
import signal

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from emlib.errors import UserError
from emlib.learn.datasets.domain import check_splits, find_split
from emlib.learn.datasets.images import read_grey, read_mask
from emlib.learn.datasets.patches import PatchBatches, PatchSettings, reflected_crop
from emlib.learn.datasets.sections import grey_statistics, open_sections
from emlib.learn.normalisation import Normalisation
from emlib.learn.transforms import PRESETS
from emlib.volumes.synthetic import SYNTHETIC_MARK

PLAIN = Normalisation()
ORGANELLES = ("membranes", "mitochondria", "synapses", "vesicles")


@pytest.fixture
def own_domain(tiny_domain, tmp_path):
    """A copy of the domain whose files may be changed."""
    shutil.copytree(tiny_domain / "phantom", tmp_path / "phantom")
    return tmp_path


def train(root, organelles=None):
    return find_split(root, "phantom", "train", organelles)


def refused(root, patch_size=None, splits=("train",)):
    with pytest.raises(UserError) as error:
        check_splits([find_split(root, "phantom", split) for split in splits], patch_size)
    assert "\n" not in str(error.value)
    return str(error.value)


def batches(sections, augment=None, seed=0, rank=0, world=1, **settings):
    settings = PatchSettings(**{"size": 32, "stride": 16, "batch_size": 4, **settings})
    return PatchBatches(sections, settings, normalisation=PLAIN, seed=seed, augment=augment, rank=rank, world=world)


def equal(one, other):
    return torch.equal(one[0], other[0]) and torch.equal(one[1], other[1])


# ---- what is found


def test_organelles_and_sections_are_found_from_the_folders(tiny_domain):
    split = train(tiny_domain)
    assert split.organelles == ORGANELLES and len(split.sections) == 8
    assert all(section.masks.keys() == set(ORGANELLES) for section in split.sections)
    assert all(path.stem == section.name for section in split.sections for path in section.masks.values())
    assert train(tiny_domain, ["vesicles", "membranes"]).organelles == ("vesicles", "membranes")


def test_the_mark_of_synthetic_data_is_no_data(own_domain):
    mark = own_domain / "phantom" / SYNTHETIC_MARK
    assert "not real data" in mark.read_text(encoding="utf-8")
    for folder in (own_domain, own_domain / "phantom" / "train", own_domain / "phantom" / "train" / "raw"):
        shutil.copy(mark, folder)
    split = train(own_domain)
    assert split.organelles == ORGANELLES and len(open_sections(split)) == 8 and check_splits([split], 96) == []


def test_a_split_without_masks_can_be_opened_when_none_is_asked_for(tiny_domain):
    assert open_sections(train(tiny_domain, [])).masks(0).shape == (0, 96, 128)


@pytest.mark.parametrize(
    ("domain", "split", "organelles", "message"),
    [
        ("phantm", "train", None, "no data set 'phantm'; did you mean phantom?"),
        ("phantom", "holdout", None, "has no holdout/raw; it has train, val, test"),
        ("phantom", "train", ["mito"], "no masks of 'mito'; did you mean mitochondria?"),
        ("phantom", "train", ["nuclei"], "membranes, mitochondria, synapses, vesicles"),
    ],
)
def test_what_does_not_exist_is_answered_by_what_does(tiny_domain, domain, split, organelles, message):
    with pytest.raises(UserError, match=message.replace("?", r"\?")):
        find_split(tiny_domain, domain, split, organelles)


def test_a_missing_root_says_how_to_get_data(tmp_path):
    for root in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(UserError, match=r"fetch_data\.py"):
            find_split(root, "phantom", "train")


@pytest.mark.parametrize("split", ["val", "test"])
def test_a_domain_without_val_or_test(own_domain, split):
    shutil.rmtree(own_domain / "phantom" / split)
    with pytest.raises(UserError, match=f"has no {split}/raw; it has train"):
        find_split(own_domain, "phantom", split)


def test_a_split_without_masks_is_refused(own_domain):
    for name in ORGANELLES:
        shutil.rmtree(own_domain / "phantom" / "train" / name)
    with pytest.raises(UserError, match="has no masks; put those of each organelle in a folder beside raw"):
        train(own_domain)
    with pytest.raises(UserError, match="has no masks; put those"):
        train(own_domain, ["membranes"])


def test_two_files_of_one_section_and_an_organelle_called_average(own_domain):
    raw = own_domain / "phantom" / "train" / "raw"
    (raw.parent / "vesicles").rename(raw.parent / "average")
    with pytest.raises(UserError, match="no organelle can be called average"):
        train(own_domain)
    shutil.rmtree(raw)
    raw.mkdir()
    for suffix in ("tif", "tiff"):
        tifffile.imwrite(raw / f"01.{suffix}", np.zeros((96, 128), np.uint8))
    with pytest.raises(UserError, match="several files for the section 01"):
        train(own_domain, ["membranes"])


# ---- what the check lists


def test_a_good_domain_passes(tiny_domain):
    assert check_splits([find_split(tiny_domain, "phantom", split) for split in ("train", "val", "test")], 96) == []


def test_all_problems_are_listed_at_once(own_domain):
    folder = own_domain / "phantom" / "train"
    names = sorted(path.stem for path in (folder / "raw").iterdir())
    (folder / "membranes" / f"{names[0]}.png").unlink()
    (folder / "vesicles" / f"{names[1]}.png").rename(folder / "vesicles" / "99.png")
    Image.fromarray(np.zeros((50, 60), np.uint8)).save(folder / "synapses" / f"{names[2]}.png")
    (folder / "raw" / f"{names[3]}.png").write_bytes(b"no image")
    Image.fromarray(np.zeros((40, 128), np.uint8)).save(folder / "raw" / f"{names[4]}.png")
    message = refused(own_domain, patch_size=64)
    for part in (
        f"raw/{names[0]}.png has no mask of membranes",
        f"raw/{names[1]}.png has no mask of vesicles",
        "has a mask 99, but",
        "is 50 × 60",
        f"cannot read {folder / 'raw' / names[3]}.png",
        f"a patch of 64 px is larger than section {folder / 'raw' / names[4]}.png (40 × 128); use --patch_size 40",
    ):
        assert part in message
    assert message.startswith("10 problems in the data: (1)")  # the fifth section has four masks of another size


def test_problems_of_all_splits_are_listed_but_not_without_end(own_domain):
    message = refused(own_domain, patch_size=128, splits=("train", "val", "test"))
    assert message.startswith("12 problems") and "/test/raw/" in message
    for split in ("train", "val", "test"):
        shutil.rmtree(own_domain / "phantom" / split / "vesicles")
        shutil.copytree(own_domain / "phantom" / split / "raw", own_domain / "phantom" / split / "vesicles")
        for path in (own_domain / "phantom" / split / "vesicles").iterdir():
            path.rename(path.with_name(f"x{path.name}"))
    assert "; and 16 more" in refused(own_domain, patch_size=128, splits=("train", "val", "test"))


def test_empty_and_grey_masks_are_warnings(own_domain):
    folder = own_domain / "phantom" / "train"
    for path in (folder / "synapses").iterdir():
        Image.fromarray(np.zeros((96, 128), np.uint8)).save(path)
    path = min((folder / "vesicles").iterdir())
    grey = np.array(Image.open(path))
    grey[0, :3] = 127, 128, 200
    Image.fromarray(grey).save(path)
    empty, blurred = check_splits([train(own_domain)])
    assert "synapses: all 8 masks are empty" in empty
    assert "vesicles: 1 of 8 masks are not binary; foreground is from half range on" in blurred
    sections = open_sections(train(own_domain, ["vesicles"]))
    assert sections.masks(0)[0, 0, :3].tolist() == [0, 1, 1]
    assert sections.masks(0)[0, 1:].tolist() == (grey[1:] == 255).astype(int).tolist()


def test_ids_and_mixed_types_are_no_masks(own_domain):
    folder = own_domain / "phantom" / "train"
    for path in (folder / "synapses").iterdir():
        Image.fromarray(np.arange(96 * 128, dtype=np.uint8).reshape(96, 128) % 9).save(path)
    Image.fromarray(np.full((96, 128), 65535, np.uint16)).save(min((folder / "vesicles").iterdir()))
    message = refused(own_domain)
    assert "none in the upper half of its range" in message and "convert them alike" in message
    with pytest.raises(UserError, match="upper half"):
        open_sections(train(own_domain, ["synapses"]))


def test_opening_refuses_what_the_check_would_list(own_domain):
    folder = own_domain / "phantom" / "train"
    path = min((folder / "vesicles").iterdir())
    path.unlink()
    with pytest.raises(UserError, match="has no mask of vesicles"):
        open_sections(train(own_domain))
    Image.fromarray(np.zeros((96, 127), np.uint8)).save(path)
    with pytest.raises(UserError, match="96 × 127"):
        open_sections(train(own_domain))


# ---- images


def test_every_way_to_store_a_grey_image_reads_alike(tmp_path):
    grey = np.random.default_rng(0).integers(0, 256, (20, 30), dtype=np.uint8)
    rgb = np.repeat(grey[..., None], 3, axis=-1)
    opaque = np.dstack([rgb, np.full_like(grey, 255)])
    palette = Image.fromarray(255 - grey, "P")
    palette.putpalette([level for value in range(255, -1, -1) for level in (value,) * 3])
    for name, image in {"l": grey, "rgb": rgb, "rgba": opaque, "la": opaque[..., 2:]}.items():
        Image.fromarray(image).save(tmp_path / f"{name}.png")
    palette.save(tmp_path / "palette.png")
    tifffile.imwrite(tmp_path / "l.tif", grey)
    tifffile.imwrite(tmp_path / "deflate.tif", grey, compression="zlib")
    tifffile.imwrite(tmp_path / "white0.tif", ~grey, photometric="miniswhite")
    tifffile.imwrite(tmp_path / "rgb.tif", rgb, photometric="rgb")
    tifffile.imwrite(tmp_path / "planes.tif", np.moveaxis(rgb, -1, 0), photometric="rgb", planarconfig="separate")
    ramp = np.repeat(np.arange(256, dtype=np.uint16)[None] * 257, 3, axis=0)
    tifffile.imwrite(tmp_path / "lut.tif", 255 - grey, photometric="palette", colormap=ramp[:, ::-1])
    paths = sorted(tmp_path.iterdir())
    assert len(paths) == 11
    for path in paths:
        assert np.array_equal(read_grey(path), grey), path.name
        assert read_grey(path).dtype == np.uint8, path.name
    assert np.array_equal(read_mask(tmp_path / "palette.png"), 255 - grey)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_stay(tmp_path, suffix):
    grey = np.random.default_rng(0).integers(0, 65536, (20, 30), dtype=np.uint16)
    path = tmp_path / f"a.{suffix}"
    if suffix == "png":
        Image.fromarray(grey).save(path)
    else:
        tifffile.imwrite(path, grey, byteorder=">")
    assert read_grey(path).dtype == np.uint16 and np.array_equal(read_grey(path), grey)


def test_what_is_no_grey_section_is_refused(tmp_path):
    colour = np.zeros((8, 8, 3), np.uint8)
    colour[2, 3, 1] = 1
    Image.fromarray(colour).save(tmp_path / "colour.png")
    Image.fromarray(np.full((8, 8, 4), 9, np.uint8)).save(tmp_path / "clear.png")
    tifffile.imwrite(tmp_path / "float.tif", np.zeros((8, 8), np.float32))
    tifffile.imwrite(tmp_path / "stack.tif", np.zeros((3, 8, 8), np.uint8), photometric="minisblack")
    for name, message in {
        "colour.png": "red, green and blue differ",
        "clear.png": "partly transparent",
        "float.tif": "float32; convert it to 8-bit or 16-bit",
        "stack.tif": "holds 3 images",
    }.items():
        with pytest.raises(UserError, match=message):
            read_grey(tmp_path / name)


# ---- sections


def test_sections_hold_what_the_files_hold(tiny_domain):
    split = train(tiny_domain)
    sections = open_sections(split)
    for index, files in enumerate(split.sections):
        assert np.array_equal(sections.image(index), np.asarray(Image.open(files.raw)))
        expected = [np.asarray(Image.open(files.masks[name])) == 255 for name in ORGANELLES]
        assert np.array_equal(sections.masks(index), expected)
        assert sections.shape(index) == (96, 128) and sections.names[index] == files.name


def test_a_set_larger_than_memory_gives_the_same_and_keeps_to_its_limit(tiny_domain, monkeypatch):
    whole, lazy = open_sections(train(tiny_domain)), open_sections(train(tiny_domain), memory_gb=3 * 96 * 128 * 6e-9)
    assert (whole.resident, lazy.resident) == (8, 3)
    for index in (0, 5, 0, 7, 3, 3, 1):
        assert np.array_equal(lazy.image(index), whole.image(index))
        assert np.array_equal(lazy.masks(index), whole.masks(index))
        assert len(lazy._cache) <= 3
    assert len(pickle.dumps(lazy)) < 10**5 < len(pickle.dumps(whole))
    assert np.array_equal(pickle.loads(pickle.dumps(lazy)).masks(2), whole.masks(2))

    decoded = []
    from emlib.learn.datasets import sections as module

    decode = module.decode
    monkeypatch.setattr(module, "decode", lambda section, split: decoded.append(section.name) or decode(section, split))
    lazy._cache.clear()
    for _ in batches(lazy).loader(0):
        pass
    first_places = batches(lazy).batch(0, 0)  # the last batch is filled from the front, which may decode again
    assert len(set(decoded)) == 8 and len(decoded) <= 8 + 3 and first_places[0].shape == (4, 1, 32, 32)


def test_grey_statistics_are_those_of_all_pixels(own_domain):
    folder = own_domain / "phantom" / "train" / "raw"
    path = min(folder.iterdir())
    Image.fromarray(np.asarray(Image.open(path)).astype(np.uint16) * 257).save(path)
    sections = open_sections(train(own_domain))
    grey = np.concatenate(
        [sections.image(i).ravel() / np.iinfo(sections.image(i).dtype).max for i in range(len(sections))]
    )
    found = grey_statistics(sections)
    assert (found.mean, found.std) == (pytest.approx(grey.mean(), abs=1e-12), pytest.approx(grey.std(), abs=1e-12))


# ---- patches


def test_the_grid_shows_every_place_once_per_epoch(tiny_domain):
    sections = open_sections(train(tiny_domain))
    made = batches(
        sections, size=40, stride=24
    )  # 96 = 40 + 2·24 + 8, so that a flush row is added; 128 = 40 + 3·24 + 16
    rows, columns = [0, 24, 48, 56], [0, 24, 48, 72, 88]
    expected = {(i, y, x) for i in range(8) for y in rows for x in columns}
    assert made.steps_per_epoch == 8 * 20 // 4
    orders = []
    for epoch in (0, 1):
        images, masks = (torch.cat(parts) for parts in zip(*made.loader(epoch), strict=True))
        places = made._places.epoch(epoch)
        assert {tuple(place) for place in places.tolist()} == expected and len(places) == len(expected)
        for (index, y, x), image, mask in zip(places, images, masks, strict=True):
            box = slice(y, y + 40), slice(x, x + 40)
            assert np.allclose(image[0], sections.image(index)[box] / 255, atol=1e-7)
            assert np.array_equal(mask, sections.masks(index)[:, *box])
        orders.append(places.tolist())
    assert orders[0] != orders[1]


def test_the_last_batch_is_filled_from_the_front(tiny_domain):
    made = batches(open_sections(train(tiny_domain)), size=96, stride=96, batch_size=5)  # 16 places
    assert made.steps_per_epoch == 4
    first, last = made.batch(0, 0), made.batch(0, 3)
    assert torch.equal(last[0][1:], first[0][:4])
    with pytest.raises(IndexError):
        made.batch(0, 4)


def test_random_crops_reach_every_corner_and_stay_inside(tiny_domain):
    made = batches(open_sections(train(tiny_domain)), sampling="random", patches_per_epoch=4000)
    section, rows, columns = made._places.epoch(0).T
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (0, 64, 0, 96)
    assert np.bincount(section).min() > 400 and made.steps_per_epoch == 1000


def test_balance_shows_rare_organelles_more_often(tiny_domain):
    sections = open_sections(train(tiny_domain))
    rare = int(np.argmin(batches(sections).class_balance()))
    share = {
        balance: np.mean(
            [
                batch[1][:, rare].amax((1, 2)).mean()
                for batch in batches(sections, sampling="random", balance=balance, patches_per_epoch=400).loader(0)
            ]
        )
        for balance in (False, True)
    }
    assert share[True] > share[False] + 0.05
    made = batches(sections, sampling="random", balance=True, patches_per_epoch=2000)
    _, rows, columns = made._places.epoch(0).T
    assert rows.min() >= 0 and rows.max() <= 64 and columns.min() >= 0 and columns.max() <= 96


def test_class_balance_is_the_share_of_pixels(tiny_domain):
    sections = open_sections(train(tiny_domain))
    expected = np.stack([sections.masks(i) for i in range(8)]).mean(axis=(0, 2, 3))
    assert batches(sections).class_balance() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("sampling", ["grid", "random"])
def test_a_batch_depends_on_seed_epoch_and_step_alone(tiny_domain, sampling):
    sections = open_sections(train(tiny_domain))
    how = {"augment": PRESETS["strong"], "sampling": sampling, "balance": True, "patches_per_epoch": 12}
    one, other = batches(sections, **how), batches(sections, **how)
    late = other.batch(1, 2)
    other.batch(0, 1)
    assert equal(list(one.loader(1))[2], late) and equal(next(one.loader(1, first_step=2)), late)
    assert not equal(one.batch(0, 2), late)
    assert not equal(batches(sections, seed=1, **how).batch(1, 2), late)


@pytest.mark.parametrize("rank", [0, 1])
def test_a_batch_is_described_by_sections_and_corners(tiny_domain, rank):
    sections = open_sections(train(tiny_domain))
    made = batches(sections, rank=rank, world=2, patches_per_epoch=13)
    assert made.steps_per_epoch == 2
    for step in (0, 1):
        described = []
        for part in made.describe(3, step).split("; "):
            name, corners = re.fullmatch(r"section (\S+) at y, x (.+)", part).groups()
            image = sections.image(sections.names.index(name))
            for y, x in re.findall(r"\((\d+), (\d+)\)", corners):
                described.append(image[int(y) : int(y) + 32, int(x) : int(x) + 32] / 255)
        shown = sorted(image.ravel().tolist() for image in made.batch(3, step)[0].numpy())
        expected = sorted(np.float32(crop).ravel().tolist() for crop in described)
        assert np.allclose(shown, expected, atol=1e-6) and len(shown) == 4
    assert len({made.describe(epoch, step) for epoch in (0, 1) for step in (0, 1)}) == 4


def test_workers_leave_ctrl_c_to_the_process_they_work_for(tiny_domain):
    made = batches(open_sections(train(tiny_domain)), patches_per_epoch=64)
    loader = made.loader(0, workers=2)
    seen = [next(loader)]
    workers = multiprocessing.active_children()
    assert len(workers) == 2
    for worker in workers:
        os.kill(worker.pid, signal.SIGINT)
    seen += loader
    assert all(map(equal, seen, made.loader(0))) and len(seen) == 16


def test_workers_and_the_global_generator_do_not_meet(tiny_domain):
    """Workers give the same bytes, and leave the random numbers of dropout alone."""
    made = batches(open_sections(train(tiny_domain)), PRESETS["strong"], patches_per_epoch=12)
    alone = list(made.loader(0))
    state = torch.get_rng_state()
    together = list(made.loader(0, workers=2))
    assert torch.equal(torch.get_rng_state(), state)
    assert len(alone) == len(together) == 3 and all(map(equal, alone, together))


def test_processes_share_out_one_large_batch(tiny_domain):
    sections = open_sections(train(tiny_domain))
    how = {"augment": PRESETS["light"], "patches_per_epoch": 16}
    large = batches(sections, batch_size=8, **how)
    ranks = [batches(sections, rank=rank, world=2, **how) for rank in (0, 1)]
    assert {made.steps_per_epoch for made in (large, *ranks)} == {2}
    for step in (0, 1):
        parts = [made.batch(0, step) for made in ranks]
        assert equal(large.batch(0, step), [torch.cat(both) for both in zip(*parts, strict=True)])


def test_normalisation_comes_last(tiny_domain):
    sections = open_sections(train(tiny_domain))
    plain = batches(sections).batch(0, 0)[0]
    made = PatchBatches(sections, PatchSettings(32, 16, 4), normalisation=Normalisation(0.5, 0.25)).batch(0, 0)[0]
    assert torch.allclose(made, (plain - 0.5) / 0.25, atol=1e-6)


def test_settings_that_cannot_be_are_refused(tiny_domain):
    sections = open_sections(train(tiny_domain))
    with pytest.raises(
        UserError, match=r"a patch of 97 px is larger than section \d+ \(96 × 128\); use --patch_size 96"
    ):
        batches(sections, size=97)
    with pytest.raises(UserError, match="stride of patches must be at least 1"):
        PatchSettings(stride=0)
    with pytest.raises(UserError, match="choose from grid, random"):
        PatchSettings(sampling="spiral")


@pytest.mark.parametrize(("row", "column"), [(0, 0), (-7, 3), (5, 9), (-30, 40), (-2, -2)])
def test_reflected_crops_equal_a_padded_image(row, column):
    image = np.random.default_rng(0).integers(0, 9, (2, 11, 14))
    wide = np.pad(image, ((0, 0), (60, 60), (60, 60)), mode="reflect")
    expected = wide[:, 60 + row : 70 + row, 60 + column : 70 + column]
    assert np.array_equal(reflected_crop(image, row, column, 10), expected)


# ---- the published domains


@pytest.mark.parametrize(
    ("domain", "organelles", "counts"),
    [
        ("drosophila-vnc", ("membranes", "mitochondria", "synapses"), (14, 3, 3)),
        ("epfl-multiclass", ("membranes", "mitochondria", "vesicles"), (23, 4, 5)),
    ],
)
def test_published_domains(real_data, domain, organelles, counts):
    splits = [find_split(real_data, domain, split) for split in ("train", "val", "test")]
    assert tuple(len(split.sections) for split in splits) == counts
    assert {split.organelles for split in splits} == {organelles}
    warnings = check_splits(splits[1:2], 256)
    assert all("not binary" in warning for warning in warnings) and len(warnings) == 2 * (domain == "drosophila-vnc")
    images, masks = batches(open_sections(splits[1]), PRESETS["strong"], size=256, stride=128).batch(0, 0)
    assert images.shape == (4, 1, 256, 256) and masks.shape == (4, 3, 256, 256)
