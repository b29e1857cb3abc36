"""What is learnt from: corrected sections as files give them, and the pixels drawn from them."""

import json
from pathlib import Path

import numpy as np
import pytest
from proofread_run import VOXEL, blobs, write_run

from emlib.errors import UserError
from emlib.refine.corrections import Corrections, find_corrected_run, read_corrections, read_em
from emlib.refine.examples import ExampleSettings, background_of, draw_examples, folds_of
from emlib.runs.artefacts import Outputs

NAME = "neurite_labels_corrected_i32_zyx"


@pytest.fixture
def run(tmp_path) -> Path:
    """A run with corrected labels and two accepted sections."""
    labels = write_run(tmp_path)
    outputs = Outputs(tmp_path)
    outputs.array(NAME, labels, "corrected", voxel_size_nm=VOXEL)
    outputs.json("proofread_slices", {"slices": [4, 1]}, "sections")
    return tmp_path


def corrected(run, sections=None, **given):
    return read_corrections(find_corrected_run(run, **given), sections)


def test_sections_come_from_the_proofreader_or_by_name(run):
    labels = blobs()
    found = corrected(run)
    assert found.sections == (1, 4) and np.array_equal(found.labels, labels[[1, 4]])
    assert corrected(run, [3, 0, 3]).sections == (0, 3)
    em = read_em(find_corrected_run(run))
    assert em.shape == labels.shape and em.dtype == np.float32


def test_labels_can_be_named(run, tmp_path):
    other = tmp_path / "mine.npy"
    np.save(other, np.roll(blobs(), 2, axis=2).astype(np.uint16))
    found = corrected(run, [2], labels=other, voxel_size_nm=VOXEL)
    assert np.array_equal(found.labels[0], np.roll(blobs(), 2, axis=2)[2])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"slices": []}', "lists none; accept sections in napari_proofread.py"),
        ('{"sections": [1]}', "does not hold"),
        ('{"slices": [1.5]}', "does not list whole numbers"),
        ('{"slices": 3}', "does not list whole numbers"),
        ("[", "does not hold"),
    ],
)
def test_a_file_without_sections_is_told(run, text, message):
    (run / "tables" / "proofread_slices.json").write_text(text)
    with pytest.raises(UserError, match=message):
        corrected(run)


def test_no_file_of_sections_is_told(run):
    (run / "tables" / "proofread_slices.json").unlink()
    with pytest.raises(UserError, match=r"there are no corrected sections: .* is not there"):
        corrected(run)


@pytest.mark.parametrize("z", [6, -1, 10**9])
def test_a_section_out_of_range_is_told(run, z):
    with pytest.raises(UserError, match=f"--slices: there is no section {z}; the volume has sections 0 to 5"):
        corrected(run, [1, z])
    (run / "tables" / "proofread_slices.json").write_text(json.dumps({"slices": [z]}))
    with pytest.raises(UserError, match=f"proofread_slices.json: there is no section {z}"):
        corrected(run)


@pytest.mark.parametrize(("fill", "message"), [(7, r"holds one neurite only \(7\)"), (0, "holds no neurite")])
def test_a_section_without_two_neurites_is_told(run, fill, message):
    labels = blobs()
    labels[3] = fill
    Outputs(run).array(NAME, labels, "corrected", voxel_size_nm=VOXEL)
    with pytest.raises(UserError, match=f"section 3 of .* {message}"):
        corrected(run, [1, 3])


def test_a_damaged_section_is_told(run):
    damaged = np.zeros(6, bool)
    damaged[2] = True
    with pytest.raises(UserError, match=r"section 2 holds a single grey value"):
        read_corrections(find_corrected_run(run), [1, 2], damaged)


def test_what_is_missing_or_does_not_fit_is_told(run, tmp_path):
    with pytest.raises(UserError, match=r"there is no run in .*nowhere"):
        find_corrected_run(tmp_path / "nowhere")
    np.save(tmp_path / "small.npy", blobs((6, 20, 20)))
    with pytest.raises(UserError, match=r"has shape \(6, 20, 20\) and .* \(6, 20, 24\)"):
        find_corrected_run(run, tmp_path / "small.npy", VOXEL)
    (run / "data" / f"{NAME}.npy").unlink()
    with pytest.raises(UserError, match=r"has no corrected labels"):
        find_corrected_run(run)
    (run / "data" / "em_aligned_float32_zyx.npy").unlink()
    with pytest.raises(UserError, match=r"has no EM"):
        find_corrected_run(run, run / "data" / "neurite_labels_i32_zyx.npy")


def brute_background(labels, width):
    """Pixels that lie at most width / 2 from one of another label, and label 0."""
    result = labels == 0
    reach = width // 2
    for y, x in np.ndindex(labels.shape):
        for v, u in np.ndindex(labels.shape):
            near = abs(y - v) + abs(x - u) <= reach
            result[y, x] |= near and labels[y, x] != labels[v, u] and labels[y, x] > 0 and labels[v, u] > 0
    return result


def test_the_band_is_as_wide_as_it_says():
    labels = np.arange(1, 9).repeat(64).reshape(8, 64)[:, :12].repeat(2, axis=0)[:, :]
    labels = np.where(np.arange(12) < 6, labels, labels + 20)
    for width in (1, 2):
        assert np.array_equal(background_of(labels, width), brute_background(labels, 2))
    wall_to_wall = np.repeat([[1] * 8 + [2] * 8], 5, axis=0)
    assert background_of(wall_to_wall, 4).sum(axis=1).tolist() == [4] * 5
    assert background_of(np.array([[1, 1, 0, 2, 2]])).tolist() == [[False, False, True, False, False]]


def test_drawn_pixels_are_balanced_and_apart_from_those_held_out():
    labels = blobs((3, 40, 50), 12)
    # The only feature is the pixel's own number.
    features = [np.arange(40 * 50, dtype=np.float32).reshape(40, 50, 1) + 10_000 * z for z in range(3)]
    drawn = draw_examples(features, Corrections((0, 1, 2), labels), ExampleSettings(pixels=900), seed=1)
    assert len(np.unique(drawn.features)) == len(drawn.features)
    for z in range(3):
        here = drawn.fold == z
        assert drawn.background[here & drawn.learnt].mean() == 0.5 and (here & drawn.learnt).sum() == 300
        wanted = background_of(labels[z]).ravel()[(drawn.features[here, 0] - 10_000 * z).astype(int)]
        assert np.array_equal(drawn.background[here], wanted)
    share = drawn.background[~drawn.learnt].mean()
    assert abs(share - np.mean([background_of(plane) for plane in labels])) < 0.06


def test_a_single_section_is_folded_by_halves():
    folds = folds_of(1, (4, 10))
    assert np.array_equal(folds[0, :, :5], np.zeros((4, 5))) and np.array_equal(folds[0, :, 5:], np.ones((4, 5)))
