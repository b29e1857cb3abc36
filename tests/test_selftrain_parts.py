"""Self-training on arrays: targets, loss, batches, teacher, prediction, and a training that is interrupted."""

import os
import signal
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from proofread_run import blobs, boundary_of
from torch import nn

from emlib.errors import UserError
from emlib.learn.models.checkpoint import load_checkpoint
from emlib.learn.normalisation import Normalisation
from emlib.learn.training.settings import TrainPaths
from emlib.refine.corrections import Corrections
from emlib.refine.examples import background_of
from emlib.refine.unet.agreement import Agreement
from emlib.refine.unet.figure_history import figure_history
from emlib.refine.unet.loss import WeightedLoss
from emlib.refine.unet.patches import SelftrainBatches
from emlib.refine.unet.pseudo import corrected_targets, learnt_axes, pseudo_targets
from emlib.refine.unet.selftrain import Conduct, Start, selftrain
from emlib.refine.unet.settings import PRESETS, SelftrainSettings, check_settings
from emlib.refine.unet.teacher import Teacher
from emlib.threads import get_threads, set_threads

UNKNOWN = 255
CPU = Conduct(device="cpu")
CUBES, SLABS = (10.0, 10.0, 10.0), (40.0, 8.0, 8.0)
QUICK = SelftrainSettings(
    widths=(4, 6),
    expert_widths=(4, 4),
    epochs=3,
    steps=3,
    patch_px=32,
    batch_size=2,
    renew_every=2,
    augment="light",
)


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    before, torch_before = get_threads(), torch.get_num_threads()
    set_threads(1)
    yield
    set_threads(before)
    torch.set_num_threads(torch_before)


def volume(shape=(6, 40, 44), seed=0):
    labels = blobs(shape, 14, seed=seed, background=0.0)
    return labels, boundary_of(labels)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_pseudo_labels_are_where_segmentation_and_probability_agree(axis):
    labels, boundary = volume()
    found = pseudo_targets(labels, boundary, (axis,), certain=0.7, band_px=2)[0]
    planes, likely = np.moveaxis(labels, axis, 0), np.moveaxis(boundary, axis, 0)
    for plane, probability, target in zip(planes, likely, found, strict=True):
        border = background_of(plane)
        expected = [
            [
                1 if b and p >= 0.7 else 0 if not b and p <= 1 - 0.7 else UNKNOWN
                for b, p in zip(row_b, row_p, strict=True)
            ]
            for row_b, row_p in zip(border, probability, strict=True)
        ]
        assert np.array_equal(target, expected)
    assert set(np.unique(found)) == {0, 1, UNKNOWN}


@pytest.mark.parametrize("count", [1, 2, 5, 10])
def test_strips_are_held_out_and_nothing_else(count):
    labels = blobs((count, 30, 50), 12, background=0.05)
    learnt, held = corrected_targets(Corrections(tuple(range(count)), labels), 2, 0.2)
    for number, plane in enumerate(labels):
        assert ((learnt[number] == UNKNOWN) ^ (held[number] == UNKNOWN)).all()
        both = np.where(learnt[number] == UNKNOWN, held[number], learnt[number])
        assert np.array_equal(both == 1, background_of(plane))
        assert np.mean(held[number] != UNKNOWN) == pytest.approx(0.2, abs=0.02)
    places = {tuple((plane != UNKNOWN).any(0)) for plane in held}
    assert len(places) == min(count, 5)


def reference_loss(logits, pseudo, corrected, factor):
    """Pixel by pixel, in plain Python."""
    total = weights = overlap = both = 0.0
    for x, p, c in zip(logits.ravel(), pseudo.ravel(), corrected.ravel(), strict=True):
        if not np.isnan(c):
            target, weight = c, factor
        elif not np.isnan(p):
            target, weight = p, 1.0
        else:
            continue
        likely = 1 / (1 + np.exp(-x))
        total -= weight * np.log(likely if target else 1 - likely)
        weights += weight
        overlap += weight * likely * target
        both += weight * (likely + target)
    return total / max(weights, 1.0) + 1 - (2 * overlap + 1) / (both + 1)


