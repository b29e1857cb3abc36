"""Tiled inference: the same as the whole section where it can be, smooth where it cannot, whatever the batch."""

import numpy as np
import pytest
import torch
from torch import nn

from emlib.errors import UserError
from emlib.learn.inference import decide, predict_section, predict_sections
from emlib.learn.models.experts import LaptopExperts
from emlib.learn.models.experts_paper import PaperExperts
from emlib.learn.normalisation import Normalisation
from emlib.learn.tiles import GRID, MARGIN, TileSettings, mirrored_places, tile_grid, tile_weights

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
    """The network on the image as it is, nothing added."""
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
    assert len(tile_grid(256, settings)[0]) == 4
    assert np.abs(found - directly(model, image))[:, 16:-16, 16:-16].max() < 1e-6


def test_a_section_of_one_tile_is_what_the_network_says_of_the_mirrored_section():
    model, image = PaperExperts(("a", "b"), widths=(4, 8)).eval(), noise(96, 64)
    inner = np.s_[:, MARGIN:-MARGIN, MARGIN:-MARGIN]
    expected = directly(model, np.pad(image, MARGIN, "symmetric"))[inner]
    assert np.abs(predict_section(model, image, PLAIN) - expected).max() < 1e-6


@pytest.mark.parametrize("settings", [TileSettings(), TileSettings(96, 32)])
@pytest.mark.parametrize("shape", [(96, 64), (100, 75), (33, 150)])
def test_all_four_borders_are_treated_alike(shape, settings):
    """A network without direction gives the same, mirrored, of a section that is mirrored or turned."""
    torch.manual_seed(0)
    model = convolutions(8)
    for part in model:
        if isinstance(part, nn.Conv2d):  # all eight positions of a kernel alike
            kernel = sum(torch.rot90(k, r, (2, 3)) for k in (part.weight, part.weight.flip(3)) for r in range(4)) / 8
            part.weight = nn.Parameter(kernel)
    image = noise(*shape)
    found = predict_section(model, image, PLAIN, settings)
    assert found.std() > 1e-3
    for turns in range(4):
        for flip in (lambda a: a, lambda a: a[..., ::-1]):
            moved = np.ascontiguousarray(flip(np.rot90(image, turns)))
            again = np.rot90(flip(predict_section(model, moved, PLAIN, settings)), -turns, (1, 2))
            assert np.abs(again - found).max() < 1e-5


def test_a_border_sees_the_mirror_and_no_padding():
    """A known answer: the mean over 9 × 9 pixels of a constant section is that constant up to its border."""
    mean = nn.Conv2d(1, 1, 9, padding=4)
    nn.init.constant_(mean.weight, 1 / 81)
    nn.init.zeros_(mean.bias)
    found = predict_section(mean, np.full((70, 50), 255, np.uint8), PLAIN)
    assert found == pytest.approx(1 / (1 + np.exp(-1)), abs=1e-6)
    assert directly(mean, np.full((70, 50), 255, np.uint8))[0, 0, 0] < 0.6  # what the network pads itself costs it


@pytest.mark.parametrize("length", [1, 31, 32, 33, 1000, 1024, 1025, 2000])
def test_every_side_has_its_margin(length):
    starts, side = tile_grid(length, TileSettings())
    beyond = starts[-1] + side - length
    assert starts[0] == -MARGIN and beyond >= MARGIN
    row = np.random.default_rng(0).random((1, length)).astype(np.float32)
    grown = row[0][mirrored_places(-MARGIN, starts[-1] + side, length)]
    assert len(grown) == MARGIN + length + beyond and (grown[MARGIN : MARGIN + length] == row[0]).all()
    if length > 2 * MARGIN:
        assert (grown[:MARGIN] == row[0, MARGIN - 1 :: -1]).all()
        assert (grown[MARGIN + length :][:MARGIN] == row[0, -1 : -1 - MARGIN : -1]).all()


