"""Tiled inference: the same as the whole section where it can be, smooth where it cannot, whatever the batch."""

import numpy as np
import pytest
import torch
from torch import nn

from emlib.errors import UserError
from emlib.learn.inference import GRID, TileSettings, predict_section, predict_sections, tile_grid, tile_weights
from emlib.learn.models.experts_paper import PaperExperts
from emlib.learn.normalisation import Normalisation

SMALL = TileSettings(tile=64, overlap=32)
PLAIN = Normalisation()


def convolutions(layers, channels=4, seed=0):
    """A purely convolutional network that looks ``layers`` pixels far, with lively logits."""
    torch.manual_seed(seed)
    parts = [nn.Conv2d(1, channels, 3, padding=1), nn.LeakyReLU(0.3)]
    for _ in range(layers - 2):
        parts += [nn.Conv2d(channels, channels, 3, padding=1), nn.LeakyReLU(0.3)]
    net = nn.Sequential(*parts, nn.Conv2d(channels, 2, 3, padding=1))
    for part in net:
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, a=0.3)
    return net


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


def directly(model, image):
    """The network on the image as it is, nothing padded."""
    model.eval()
    with torch.inference_mode():
        return torch.sigmoid(model(torch.from_numpy(PLAIN.apply(image))[None, None]))[0].numpy()


def in_hard_tiles(model, image, side):
    """What the blending is there to avoid: tiles side by side."""
    out = np.zeros((2, *image.shape), np.float32)
    for y in range(0, image.shape[0], side):
        for x in range(0, image.shape[1], side):
            out[:, y : y + side, x : x + side] = directly(model, image[y : y + side, x : x + side])
    return out


@pytest.mark.parametrize(("layers", "tolerance"), [(8, 1e-6), (12, 1e-5), (15, 1e-3)])
def test_tiles_equal_the_whole_section_away_from_borders(layers, tolerance):
    """Exactly where the network looks no farther than 3/8 of the overlap, to 1e-3 up to half of it."""
    image, inner = noise(160, 200), np.s_[:, layers:-layers, layers:-layers]
    model = convolutions(layers)
    whole = directly(model, image)
    assert whole[0].std() > 0.02
    assert np.abs(predict_section(model, image, PLAIN, SMALL) - whole)[inner].max() < tolerance
    assert np.abs(in_hard_tiles(model, image, 40) - whole)[inner].max() > 0.01


def test_pooling_falls_on_the_same_pixels_in_every_tile():
    torch.manual_seed(0)
    down = [nn.Conv2d(1, 4, 3, padding=1), nn.MaxPool2d(4), nn.Conv2d(4, 4, 1), nn.MaxPool2d(4)]
    model = nn.Sequential(*down, nn.Upsample(scale_factor=16), nn.Conv2d(4, 2, 1))
    image, settings = noise(256, 224), TileSettings(tile=128, overlap=64)
    found = predict_section(model, image, PLAIN, settings)
    assert len(tile_grid(256, settings)[0]) == 3
    assert np.abs(found - directly(model, image))[:, 16:-16, 16:-16].max() < 1e-6


def test_a_section_of_one_tile_is_what_the_network_says():
    model, image = PaperExperts(("a", "b"), widths=(4, 8)).eval(), noise(96, 64)
    assert np.abs(predict_section(model, image, PLAIN) - directly(model, image)).max() < 1e-6


class TileMean(nn.Module):
    """Its output is one number for the whole tile: the worst that squeeze and excitation could do."""

    def forward(self, x):
        return (8 * (x.mean(dim=(2, 3), keepdim=True) - 0.5)).expand(-1, 2, *x.shape[2:])


def test_no_seams_where_the_network_depends_on_its_tile():
    """Neighbouring tiles differ by a constant; the blended map never steps more than the slope of the ramp."""
    image = np.repeat(np.linspace(0, 255, 256).astype(np.uint8)[:, None], 256, axis=1)
    settings = TileSettings(tile=128, overlap=64)
    found = predict_section(TileMean(), image, PLAIN, settings)
    starts, side = tile_grid(256, settings)
    means = [directly(TileMean(), image[s : s + side])[0, 0, 0] for s in starts]
    largest = np.abs(np.diff(means)).max()
    assert largest > 0.2
    steps = np.abs(np.diff(found, axis=1)).max()
    assert 0 < steps < 1.001 * largest * (np.pi / 2) / (settings.overlap / 4)
    assert found[0, 0, 0] == pytest.approx(means[0], abs=1e-6)
    assert np.ptp(found, axis=2).max() < 1e-6  # all the same from left to right