def test_loss_is_its_definition():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(2, 1, 5, 6))
    pseudo, corrected = (rng.choice([0.0, 1.0, np.nan], (2, 5, 6), p=[0.4, 0.3, 0.3]) for _ in range(2))
    loss = WeightedLoss(5.0)(torch.tensor(logits), torch.tensor(np.stack([pseudo, corrected], 1)))
    assert loss.item() == pytest.approx(reference_loss(logits, pseudo, corrected, 5.0), rel=1e-5)


def test_loss_of_nothing_known_is_zero_and_teaches_nothing():
    logits = torch.randn(1, 1, 4, 4, requires_grad=True)
    loss = WeightedLoss(5.0)(logits, torch.full((1, 2, 4, 4), torch.nan))
    loss.backward()
    assert loss.item() == pytest.approx(0.0) and not logits.grad.any()


def make_batches(settings, voxel=SLABS, seed=0, corrected=True, shape=(6, 40, 44)):
    labels, boundary = volume(shape)
    axes = learnt_axes(voxel)
    pseudo = pseudo_targets(labels, boundary, axes, certain=0.6, band_px=2)
    learnt = {2: np.where(background_of(labels[2]), 1, 0).astype(np.uint8)} if corrected else {}
    em = np.rint(255 * (1 - boundary)).astype(np.uint8)
    return SelftrainBatches(em, axes, pseudo, learnt, Normalisation(0.5, 0.25), settings, seed)


@pytest.mark.parametrize("sections", [1, 3])
def test_batches_are_functions_of_seed_epoch_and_step(sections):
    settings = replace(QUICK, sections=sections)
    first, again = make_batches(settings), make_batches(settings)
    list(again.loader(0))
    for (images, targets), (same, alike) in zip(first.loader(1), again.loader(1), strict=True):
        assert images.shape == (2, sections, 32, 32) and targets.shape == (2, 2, 32, 32)
        assert torch.equal(images, same) and torch.equal(targets.nan_to_num(9), alike.nan_to_num(9))
    other = make_batches(settings, seed=1)
    assert not torch.equal(other.batch(1, 0)[0], first.batch(1, 0)[0])
    assert len(list(first.loader(1, first_step=2))) == 1


def test_patches_hold_what_lies_there():
    """Without augmentation a patch is a crop of the volume, corrections only on corrected sections."""
    batches = make_batches(replace(QUICK, augment="none", batch_size=8), CUBES)
    seen = set()
    for step in range(3):
        images, targets = batches.batch(0, step)
        places = batches._places(0, step)
        assert batches.describe(0, step).count(";") == 7
        for (axis, plane, row, column, _), image, target in zip(places, images, targets, strict=True):
            seen.add(axis)
            em = np.moveaxis(batches.em, axis, 0)[plane]
            if row >= 0 and column >= 0:
                crop = em[row : row + 32, column : column + 32]
                assert np.allclose(image[0], (crop / 255 - 0.5) / 0.25, atol=1e-5)
                pseudo = batches.pseudo[axis][plane, row : row + 32, column : column + 32]
                assert np.array_equal(target[0].isnan(), pseudo == UNKNOWN)
            assert bool(target[1].isnan().all()) == (axis != 0 or plane != 2)
    assert seen == {0, 1, 2}


def test_half_of_the_patches_lie_on_corrected_sections():
    batches = make_batches(replace(QUICK, batch_size=8))
    planes = [place.plane for step in range(3) for place in batches._places(0, step)[:4]]
    assert set(planes) == {2}
    none = make_batches(replace(QUICK, batch_size=8), corrected=False)
    assert len({place.plane for step in range(9) for place in none._places(0, step)}) == 6