def receptive_reach(model, side=512):
    """How many pixels away a change of the input still changes the output, as far as float32 shows."""
    x = torch.zeros(1, 1, side, side, requires_grad=True)
    model(x)[0, :, side // 2, side // 2].sum().backward()
    seen = np.flatnonzero(x.grad[0, 0].abs().numpy().max(axis=1))
    return max(side // 2 - seen.min(), seen.max() - side // 2)


def test_tiles_of_the_laptop_network_equal_the_whole_section_at_the_default_settings():
    """It looks farther than the part of a tile that counts for nothing, so its tail must be too faint to matter."""
    torch.manual_seed(0)
    model, settings = LaptopExperts(("a", "b", "c")).eval(), TileSettings()
    for part in model.modules():
        if isinstance(part, nn.BatchNorm2d):  # statistics of a trained network, as lively as it
            part.running_mean.normal_(0, 0.1)
            part.running_var.uniform_(0.5, 1.5)
            nn.init.uniform_(part.weight, 0.5, 1.5)
    for decoder in model.decoders:
        decoder.out_conv.weight.data *= 30  # logits that cross the threshold
    reach = receptive_reach(model)
    assert 3 * settings.overlap // 8 < reach <= settings.overlap // 2
    image = noise(1088, 256)
    assert len(tile_grid(1088, settings)[0]) == 2
    whole, found = directly(model, image), predict_section(model, image, PLAIN, settings)
    assert 0.05 < whole.std() and 0.2 < (whole > 0.5).mean() < 0.8
    inner = np.s_[:, reach:-reach, reach:-reach]
    assert found.dtype == np.float32 and np.abs(found - whole)[inner].max() < 1e-3


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
    grown = image[mirrored_places(-MARGIN, starts[-1] + side, len(image))]
    means = [directly(TileMean(), grown[s + MARGIN : s + MARGIN + side])[0, 0, 0] for s in starts]
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
        assert side <= settings.tile + (2 * MARGIN if len(starts) == 1 else 0)
        assert starts[0] == -MARGIN and starts[-1] + side >= length + MARGIN
        assert side % GRID == 0 and not (starts % GRID).any()
        assert starts[-1] + side - length < settings.tile + MARGIN and starts[-1] < length
        weights, total = tile_weights(starts, side, settings.overlap), np.zeros(starts[-1] + side + MARGIN)
        for start, weight in zip(starts + MARGIN, weights, strict=True):
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


class Turned(nn.Module):
    """The network on images that are turned and mirrored before it, and back after it."""

    def __init__(self, model, turns, flipped):
        super().__init__()
        self.model, self.turns, self.flips = model, turns, (3,) if flipped else ()

    def forward(self, x):
        found = self.model(torch.rot90(x, self.turns, (2, 3)).flip(self.flips))
        return torch.rot90(found.flip(self.flips), -self.turns, (2, 3))


def test_tta_is_the_mean_over_eight_positions():
    model, image = convolutions(5), noise(64, 32)
    found = predict_section(model, image, PLAIN, TileSettings(tta=True))
    each = [Turned(model, turns, flipped) for turns in range(4) for flipped in (False, True)]
    expected = [predict_section(one, image, PLAIN) for one in each]
    assert np.abs(found - np.mean(expected, axis=0)).max() < 1e-6
    turned = predict_section(model, np.ascontiguousarray(np.rot90(image)), PLAIN, TileSettings(tta=True))
    assert np.abs(np.rot90(turned, -1, (1, 2)) - found).max() < 1e-6
    plain = predict_section(model, image, PLAIN)
    assert np.abs(plain - found).max() > 0.01


def test_softmax_where_classes_exclude_each_other():
    model, image = convolutions(5), noise(100, 75)
    model.activation = "softmax"
    found = predict_section(model, image, PLAIN, SMALL)
    assert found.dtype == np.float32 and np.abs(found.sum(axis=0) - 1).max() < 1e-5
    grown = torch.from_numpy(PLAIN.apply(np.pad(image, MARGIN, "symmetric")))[None, None]
    with torch.inference_mode():
        expected = torch.softmax(model(grown), dim=1)[0, :, MARGIN:-MARGIN, MARGIN:-MARGIN].numpy()
    assert np.abs(found - expected).max() < 1e-5
    tta = predict_section(model, image, PLAIN, TileSettings(tta=True))
    assert np.abs(tta.sum(axis=0) - 1).max() < 1e-5 and np.abs(tta - found).max() > 0.01
    model.activation = "tanh"
    with pytest.raises(ValueError, match="sigmoid or softmax, not 'tanh'"):
        predict_section(model, image, PLAIN)


def test_masks_are_decided_by_the_activation():
    probabilities = np.random.default_rng(0).dirichlet(np.ones(4), (20, 30)).transpose(2, 0, 1)
    classes = decide(probabilities, "softmax", threshold=0.9)
    assert classes.dtype == bool and (classes.sum(axis=0) == 1).all()
    for y, x in np.ndindex(20, 30):
        assert classes[probabilities[:, y, x].argmax(), y, x]
    assert (decide(probabilities, "sigmoid", 0.3) == (probabilities >= 0.3)).all()
    assert decide(np.full((3, 1, 1), 1 / 3), "softmax").ravel().tolist() == [True, False, False]
    with pytest.raises(ValueError, match="not 'tanh'"):
        decide(probabilities, "tanh")


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
