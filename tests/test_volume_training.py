"""A network of boundaries learnt from a labelled volume: targets, patches, prediction along axes, ``train.py``."""

import json

import numpy as np
import pytest
import tifffile
import torch
from scipy.ndimage import distance_transform_edt
from test_train_scripts import call  # noqa: F401
from torch import nn

from emlib.errors import UserError
from emlib.learn.datasets.places import PatchSettings
from emlib.learn.models.checkpoint import load_checkpoint
from emlib.learn.normalisation import Normalisation
from emlib.learn.training import journal
from emlib.learn.transforms import AugmentSettings, read_augment
from emlib.learn.volumes.batches import VolumeBatches
from emlib.learn.volumes.data import VolumeDataSettings, open_labelled
from emlib.learn.volumes.labelled import LabelledVolume, along, stack
from emlib.learn.volumes.prediction import Resampling, predict_along, section_count
from emlib.learn.volumes.targets import boundary_targets
from emlib.volumes.identity import volume_sha256
from emlib.volumes.open import open_volume

PLAIN = Normalisation()


def cells(shape=(24, 48, 40), count=14, seed=0):
    """Labels of convex cells from 1, and EM with dark boundaries between them."""
    rng = np.random.default_rng(seed)
    seeds = np.zeros(shape, int)
    seeds[tuple(rng.integers(0, n, count) for n in shape)] = 1
    at = distance_transform_edt(seeds == 0, return_distances=False, return_indices=True)
    labels = np.unique(np.ravel_multi_index(tuple(at), shape), return_inverse=True)[1].reshape(shape) + 1
    grey = 170 - 90 * boundary_targets(labels, (10, 10, 10)) + rng.normal(0, 12, shape)
    return labels.astype(np.uint16), grey.clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def volume(tmp_path_factory):
    """Files of EM and labels."""
    folder = tmp_path_factory.mktemp("volume")
    labels, em = cells()
    tifffile.imwrite(folder / "em.tif", em)
    tifffile.imwrite(folder / "labels.tif", labels)
    return folder


# ---- targets


def by_definition(labels, axes, ignore):
    """A voxel is on a boundary if a neighbour along an axis has another label; one by one."""
    found = np.zeros(labels.shape, np.uint8)
    for at in np.ndindex(labels.shape):
        for axis in axes:
            for step in (-1, 1):
                other = list(at)
                other[axis] += step
                if 0 <= other[axis] < labels.shape[axis]:
                    both = {int(labels[at]), int(labels[tuple(other)])}
                    found[at] |= len(both) == 2 and ignore not in both
        if labels[at] == 0 and ignore != 0:
            found[at] = 1
        if ignore is not None and labels[at] == ignore:
            found[at] = 255
    return found


@pytest.mark.parametrize("axes", [(0, 1, 2), (1, 2)])
@pytest.mark.parametrize("ignore", [None, 0, 3])
def test_targets_are_where_labels_change(axes, ignore):
    labels = np.random.default_rng(1).integers(0, 4, (3, 5, 6)) * np.ones((1, 1, 1), np.uint16)
    assert (boundary_targets(labels, (10, 10, 10), axes, ignore) == by_definition(labels, axes, ignore)).all()


def test_targets_are_as_thick_as_membranes_whatever_the_voxels():
    labels = np.ones((1, 40, 40), np.uint8)
    labels[..., 20:] = 2
    for size, pixels in ((10, 2), (5, 4), (4, 6), (2, 10), (40, 2)):
        assert boundary_targets(labels, (50, size, size), (1, 2))[0, 5].sum() == pixels


def test_thick_targets_of_near_isotropic_volumes_grow_along_all_axes_and_else_within_sections():
    labels = np.ones((9, 9, 9), np.uint8)
    labels[4, 4, 4] = 2
    near = boundary_targets(labels, (4, 4, 4))
    flat = boundary_targets(labels, (50, 4, 4), (1, 2))
    assert near.any(axis=(1, 2)).sum() > 3 and flat.any(axis=(1, 2)).sum() == 1


# ---- sections in the middle of their neighbours