class Dark(nn.Module):
    """A network that finds a boundary where it is dark in the section in the middle."""

    def forward(self, x):
        return -10 * x[:, x.shape[1] // 2][:, None]


def test_the_teacher_renews_when_it_is_due_and_reads_what_it_made(tmp_path):
    batches = make_batches(QUICK)
    _labels, boundary = volume()
    asked = []

    def predict(network):
        asked.append(network)
        return boundary.astype(np.float32)

    told = []
    em = (1 - boundary).astype(np.float32)
    teacher = Teacher(batches, predict, em, SLABS, QUICK, tmp_path / "kept.npz", told.append)
    first = batches.pseudo
    for epoch in (0, 1):
        teacher(epoch, Dark())
    assert batches.pseudo is first and not asked
    for epoch in (2, 3):
        teacher(epoch, Dark())
    assert len(asked) == 1 and len(told) == 1 and "neurites" in told[0]
    renewed = batches.pseudo
    assert renewed is not first and renewed[0].shape == first[0].shape and set(np.unique(renewed[0])) <= {0, 1, UNKNOWN}
    batches = make_batches(QUICK)
    Teacher(batches, predict, em, SLABS, QUICK, tmp_path / "kept.npz")(3, Dark())
    assert len(asked) == 1 and np.array_equal(batches.pseudo[0], renewed[0])
    (tmp_path / "kept.npz").write_bytes(b"PK")  # damaged: made again
    Teacher(make_batches(QUICK), predict, em, SLABS, QUICK, tmp_path / "kept.npz")(2, Dark())
    assert len(asked) == 2
    never = Teacher(make_batches(QUICK), predict, em, SLABS, replace(QUICK, renew_every=0), tmp_path / "none.npz")
    never(7, Dark())
    assert len(asked) == 2


def test_a_teacher_that_is_sure_of_nothing_is_passed_over(tmp_path):
    batches, told = make_batches(QUICK), []
    _, boundary = volume()
    em, unsure = (1 - boundary).astype(np.float32), np.full(boundary.shape, 0.5, np.float32)
    before = batches.pseudo
    Teacher(batches, lambda network: unsure, em, SLABS, QUICK, tmp_path / "kept.npz", told.append)(2, Dark())
    assert all(np.array_equal(a, b) for a, b in zip(batches.pseudo, before, strict=True))
    assert told == ["no new pseudo-labels: the teacher is sure of 0% of the pixels only"]


def test_agreement_counts_known_pixels_alone():
    labels, _boundary = volume()
    truth = background_of(labels[2]).astype(np.uint8)
    image = np.where(truth, 0, 255).astype(np.uint8)
    perfect = Agreement([image[None]], [truth], Normalisation(0.5, 0.25))(Dark())
    assert perfect["iou"] == perfect["dice"] == perfect["auc"] == 1 == perfect["iou/boundaries"]
    wrong, known = image.copy(), truth.copy()
    wrong[:20], known[:20] = 255 - wrong[:20], UNKNOWN
    assert Agreement([wrong[None]], [known], Normalisation(0.5, 0.25))(Dark())["iou"] == 1
    assert Agreement([wrong[None]], [truth], Normalisation(0.5, 0.25))(Dark())["iou"] < 1


def start(voxel=SLABS, corrected=(1, 4)):
    labels, boundary = volume()
    corrections = Corrections(corrected, labels[list(corrected)].astype(np.int64)) if corrected else None
    return Start((1 - boundary).astype(np.float32), voxel, labels, boundary, corrections)


def weights(path):
    return {name: tensor.clone() for name, tensor in load_checkpoint(path).model.state_dict().items()}


def test_a_resumed_training_ends_as_one_that_was_not_interrupted(tmp_path, monkeypatch):
    """Interrupted after new pseudo-labels were made, so that it must go on with those."""
    whole = TrainPaths(tmp_path / "whole" / "model.pth")
    made = selftrain(start(), QUICK, whole, CPU)
    assert made.training.ended == "all epochs" and made.labels.shape == made.boundaries.shape == (6, 40, 44)
    assert (
        made.labels.dtype == np.int32 and made.labels.min() == 1 and not (whole.folder / "pseudo_labels.npz").exists()
    )

    parts, usual = TrainPaths(tmp_path / "parts" / "model.pth"), SelftrainBatches.batch

    def interrupting(self, epoch, step):
        if (epoch, step) == (2, 1):
            os.kill(os.getpid(), signal.SIGINT)
        return usual(self, epoch, step)

    monkeypatch.setattr(SelftrainBatches, "batch", interrupting)
    stopped = selftrain(start(), QUICK, parts, CPU)
    assert stopped.training.interrupted and stopped.labels is None and (parts.folder / "pseudo_labels.npz").exists()
    monkeypatch.setattr(SelftrainBatches, "batch", usual)
    ended = selftrain(start(), QUICK, parts, CPU, resume=load_checkpoint(parts.last).training)
    assert np.array_equal(ended.labels, made.labels) and np.array_equal(ended.boundaries, made.boundaries)
    one, two = weights(whole.last), weights(parts.last)
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize(("voxel", "corrected"), [(CUBES, (1, 4)), (SLABS, (3,)), (SLABS, None)])
def test_every_kind_of_volume_is_learnt_from(tmp_path, voxel, corrected):
    made = selftrain(start(voxel, corrected), replace(QUICK, epochs=1), TrainPaths(tmp_path / "m.pth"), CPU)
    assert made.training.epochs == 1 and 0 <= made.boundaries.min() and made.boundaries.max() <= 1
    assert 0 <= made.training.best["auc"] <= 1


def test_it_stops_when_agreement_falls(tmp_path, monkeypatch):
    falling = iter([0.5, 0.9, 0.8, 0.7, 0.6])
    monkeypatch.setattr(Agreement, "__call__", lambda self, model: {"iou": next(falling), "dice": 0.0, "auc": 0.5})
    settings = replace(QUICK, epochs=5, patience=2, renew_every=0)
    made = selftrain(start(), settings, TrainPaths(tmp_path / "m.pth"), CPU)
    assert made.training.ended == "patience" and made.training.epochs == 4 and made.training.best["epoch"] == 2


def test_it_learns_what_can_be_learnt(tmp_path):
    """The EM is the truth with noise: a few steps tell boundary from neurite on what is held out."""
    settings = replace(QUICK, epochs=6, steps=20, batch_size=4, renew_every=3, lr=0.01)
    made = selftrain(start(), settings, TrainPaths(tmp_path / "m.pth"), CPU)
    assert made.training.best["auc"] > 0.9


def test_figure_of_the_history():
    table = pd.DataFrame({"epoch": [1, 2, 3], "loss": [2.0, 1.5, 1.2], "iou": [0.2, 0.5, 0.4]})
    table["dice"], table["auc"] = table["iou"] * 1.2, 0.9
    figure = figure_history(table, "held-out strips", [3], "SYNTHETIC PHANTOM: a test")
    loss, agreement = figure.axes
    assert np.array_equal(loss.lines[-1].get_ydata(), table["loss"]) and len(agreement.texts) == 3


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_settings_that_hold(name):
    check_settings(PRESETS[name])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 0}, "epochs=0: must be at least 1"),
        ({"patch_px": 16}, "patch_px=16: must be at least 32"),
        ({"held_out": 0.0}, "held_out=0: must lie between"),
        ({"certain": 0.3}, "certain=0.3: must lie between 0.5 and 1"),
        ({"lr": 0.0}, "lr=0: must be above 0"),
        ({"sections": 2}, "sections=2: must be an odd number"),
        ({"widths": (4, 4)}, "widths and expert_widths"),
        ({"segment": replace(SelftrainSettings().segment, segmenter="watershed")}, "uses no boundary probability"),
    ],
)
def test_settings_that_cannot_be_learnt_with_are_told(change, message):
    with pytest.raises(UserError, match=message):
        check_settings(replace(SelftrainSettings(), **change))