@pytest.mark.parametrize("settings", [TileSettings(), SMALL, TileSettings(96, 32), TileSettings(320, 160)])
def test_the_grid_covers_any_length_with_weights_that_sum_to_one(settings):
    for length in [*range(1, 700, 13), 1024, 1025, 4000]:
        starts, side = tile_grid(length, settings)
        assert side <= settings.tile and starts[0] == 0 and starts[-1] + side >= length
        assert side % GRID == 0 and not (starts % GRID).any()
        assert starts[-1] + side - length < settings.tile and (length <= settings.tile or starts[-1] < length)
        weights, total = tile_weights(starts, side, settings.overlap), np.zeros(starts[-1] + side)
        for start, weight in zip(starts, weights, strict=True):
            total[start : start + side] += weight
        assert np.abs(total - 1).max() < 1e-6 and weights.min() >= 0
        assert (weights[1:, : 3 * settings.overlap // 8] == 0).all()


def test_the_result_does_not_depend_on_the_batch_size():
    model, image = PaperExperts(("a", "b"), widths=(4, 8)), noise(200, 130)
    results = [predict_section(model, image, PLAIN, TileSettings(64, 32, n)).tobytes() for n in (1, 3, 100)]
    assert results[0] == results[1] == results[2]


@pytest.mark.parametrize("shape", [(1, 1), (1, 70), (17, 33), (64, 64), (65, 64), (131, 77), (300, 40)])
def test_any_size(shape):
    found = predict_section(PaperExperts(("a", "b"), widths=(4, 8)), noise(*shape), PLAIN, SMALL)
    assert found.shape == (2, *shape) and found.dtype == np.float32 and found.flags.c_contiguous
    assert 0 <= found.min() and found.max() <= 1


def test_tta_is_the_mean_over_eight_positions():
    model, image = convolutions(5), noise(64, 32)
    found = predict_section(model, image, PLAIN, TileSettings(tta=True))
    expected = []
    for turns in range(4):
        for mirror in (lambda a: a, lambda a: a[..., ::-1]):
            moved = np.ascontiguousarray(mirror(np.rot90(image, turns)))
            expected.append(np.rot90(mirror(directly(model, moved)), -turns, (1, 2)))
    assert np.abs(found - np.mean(expected, axis=0)).max() < 1e-6
    turned = predict_section(model, np.ascontiguousarray(np.rot90(image)), PLAIN, TileSettings(tta=True))
    assert np.abs(np.rot90(turned, -1, (1, 2)) - found).max() < 1e-6
    plain = predict_section(model, image, PLAIN)
    assert np.abs(plain - found).max() > 0.01


def test_normalisation_and_bit_depth():
    model, image = convolutions(3), noise(64, 64)
    as_16_bit = predict_section(model, image.astype(np.uint16) * 257, PLAIN)
    assert np.abs(as_16_bit - predict_section(model, image, PLAIN)).max() < 1e-6
    scaled = predict_section(model, image, Normalisation(0.25, 0.5))
    shifted = predict_section(model, (image / np.float32(255) - np.float32(0.25)) * 2, PLAIN)
    assert np.abs(scaled - shifted).max() < 1e-5


def test_bf16_is_near():
    model, image = convolutions(3), noise(64, 64)
    found = predict_section(model, image, PLAIN, TileSettings(precision="bf16"))
    assert found.dtype == np.float32 and 0 < np.abs(found - predict_section(model, image, PLAIN)).max() < 0.05


def test_a_model_in_training_goes_on_training():
    model = PaperExperts(("a",), widths=(4,), dropout=0.9).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    one, two = (predict_section(model, noise(64, 64), PLAIN) for _ in range(2))
    assert model.training and (one == two).all()  # no dropout
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_sections_come_in_their_order():
    class Two:
        def __len__(self):
            return 2

        def image(self, index):
            return noise(40, 50 + index, seed=index)

    model = convolutions(3)
    found = list(predict_sections(model, Two(), PLAIN, SMALL))
    assert [one.shape for one in found] == [(2, 40, 50), (2, 40, 51)]
    assert (found[1] == predict_section(model, noise(40, 51, seed=1), PLAIN, SMALL)).all()


class Fails(nn.Module):
    def __init__(self, error):
        super().__init__()
        self.error = error

    def forward(self, x):
        raise self.error


@pytest.mark.parametrize(
    "error",
    [MemoryError(), torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("DefaultCPUAllocator: can't allocate")],
)
def test_out_of_memory_names_the_flag(error):
    with pytest.raises(UserError, match="out of memory while predicting on cpu; use a smaller --tile"):
        predict_section(Fails(error), noise(32, 32), PLAIN)


def test_other_errors_are_left_alone():
    with pytest.raises(RuntimeError, match="a bug"):
        predict_section(Fails(RuntimeError("a bug")), noise(32, 32), PLAIN)


def test_a_model_that_gives_no_number():
    model = convolutions(3)
    nn.init.constant_(model[0].weight, float("nan"))
    with pytest.raises(UserError, match="no number"):
        predict_section(model, noise(32, 32), PLAIN)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tile": 100}, "tile must be a multiple of 32"),
        ({"overlap": 0}, "overlap must be a multiple of 32"),
        ({"tile": 64}, "overlap must be at most half"),
        ({"batch_size": 0}, "batch_size"),
        ({"precision": "16"}, "precision"),
    ],
)
def test_settings_are_checked(arguments, message):
    with pytest.raises(ValueError, match=message):
        TileSettings(**arguments)


def test_a_section_is_two_dimensional():
    with pytest.raises(ValueError, match="array"):
        predict_section(convolutions(3), noise(2, 32, 32), PLAIN)