@pytest.mark.parametrize("count", [1, 3, 5, 9])
def test_a_stack_is_the_volume_mirrored_at_its_ends(count):
    sections = np.arange(5)[:, None, None] * np.ones((1, 2, 3), int)
    mirrored = np.pad(np.arange(5), count // 2, "reflect")
    for index in range(5):
        assert stack(sections, index, count)[:, 0, 0].tolist() == mirrored[index : index + count].tolist()
    assert stack(sections[:1], 0, count).shape == (count, 2, 3)


def labelled(axes=(0, 1, 2), sections=5, shape=(12, 20, 16)):
    labels, em = cells(shape, 6)
    targets = boundary_targets(labels, (10, 10, 10))
    targets[:2] = 255
    return LabelledVolume(em, targets, axes, sections)


def settings(size=8, batch=4, patches=40):
    return PatchSettings(size=size, stride=size, batch_size=batch, sampling="random", patches_per_epoch=patches)


def test_patches_without_augmentation_are_what_lies_at_their_place():
    volume = labelled()
    batches = VolumeBatches(volume, settings(), normalisation=PLAIN, seed=3)
    assert batches.steps_per_epoch == 10
    seen = set()
    for step in range(10):
        images, targets = batches.batch(1, step)
        assert images.shape == (4, 5, 8, 8) and targets.shape == (4, 1, 8, 8)
        for image, target, place in zip(images, targets, batches.describe(1, step).split("; "), strict=True):
            name, index, _, row, column = place.replace("(", "").replace(")", "").replace(",", "").split()
            axis, index, row, column = "zyx".index(name), int(index), int(row), int(column)
            seen.add(axis)
            box = np.s_[row : row + 8, column : column + 8]
            assert np.allclose(image[2] * 255, along(volume.em, axis)[index][box])
            assert np.allclose(image[3] * 255, stack(along(volume.em, axis), index, 5)[3][box])
            truth = along(volume.targets, axis)[index][box].astype(float)
            truth[truth == 255] = np.nan
            assert np.array_equal(target[0].numpy(), truth, equal_nan=True)
    assert seen == {0, 1, 2}


def test_a_batch_is_a_function_of_seed_epoch_and_step():
    def batch(seed, epoch, step):
        how = {"normalisation": PLAIN, "seed": seed, "augment": read_augment("strong")}
        return VolumeBatches(labelled(), settings(), **how).batch(epoch, step)

    one, same = batch(0, 2, 1), batch(0, 2, 1)
    assert all(a.equal(b) or torch.equal(a.nan_to_num(7), b.nan_to_num(7)) for a, b in zip(one, same, strict=True))
    for other in ((1, 2, 1), (0, 1, 1), (0, 2, 2)):
        assert not torch.equal(one[0], batch(*other)[0])
    with pytest.raises(IndexError):
        batch(0, 0, 10)


def test_processes_share_the_patches_of_a_step_out():
    one = VolumeBatches(labelled(), settings(batch=4), normalisation=PLAIN).batch(0, 0)[0]
    two = [VolumeBatches(labelled(), settings(batch=2), normalisation=PLAIN, rank=r, world=2) for r in (0, 1)]
    assert torch.equal(one, torch.cat([batches.batch(0, 0)[0] for batches in two]))


def test_workers_cut_the_same_batches():
    batches = VolumeBatches(labelled(), settings(patches=8), normalisation=PLAIN)
    here, there = (list(batches.loader(0, workers=workers)) for workers in (0, 1))
    assert len(here) == 2 and all(torch.equal(a[0], b[0]) for a, b in zip(here, there, strict=True))


def test_a_patch_larger_than_a_section_shows_it_mirrored():
    volume = labelled((1,), 1, (6, 20, 30))
    images, _ = VolumeBatches(volume, settings(16), normalisation=PLAIN).batch(0, 0)
    assert images.shape[-2:] == (16, 16)
    top = images[0, 0]
    rows = np.pad(np.arange(6), 5, "reflect")
    for row in range(16):
        assert torch.equal(top[row], top[5 + rows[row]])
    assert not torch.equal(top[5], top[6])


def test_augmentation_turns_sections_and_targets_together_and_their_order_half_of_the_time():
    """The target is a threshold of the section in the middle; neighbours are darker, each by its own step."""
    rng = np.random.default_rng(0)
    middle = rng.integers(120, 240, (20, 20)) // 20 * 20
    em = np.stack([middle - 10 * abs(z - 3) - (z > 3) for z in range(7)]).astype(np.uint8)
    volume = LabelledVolume(em, (np.stack([middle] * 7) > 180).astype(np.uint8), (0,), 7)
    flips = AugmentSettings(flip=0.5, quarter_turns=True)
    batches = VolumeBatches(volume, settings(12, 30, 300), normalisation=PLAIN, augment=flips)
    orders = []
    for step in range(10):
        images, targets = batches.batch(0, step)
        places = batches._samples(0, step)[1]
        for image, target, (_, index, *_) in zip(images, targets, places, strict=True):
            if index == 3:
                assert torch.equal((image[3] * 255).round() > 180, target[0] == 1)
                orders.append(bool(image[0].mean() < image[6].mean()))
    assert 0.2 < np.mean(orders) < 0.8


def test_class_balance_counts_annotated_voxels():
    volume = labelled()
    known = volume.targets[volume.targets < 2]
    assert VolumeBatches(volume, settings(), normalisation=PLAIN).class_balance()[0] == pytest.approx(known.mean())


# ---- prediction


class Mixed(nn.Module):
    """Weights each neighbour and looks one pixel down, so that a wrong axis, order or turn is seen."""

    activation = "sigmoid"

    def __init__(self, sections):
        super().__init__()
        self.weights = torch.arange(1.0, sections + 1) / sections

    def forward(self, x):
        below = torch.roll(x, -1, 2)
        return ((x + 0.5 * below) * self.weights[:, None, None]).sum(1, keepdim=True) - 1


def plane_by_plane(em, axis, sections):
    """The same network by hand, away from the border that the roll wraps."""
    planes, model, out = along(em, axis), Mixed(sections), []
    for index in range(len(planes)):
        grey = torch.from_numpy(stack(planes, index, sections) / np.float32(255))[None]
        out.append(torch.sigmoid(model(grey.float()))[0, 0].numpy())
    return np.moveaxis(np.stack(out), 0, axis)


@pytest.mark.parametrize(("axes", "sections"), [((0,), 1), ((0,), 5), ((1,), 3), ((0, 1, 2), 3)])
def test_prediction_along_axes_is_the_mean_of_sections_each_for_itself(axes, sections):
    em = np.random.default_rng(0).integers(0, 256, (9, 12, 10)).astype(np.uint8)
    ticks = []
    found = predict_along(Mixed(sections), em, PLAIN, sections=sections, axes=axes, tick=lambda: ticks.append(1))
    expected = np.mean([plane_by_plane(em, axis, sections) for axis in axes], axis=0)
    inner = np.s_[: -1 if {1, 2} & set(axes) else None, :-1, :]
    assert found.dtype == np.float16 and found.shape == (1, *em.shape)
    assert np.abs(found[0] - expected)[inner].max() < 1e-3
    assert len(ticks) == section_count(em.shape, axes)


def test_resampling_tells_what_differs_by_more_than_five_per_cent():
    same = Resampling((10, 10, 10), (10, 10, 10))
    assert not same.needed((0, 1, 2), 5) and same.pixels(1) == (1, 1)
    assert not Resampling((45, 4.6, 4.6), (50, 4.6, 4.6)).needed((0,), 1)
    assert Resampling((45, 4.6, 4.6), (50, 4.6, 4.6)).needed((0,), 3)
    assert Resampling((50, 4.0, 4.0), (50, 4.6, 4.6)).needed((0,), 1)
    along_y = Resampling((20, 5, 10), (10, 10, 10))
    assert along_y.pixels(1) == (2, 1) and along_y.step(1) == 2


def test_resampled_prediction_sees_structures_as_large_as_in_training():
    """A network that answers the width of stripes: at half the voxel size they are twice as wide, until resampled."""

    class Stripes(nn.Module):
        activation = "sigmoid"

        def forward(self, x):
            return 8 * (x - torch.roll(x, 4, 3)).abs().mean((1, 2, 3), keepdim=True).expand_as(x) - 6

    fine = np.zeros((4, 64, 64), np.uint8)
    fine[..., np.arange(64) // 8 % 2 == 0] = 255
    coarse = fine[:, ::2, ::2]
    wanted = predict_along(Stripes(), coarse, PLAIN).mean()
    plain = predict_along(Stripes(), fine, PLAIN).mean()
    resampled = predict_along(Stripes(), fine, PLAIN, resampling=Resampling((10, 5, 5), (10, 10, 10)))
    assert resampled.shape == (1, 4, 64, 64)
    assert abs(resampled.mean() - wanted) < 0.2 < abs(plain - wanted)


def test_neighbours_are_taken_as_far_away_as_in_training():
    class Spread(nn.Module):
        activation = "sigmoid"

        def forward(self, x):
            return x[:, 2:] - x[:, :1]

    ramp = np.repeat(np.arange(0, 200, 10, dtype=np.uint8), 16 * 16).reshape(20, 16, 16)
    found = predict_along(Spread(), ramp, PLAIN, sections=3, resampling=Resampling((5, 10, 10), (7.5, 10, 10)))
    expected = 1 / (1 + np.exp(-3 * 10 / 255))  # 1.5 sections on either side
    assert found[0, 5:15].astype(float) == pytest.approx(expected, abs=1e-3)


# ---- data


def opened(volume, **more):
    lines = []
    chosen = {"volume": volume / "em.tif", "labels": volume / "labels.tif", "voxel_size": (10, 10, 10), **more}
    return open_labelled(VolumeDataSettings(**chosen), lines.append), lines


def test_the_part_that_judges_is_apart_from_the_part_that_is_learnt_from(volume):
    data, lines = opened(volume, z=(2, 22))
    assert (data.train.first_z, len(data.train.em), data.val.first_z, len(data.val.em)) == (2, 15, 19, 3)
    assert data.train.axes == (0, 1, 2) and data.train.sections == 5 and not lines
    assert data.about["trained_on"]["z"] == [2, 17] and data.about["trained_on"]["val_z"] == [19, 22]
    data, _ = opened(volume, val_z=(0, 4), sections=3)
    assert (data.train.first_z, len(data.train.em)) == (5, 19)
    data, lines = opened(volume, voxel_size=(40, 4, 4), axes=3)
    assert data.train.sections == 3 and "more than twice as thick" in lines[0]
    assert opened(volume, voxel_size=(40, 4, 4))[0].train.axes == (0,)


def test_the_hash_of_a_volume_is_that_of_its_voxels_alone(volume, tmp_path):
    em = tifffile.imread(volume / "em.tif")
    np.save(tmp_path / "other_name.npy", em)
    changed = em.copy()
    changed[3, 3, 3] ^= 1
    np.save(tmp_path / "changed.npy", changed)
    own, same, other = (
        volume_sha256(open_volume(path))
        for path in (volume / "em.tif", tmp_path / "other_name.npy", tmp_path / "changed.npy")
    )
    assert own == same != other and len(own) == 64


REFUSED = [
    ({"voxel_size": None}, "the voxel size decides what is learnt and is unknown; give --voxel_size Z Y X"),
    ({"sections": 4}, "--sections 4: give an odd number"),
    ({"z": (0, 99)}, "--z 0 99: give the first section and one past the last, within 0 24"),
    ({"z": (5, 5)}, "--z 5 5: give the first section"),
    ({"val_z": (20, 30)}, "--val_z 20 30: give the first section"),
    ({"z": (0, 9)}, "leaves 6 sections to learn from"),
    ({"z": (0, 20), "val_z": (6, 14)}, "leaves 4 sections to learn from"),
]


@pytest.mark.parametrize(("more", "said"), REFUSED)
def test_what_cannot_be_learnt_from_is_one_line(volume, more, said):
    with pytest.raises(UserError, match=said.replace("(", r"\(")):
        opened(volume, **more)


def test_labels_of_another_shape_or_without_boundaries_are_refused(volume, tmp_path):
    tifffile.imwrite(tmp_path / "short.tif", np.ones((5, 48, 40), np.uint8))
    tifffile.imwrite(tmp_path / "one.tif", np.ones((24, 48, 40), np.uint8))
    tifffile.imwrite(tmp_path / "none.tif", np.zeros((24, 48, 40), np.uint8))
    with pytest.raises(UserError, match="give labels of the very same voxels"):
        opened(volume, labels=tmp_path / "short.tif")
    with pytest.raises(UserError, match="has no boundary in z 0-17"):
        opened(volume, labels=tmp_path / "one.tif")
    with pytest.raises(UserError, match="has nothing but boundaries"):
        opened(volume, labels=tmp_path / "none.tif")


# ---- train.py

QUICK = "--threads 1 --device cpu --precision 32 --patch_size 32 --batch_size 4 --augment light --contact_sheet 2"


def flags(volume, out, *more):
    own = ["--volume", volume / "em.tif", "--labels", volume / "labels.tif", "--out_path", out, *QUICK.split()]
    return [*own, "--voxel_size", 10, 10, 10, *more]


@pytest.fixture
def no_curves(monkeypatch):
    monkeypatch.setattr(journal, "save_figure", lambda figure, folder, name: [])


def test_train_learns_boundaries_and_says_what_it_saw(call, volume, tmp_path, no_curves):  # noqa: F811
    out = tmp_path / "model.pth"
    more = ["--z", 0, 24, "--epochs", 2, "--patches_per_epoch", 100]
    code, said, err = call("train.py", *flags(volume, out, *more))
    assert (code, err) == (0, ""), err
    assert "em.tif: 10 × 10 × 10 nm, z 0-17 to learn from and z 20-23 to judge by; 5 sections at once" in said
    checkpoint = load_checkpoint(out)
    assert checkpoint.organelles == ("boundaries",) and checkpoint.architecture["in_channels"] == 5
    assert checkpoint.voxel_size_nm == (10, 10, 10)
    told = checkpoint.settings
    assert told["input"] == {"sections": 5, "axes": 3}
    source = open_volume(volume / "em.tif")
    assert told["trained_on"] == {"volume": "em.tif", "sha256": volume_sha256(source), "z": [0, 18], "val_z": [20, 24]}
    assert str(volume) not in json.dumps(told)
    assert checkpoint.metrics["iou"] > 0.5  # everything boundary: 0.3
    assert (tmp_path / "model" / "augmentation.png").exists()
    em, truth = tifffile.imread(volume / "em.tif")[20:], tifffile.imread(volume / "labels.tif")
    truth = boundary_targets(truth, (10, 10, 10))[20:]
    ious = {}
    for axes in ((0,), (0, 1, 2)):
        found = predict_along(checkpoint.model, em, checkpoint.normalisation, sections=5, axes=axes)[0] >= 0.5
        ious[axes] = (found & (truth == 1)).sum() / (found | (truth == 1)).sum()
    assert min(ious.values()) > 0.5


def test_a_training_that_was_cut_short_goes_on_as_if_undisturbed(call, volume, tmp_path, no_curves):  # noqa: F811
    more = ["--patches_per_epoch", 8, "--schedule", "constant", "--warmup", 0, "--epochs"]
    for name, epochs in (("whole", 2), ("parts", 1)):
        code, _, err = call("train.py", *flags(volume, tmp_path / f"{name}.pth", *more, epochs))
        assert code == 0, err
    argv = flags(volume, tmp_path / "parts.pth", *more, 2, "--resume")
    assert call("train.py", *argv)[0] == 0
    whole, parts = (load_checkpoint(tmp_path / name / "last.pth").model.state_dict() for name in ("whole", "parts"))
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    code, _, err = call("train.py", *argv, "--sections", 3)
    assert code == 2 and "--resume" in err and err.count("\n") == 1


WRONG = [
    ([], "--volume needs the neurite labels of the same voxels: --labels FILE", ("--labels",)),
    (["--domain", "x"], "give --domain or --volume, not both", ()),
    (["--sampling", "grid"], "--sampling grid goes with --domain", ()),
    (["--organelles", "a"], "--organelles goes with --domain", ()),
]


@pytest.mark.parametrize(("more", "said", "without"), WRONG)
def test_flags_that_do_not_go_together_are_one_line(call, volume, tmp_path, more, said, without):  # noqa: F811
    argv = [str(a) for a in flags(volume, tmp_path / "m.pth", *more)]
    for flag in without:
        at = argv.index(flag)
        del argv[at : at + 2]
    code, _, err = call("train.py", *argv)
    assert code == 2 and said in err and err.count("\n") == 1 and not (tmp_path / "m.pth").exists()


def test_train_needs_data_and_flags_of_a_volume_need_one(call, tmp_path):  # noqa: F811
    code, _, err = call("train.py", "--out_path", tmp_path / "m.pth")
    assert code == 2 and "--domain NAME, or --volume EM with --labels LABELS" in err
    code, _, err = call("train.py", "--domain", "x", "--z", 0, 5, "--out_path", tmp_path / "m.pth")
    assert code == 2 and "--z goes with --volume EM" in err
