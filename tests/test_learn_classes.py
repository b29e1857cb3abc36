"""Index masks, pixels that nobody annotated, other sizes of pixels, several data sets: what training gets to see."""

import itertools

import numpy as np
import pytest
import torch
from PIL import Image

from emlib.annotations.classes import Classes, make_classes, write_classes
from emlib.errors import UserError
from emlib.learn.datasets import checking
from emlib.learn.datasets.domain import check_splits, find_split
from emlib.learn.datasets.fingerprint import fingerprint
from emlib.learn.datasets.joined import JoinedSections, common_organelles, join
from emlib.learn.datasets.mask_classes import class_planes
from emlib.learn.datasets.patches import PatchBatches, PatchSettings
from emlib.learn.datasets.places import PatchPlaces, whole_shares
from emlib.learn.datasets.resampling import Zoom, zoom_to
from emlib.learn.datasets.sections import grey_statistics, open_sections, open_splits
from emlib.learn.datasets.unannotated import augment_masks
from emlib.learn.normalisation import Normalisation
from emlib.learn.transforms import PRESETS, AugmentSettings, augment, margin

SPLITS = {"train": ("0", "1", "2"), "val": ("3",), "test": ("4",)}


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def index_domain(root, name="cells", shape=(40, 56), ids=(0, 1, 2), seed=0, dtype=np.uint8):
    """Index masks of random blocks; returns them by split and section."""
    rng, made = np.random.default_rng(seed), {}
    for split, names in SPLITS.items():
        for section in names:
            blocks = rng.choice(ids, (shape[0] // 8, shape[1] // 8))
            mask = np.kron(blocks, np.ones((8, 8), int)).astype(dtype)
            made[split, section] = mask
            save(root / name / split / "masks" / f"{section}.png", mask)
            save(root / name / split / "raw" / f"{section}.png", rng.integers(0, 256, shape, dtype=np.uint8))
    return made


def organelle_domain(root, name, organelles, shape=(40, 56), seed=0, high=255):
    rng, made = np.random.default_rng(seed), {}
    for split, names in SPLITS.items():
        for section in names:
            save(root / name / split / "raw" / f"{section}.png", rng.integers(0, 256, shape, dtype=np.uint8))
            for organelle in organelles:
                mask = made[split, section, organelle] = rng.random(shape) < 0.3
                save(root / name / split / organelle / f"{section}.png", (mask * high).astype(np.uint8))
    return made


def batches(sections, *, augment=None, seed=0, **settings):
    settings = PatchSettings(**{"size": 32, "stride": 8, "batch_size": 4, **settings})
    return PatchBatches(sections, settings, normalisation=Normalisation(), seed=seed, augment=augment)


# ---- index masks


def test_index_masks_become_one_plane_for_each_class(tmp_path):
    masks = index_domain(tmp_path)
    write_classes(tmp_path / "cells" / "classes.yaml", make_classes(["nucleus", "membrane"]))
    split = find_split(tmp_path, "cells", "train")
    assert split.organelles == ("background", "nucleus", "membrane") and split.activation == "softmax"
    assert check_splits([split], 40) == []
    sections = open_sections(split)
    for index, name in enumerate(SPLITS["train"]):
        expected = np.stack([masks["train", name] == id for id in (0, 1, 2)])
        assert np.array_equal(sections.masks(index), expected) and sections.masks(index).dtype == np.uint8


def test_ids_with_gaps_in_sixteen_bits_and_what_nobody_annotated(tmp_path):
    masks = index_domain(tmp_path, ids=(0, 7, 300, 65535), dtype=np.uint16)
    made = make_classes(["a", "b"]).classes
    classes = Classes(
        (made[0], *(type(c)(id, c.name, c.colour) for c, id in zip(made[1:], (7, 300), strict=True))), 65535
    )
    write_classes(tmp_path / "cells" / "classes.yaml", classes)
    split = find_split(tmp_path, "cells", "train")
    assert split.ignore == 65535 and split.organelles == ("background", "a", "b")
    planes = open_sections(split).masks(0)
    mask = masks["train", "0"]
    assert (planes[:, mask == 65535] == 255).all() and (planes[:, mask != 65535].sum(0) == 1).all()
    assert np.array_equal(planes[2] == 1, mask == 300)


def test_ids_that_are_no_class_are_counted(tmp_path):
    index_domain(tmp_path)
    write_classes(tmp_path / "cells" / "classes.yaml", make_classes(["nucleus", "membrane"]))
    path = tmp_path / "cells" / "train" / "masks" / "1.png"
    mask = np.zeros((40, 56), np.uint8)
    mask[0, :3], mask[1, 0] = 9, 200
    save(path, mask)
    with pytest.raises(UserError) as told:
        check_splits([find_split(tmp_path, "cells", "train")])
    assert f"{path} holds the class ids 9 (3 pixels), 200 (1 pixel), which classes.yaml does not list" in str(
        told.value
    )
    with pytest.raises(UserError, match=r"class id 9 \(3 pixels\), which classes\.yaml does not list; add it there"):
        open_sections(find_split(tmp_path, "cells", "train", ignore_index=200))


def test_classes_without_a_file_come_from_the_ids_of_all_splits(tmp_path):
    index_domain(tmp_path, ids=(0, 3))
    save(tmp_path / "cells" / "test" / "masks" / "4.png", np.full((40, 56), 5, np.uint8))
    save(tmp_path / "cells" / "val" / "masks" / "3.png", np.full((40, 56), 99, np.uint8))
    split = find_split(tmp_path, "cells", "train", ignore_index=99)
    assert split.organelles == ("background", "class_3", "class_5") and split.classes.ids == (0, 3, 5)
    made, empty = check_splits([split])
    assert (
        "there is no" in made
        and "classes are made from the ids of the masks: background (id 0), class_3 (id 3)" in made
    )
    assert "no pixel of class_5" in empty
    assert find_split(tmp_path, "cells", "val", classes=split.classes).classes is split.classes


def test_ids_of_single_objects_are_no_classes(tmp_path):
    index_domain(tmp_path)
    save(tmp_path / "cells" / "train" / "masks" / "0.png", np.arange(2240, dtype=np.uint16).reshape(40, 56))
    with pytest.raises(UserError, match=r"2239 different ids .* if they number single objects"):
        find_split(tmp_path, "cells", "train")


def test_an_ignored_value_is_no_class_and_a_class_is_not_ignored(tmp_path):
    index_domain(tmp_path)
    write_classes(tmp_path / "cells" / "classes.yaml", make_classes(["nucleus", "membrane"]))
    with pytest.raises(UserError, match=r"--ignore_index 2 is the class membrane of .*classes\.yaml; choose a number"):
        find_split(tmp_path, "cells", "train", ignore_index=2)


def test_two_layouts_at_once_are_refused_and_one_can_be_chosen(tmp_path):
    index_domain(tmp_path)
    organelle_domain(tmp_path, "cells", ["nuclei"])
    with pytest.raises(UserError, match=r"class ids in masks and folders of organelles \(nuclei\)"):
        find_split(tmp_path, "cells", "train")
    assert find_split(tmp_path, "cells", "train", ["nuclei"]).classes is None


def test_classes_are_learnt_together(tmp_path):
    index_domain(tmp_path)
    write_classes(tmp_path / "cells" / "classes.yaml", make_classes(["nucleus", "membrane"]))
    with pytest.raises(UserError, match="no class 'nucleos'; did you mean nucleus"):
        find_split(tmp_path, "cells", "train", ["nucleos"])
    with pytest.raises(UserError, match=r"classes are learnt together .* --from index-mask --to organelles"):
        find_split(tmp_path, "cells", "train", ["nucleus"])


def test_a_missing_index_mask_is_told(tmp_path):
    index_domain(tmp_path)
    write_classes(tmp_path / "cells" / "classes.yaml", make_classes(["nucleus", "membrane"]))
    (tmp_path / "cells" / "train" / "masks" / "2.png").unlink()
    with pytest.raises(UserError, match=r"raw/2\.png has no mask; add .*masks/2\.\*"):
        check_splits([find_split(tmp_path, "cells", "train")])


def test_a_file_is_decoded_once_for_the_check_and_the_training(tmp_path, monkeypatch):
    organelle_domain(tmp_path, "one", ["a", "b"])
    read = []
    for name in ("read_grey", "read_mask"):
        decode = getattr(checking, name)
        monkeypatch.setattr(checking, name, lambda path, decode=decode: read.append(path) or decode(path))
    opened, _ = open_splits([find_split(tmp_path, "one", split) for split in ("train", "val")], patch_size=32)
    made = batches(opened[0])
    assert all(images.shape == (4, 1, 32, 32) for images, _ in made.loader(0))
    assert len(read) == len(set(read)) == 3 * (3 + 1)


# ---- pixels that nobody annotated


def test_ignored_pixels_of_organelle_masks_are_nan_and_do_not_count(tmp_path):
    made = organelle_domain(tmp_path, "mine", ["a", "b"], high=1)
    path = tmp_path / "mine" / "train" / "a" / "0.png"
    mask = made["train", "0", "a"].astype(np.uint8)
    mask[:, :20] = 255
    save(path, mask)
    sections = open_sections(find_split(tmp_path, "mine", "train", ignore_index=255))
    assert (sections.masks(0)[0, :, :20] == 255).all() and (sections.masks(0)[1] <= 1).all()
    assert np.array_equal(sections.masks(0)[0, :, 20:], made["train", "0", "a"][:, 20:])
    each = batches(sections, size=40, stride=40)
    targets = torch.cat([masks for _, masks in each.loader(0)])
    assert torch.isnan(targets[:, 0]).any() and not torch.isnan(targets[:, 1]).any()
    known = [sections.masks(i)[0] for i in range(3)]
    inside, all_known = (sum(int(test(k).sum()) for k in known) for test in (lambda k: k == 1, lambda k: k != 255))
    assert each.class_balance()[0] == pytest.approx(inside / all_known, abs=1e-12)


@pytest.mark.parametrize("exclusive", [False, True])
def test_what_is_not_annotated_moves_with_the_image(exclusive):
    """Ignored pixels are written into the image as well, so that where they went can be read from it."""
    settings = AugmentSettings(flip=0.5, quarter_turns=True)
    rng = np.random.default_rng(0)
    masks = (
        torch.from_numpy(np.eye(3, dtype=np.uint8)[rng.integers(0, 3, (5, 16, 16))]).permute(0, 3, 1, 2).contiguous()
    )
    unknown = torch.from_numpy(rng.random((5, 16, 16)) < 0.2)
    masks.masked_fill_(unknown[:, None], 255)
    images = unknown[:, None].float()
    rngs = [np.random.default_rng(i) for i in range(5)]
    moved, targets = augment_masks(images, masks, settings, rngs, 16, exclusive=exclusive)
    assert torch.equal(torch.isnan(targets), (moved == 1).expand(-1, 3, -1, -1))
    assert torch.equal(targets.nan_to_num(0).sum(1), 1 - moved[:, 0])


def test_strong_augmentation_keeps_classes_exclusive_and_organelles_apart():
    settings, size = PRESETS["strong"], 32
    wide = margin(settings, size)
    rng = np.random.default_rng(1)
    blocks = np.kron(rng.integers(0, 4, (12, wide // 8 + 1, wide // 8 + 1)), np.ones((1, 8, 8), int))[:, :wide, :wide]
    masks = torch.from_numpy((blocks[:, None] == np.arange(4)[None, :, None, None]).astype(np.uint8))
    images = torch.from_numpy(rng.random((12, 1, wide, wide), np.float32))
    rngs = [np.random.default_rng(i) for i in range(12)]
    grey, targets = augment_masks(images, masks, settings, rngs, size, exclusive=True)
    known = ~torch.isnan(targets)
    assert torch.equal(known.any(1), known.all(1)) and 0.9 < known.float().mean() < 1
    assert bool((targets.nan_to_num(0).sum(1)[known.all(1)] == 1).all())
    plain = augment(images, masks, settings, [np.random.default_rng(i) for i in range(12)], size)
    assert torch.equal(grey, plain[0]), "planes more or less change nothing of the image"
    assert torch.equal(
        augment_masks(images, masks, settings, [np.random.default_rng(i) for i in range(12)], size)[1], plain[1]
    )


def test_lost_tissue_is_background():
    masks = torch.zeros(1, 2, 16, 16, dtype=torch.uint8)
    masks[:, 1] = 1
    settings = AugmentSettings(missing_section=1.0)
    for exclusive in (False, True):
        _, targets = augment_masks(
            torch.rand(1, 1, 16, 16), masks, settings, [np.random.default_rng(0)], 16, exclusive=exclusive
        )
        assert bool((targets[:, 1] == 0).all()) and bool((targets[:, 0] == float(exclusive)).all())


# ---- other sizes of pixels


def test_resampling_halves_a_section_as_block_means_nearly_do():
    rng = np.random.default_rng(0)
    smooth = np.kron(rng.integers(40, 200, (6, 8)), np.ones((16, 16))).astype(np.uint8)
    half = Zoom(0.5, 0.5).grey(smooth)
    means = smooth.reshape(48, 2, 64, 2).mean((1, 3))
    inner = (slice(None), slice(2, 6), slice(None), slice(2, 6))
    assert half.shape == (48, 64) and np.abs(half - means).mean() < 6
    assert np.array_equal(half.reshape(6, 8, 8, 8)[inner], means.reshape(6, 8, 8, 8)[inner])
    noise = rng.integers(0, 256, (64, 64)).astype(np.uint16) * 257
    assert Zoom(0.25, 0.25).grey(noise).std() < 0.35 * noise.std(), "anti-aliased: noise averages out"
    assert Zoom(0.25, 0.25).grey(noise).dtype == np.uint16


def test_resampled_masks_stay_masks_and_unknown_stays_unknown():
    masks = np.zeros((2, 24, 24), np.uint8)
    masks[0, :, 12:] = 1
    masks[1, :12] = 255
    masks[1, 12:, :12] = 1
    for factor in (0.5, 0.75, 1.6):
        out = Zoom(factor, factor).planes(masks)
        side = int(24 * factor)
        assert out.shape == (2, side, side) and set(np.unique(out)) <= {0, 1, 255}
        at = round(12 * factor)
        assert (out[0, :, : at - 1] == 0).all() and (out[0, :, at + 1 :] == 1).all()
        assert (out[1, : at - 1] == 255).all() and (out[1, at + 1 :, : at - 1] == 1).all()
    ids = np.kron([[1, 300], [7, 0]], np.ones((8, 8), int)).astype(np.uint16)
    assert np.array_equal(Zoom(0.5, 0.5).ids(ids), ids[::2, ::2])
    assert zoom_to(8, (50, 8, 8)) is None and zoom_to(None, (50, 4, 4)) is None


def test_sections_are_opened_at_the_new_size_also_one_by_one(tmp_path):
    index_domain(tmp_path)
    write_classes(tmp_path / "cells" / "classes.yaml", make_classes(["nucleus", "membrane"]))
    split, zoom = find_split(tmp_path, "cells", "train"), Zoom(0.5, 0.75)
    (whole,), _ = open_splits([split], zooms=[zoom], patch_size=20)
    (lazy,), _ = open_splits([split], zooms=[zoom], memory_gb=2e-6)
    assert whole.shape(0) == (20, 42) and lazy.resident == 1 and whole.resident == 3
    for index in (0, 1, 2, 0):
        assert whole.image(index).shape == (20, 42) and np.array_equal(whole.image(index), lazy.image(index))
        assert np.array_equal(whole.masks(index), lazy.masks(index)) and (whole.masks(index).sum(0) == 1).all()
    with pytest.raises(UserError, match=r"a patch of 32 px .* \(20 × 42\); leave it out, as 32 px is the least"):
        open_splits([split], zooms=[zoom], patch_size=32)


# ---- several data sets


@pytest.fixture
def two(tmp_path):
    organelle_domain(tmp_path, "one", ["a", "b"], (40, 56))
    organelle_domain(tmp_path, "two", ["b", "c"], (64, 48), seed=1, high=1)
    return tmp_path


def opened(root, names=("one", "two"), memory_gb=2.0):
    splits = [find_split(root, name, "train") for name in names]
    parts, warnings = open_splits(splits, organelles=common_organelles(splits), memory_gb=memory_gb)
    assert not warnings
    return join(parts)


def test_organelles_that_a_data_set_lacks_are_unknown_there(two):
    sections = opened(two)
    assert sections.organelles == ("a", "b", "c") and len(sections) == 6 and sections.names[3] == "two/0"
    assert isinstance(sections, JoinedSections) and sections.shape(0) == (40, 56) and sections.shape(5) == (64, 48)
    assert (sections.masks(0)[2] == 255).all() and (sections.masks(4)[0] == 255).all()
    assert sections.masks(0)[:2].max() == 1 and sections.masks(4)[1:].max() == 1
    made = batches(sections, augment=PRESETS["light"])
    for images, targets in itertools.islice(made.loader(0), 8):
        assert images.shape == (4, 1, 32, 32)
        for target in targets:
            lacking = torch.isnan(target).flatten(1).all(1)
            assert lacking.tolist() in ([False, False, True], [True, False, False])
            assert not torch.isnan(target[~lacking]).any()
    assert made.class_balance() == pytest.approx([0.3, 0.3, 0.3], abs=0.03)


@pytest.mark.parametrize("sampling", ["grid", "random"])
@pytest.mark.parametrize("memory_gb", [2.0, 2e-5])
def test_patches_come_in_the_shares_asked_for(two, sampling, memory_gb):
    sections = opened(two, memory_gb=memory_gb)
    assert all((part.resident < len(part)) == (memory_gb < 1) for part in sections.parts)
    for weights, expected in ((None, None), ((1, 3), 0.25), ((9, 1), 0.9)):
        settings = PatchSettings(32, 8, 4, sampling, 2000, balance=True, domain_weights=weights)
        places = PatchPlaces(sections, settings, seed=0)
        expected = len(places._grids[0]) / sum(map(len, places._grids)) if expected is None else expected
        drawn = places.epoch(0)
        first = drawn[:, 0] < 3
        assert len(drawn) == 2000 and first.mean() == pytest.approx(expected, abs=0.001 if sampling == "grid" else 0.05)
        assert places.shares == pytest.approx([expected, 1 - expected])
        halves = [half.mean() for half in np.array_split(first, 4)]
        assert halves == pytest.approx([expected] * 4, abs=0.08), "data sets stay mixed"
        shapes = np.array([sections.shape(i) for i in range(6)])[drawn[:, 0]]
        assert (drawn[:, 1:] >= 0).all() and (drawn[:, 1:] + 32 <= shapes).all()
        if memory_gb < 1:
            for part, own in ((0, drawn[first, 0]), (1, drawn[~first, 0] - 3)):
                changes = np.count_nonzero(np.diff(own))
                assert sections.parts[part].resident > 1 or changes <= 2, "each section is visited once"


def test_every_place_of_the_grid_is_seen_once_by_default(two):
    places = PatchPlaces(opened(two), PatchSettings(32, 8, 4), seed=0)
    drawn = places.epoch(3)
    assert len(drawn) == len(np.unique(drawn, axis=0)) == places.count == 3 * (2 * 4 + 5 * 3)


def test_whole_shares_add_up():
    rng = np.random.default_rng(0)
    for _ in range(200):
        shares = rng.dirichlet(np.ones(rng.integers(1, 6)))
        count = int(rng.integers(1, 50))
        found = whole_shares(shares, count)
        assert found.sum() == count and (np.abs(found - shares * count) < 1 + 1e-9).all()


def test_weights_that_cannot_be_are_refused(two):
    with pytest.raises(UserError, match="2 data sets need as many --domain_weights, not 3"):
        PatchPlaces(opened(two), PatchSettings(32, 8, 4, domain_weights=(1, 1, 1)), seed=0)
    with pytest.raises(UserError, match="numbers above 0"):
        PatchSettings(domain_weights=(1, 0))


def test_kinds_of_masks_are_not_mixed(two):
    index_domain(two)
    index_domain(two, "others", ids=(0, 1))
    splits = {name: find_split(two, name, "train") for name in ("one", "cells", "others")}
    with pytest.raises(UserError, match="cells has index masks, one a folder for each organelle; train them apart"):
        common_organelles([splits["one"], splits["cells"]])
    with pytest.raises(
        UserError, match="cells has the classes background, class_1, class_2, others background, class_1;"
    ):
        common_organelles([splits["cells"], splits["others"]])


def test_grey_statistics_weigh_data_sets_alike(two):
    sections = opened(two)
    means, squares = [], []
    for part in sections.parts:
        grey = np.concatenate([part.image(i).ravel() / 255 for i in range(len(part))])
        means.append(grey.mean())
        squares.append((grey**2).mean())
    found = grey_statistics(sections)
    assert found.mean == pytest.approx(np.mean(means), abs=1e-9)
    assert found.std == pytest.approx((np.mean(squares) - np.mean(means) ** 2) ** 0.5, abs=1e-9)


# ---- whether the files are still the same


def test_a_fingerprint_is_of_names_and_contents_alone(tmp_path):
    for root in (tmp_path / "here", tmp_path / "there"):
        organelle_domain(root, "one", ["a", "b"])
    here, there = (find_split(tmp_path / name, "one", "train") for name in ("here", "there"))
    assert fingerprint(here) == fingerprint(there) != fingerprint(find_split(tmp_path / "here", "one", "val"))
    raw = tmp_path / "there" / "one" / "train" / "raw"
    old = (raw / "0.png").read_bytes()
    image = np.array(Image.open(raw / "0.png"))
    image[0, 0] ^= 1
    save(raw / "0.png", image)
    assert fingerprint(find_split(tmp_path / "there", "one", "train")) != fingerprint(here)
    (raw / "0.png").write_bytes(old)
    assert fingerprint(find_split(tmp_path / "there", "one", "train")) == fingerprint(here)
    assert fingerprint(find_split(tmp_path / "there", "one", "train", ["b", "a"])) != fingerprint(here)


def test_planes_follow_their_definition():
    rng = np.random.default_rng(0)
    mask = rng.choice([0, 1, 2, 77], (9, 9)).astype(np.uint8)
    planes = class_planes(mask, make_classes(["x", "y"]), 77)
    for (y, x), id in np.ndenumerate(mask):
        assert planes[:, y, x].tolist() == ([255] * 3 if id == 77 else [int(id == k) for k in range(3)])
