"""Losses against their definitions written out in NumPy, and against torchvision where it is installed."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch

from emlib.errors import UserError
from emlib.learn.losses import LOSSES, bce_loss, dice_loss, focal_loss, parse_loss


def sample(seed=0, shape=(2, 3, 5, 7), hidden=0.0):
    """Logits and targets in float64; a share of the targets is not annotated."""
    rng = np.random.default_rng(seed)
    logits, targets = rng.normal(0, 3, shape), (rng.random(shape) < 0.3).astype(float)
    targets[rng.random(shape) < hidden] = np.nan
    return logits, targets


def tensors(logits, targets):
    return torch.tensor(logits, dtype=torch.float32), torch.tensor(targets, dtype=torch.float32)


def numpy_bce(logits, targets, *_):
    p = 1 / (1 + np.exp(-logits))
    return -np.log(np.where(targets == 1, p, 1 - p))


def numpy_focal(logits, targets, balanced=False):
    p = 1 / (1 + np.exp(-logits))
    q = np.where(targets == 1, p, 1 - p)
    alpha = np.where(targets == 1, 0.8, 0.2) if balanced else 0.8
    return -alpha * (1 - q) ** 2 * np.log(q)


def numpy_mean(values, targets, weights):
    """Mean over annotated pixels, one after the other."""
    total = count = 0.0
    for index in np.ndindex(values.shape):
        if not np.isnan(targets[index]):
            total += weights[index[1]] * values[index]
            count += weights[index[1]]
    return total / count


def numpy_dice(logits, targets, weights):
    p, total, count = 1 / (1 + np.exp(-logits)), 0.0, 0.0
    for b in range(logits.shape[0]):
        for e in range(logits.shape[1]):
            known = ~np.isnan(targets[b, e])
            if known.any():
                probability, truth = p[b, e][known], targets[b, e][known]
                dice = (2 * (probability * truth).sum() + 1) / (probability.sum() + truth.sum() + 1)
                total, count = total + weights[e] * (1 - dice), count + weights[e]
    return total / count


def numpy_batch_dice(logits, targets, weights):
    """The images of a batch laid side by side are one image."""
    return numpy_dice(np.concatenate([*logits], 2)[None], np.concatenate([*targets], 2)[None], weights)


EXPECTED = {
    "dice": numpy_dice,
    "batch_dice": numpy_batch_dice,
    "bce": lambda x, t, w: numpy_mean(numpy_bce(x, t), t, w),
    "focal": lambda x, t, w: numpy_mean(numpy_focal(x, t), t, w),
    "balanced_focal": lambda x, t, w: numpy_mean(numpy_focal(x, t, balanced=True), t, w),
    "paper": lambda x, t, w: sum(EXPECTED[name](x, t, w) for name in ("dice", "focal", "bce")),
}


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("weights", [None, [1.0, 2.5, 0.25]])
@pytest.mark.parametrize("hidden", [0.0, 0.3])
def test_a_loss_equals_its_definition(name, weights, hidden):
    logits, targets = sample(hidden=hidden)
    found = LOSSES[name](*tensors(logits, targets), weights).item()
    assert found == pytest.approx(EXPECTED[name](logits, targets, weights or [1, 1, 1]), rel=1e-5)


def test_an_organelle_nobody_annotated_counts_for_nothing():
    logits, targets = sample()
    targets[1, 2] = np.nan
    for name, expected in EXPECTED.items():
        assert LOSSES[name](*tensors(logits, targets)).item() == pytest.approx(
            expected(logits, targets, [1, 1, 1]), rel=1e-5
        )


@pytest.mark.parametrize("name", LOSSES)
def test_no_gradient_comes_from_pixels_that_are_not_annotated(name):
    logits, targets = tensors(*sample(hidden=0.4))
    logits.requires_grad_()
    LOSSES[name](logits, targets).backward()
    assert torch.isfinite(logits.grad).all()
    assert (logits.grad[torch.isnan(targets)] == 0).all() and (logits.grad[~torch.isnan(targets)] != 0).all()


@pytest.mark.parametrize("name", LOSSES)
def test_nothing_annotated_is_zero_with_zero_gradient(name):
    logits = torch.randn(1, 2, 4, 4, generator=torch.Generator().manual_seed(0), requires_grad=True)
    loss = LOSSES[name](logits, torch.full((1, 2, 4, 4), torch.nan))
    loss.backward()
    assert loss.item() == 0 and (logits.grad == 0).all()


@pytest.mark.parametrize("name", LOSSES)
def test_extreme_logits_stay_finite(name):
    logits = torch.tensor([-1e4, 1e4, -1e4, 1e4]).reshape(1, 1, 2, 2).requires_grad_()
    loss = LOSSES[name](logits, torch.tensor([0.0, 1.0, 1.0, 0.0]).reshape(1, 1, 2, 2))
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("name", LOSSES)
def test_bfloat16_logits_are_summed_in_float32(name):
    logits, targets = tensors(*sample(shape=(1, 2, 64, 64)))
    logits = logits.bfloat16()
    assert LOSSES[name](logits, targets).item() == LOSSES[name](logits.float(), targets).item()


def torchvision_focal_loss():
    """torchvision's function from its source; the package itself does not import beside a PyTorch of another build."""
    found = importlib.util.find_spec("torchvision")
    if found is None:
        pytest.skip("torchvision is not installed")
    source = (Path(found.origin).parent / "ops" / "focal_loss.py").read_text(encoding="utf-8")
    space = {}
    exec(source.replace("from ..utils import _log_api_usage_once", "_log_api_usage_once = id"), space)
    return space["sigmoid_focal_loss"]


def test_focal_loss_equals_torchvision():
    reference = torchvision_focal_loss()
    logits, targets = tensors(*sample())
    balanced = reference(logits, targets, alpha=0.8, gamma=2, reduction="mean")
    assert focal_loss(logits, targets, balanced=True).item() == pytest.approx(balanced.item(), rel=1e-5)
    plain = reference(logits, targets, alpha=-1, gamma=2, reduction="mean")  # -1: no α
    assert focal_loss(logits, targets).item() == pytest.approx(0.8 * plain.item(), rel=1e-5)


def test_bce_equals_pytorch():
    logits, targets = tensors(*sample())
    assert bce_loss(logits, targets).item() == pytest.approx(torch.nn.BCEWithLogitsLoss()(logits, targets).item())


def test_dice_of_a_perfect_and_of_an_empty_answer():
    truth = torch.zeros(1, 1, 8, 8)
    truth[..., :4] = 1
    assert dice_loss((truth - 0.5) * 100, truth).item() == pytest.approx(0, abs=1e-6)
    assert dice_loss(torch.full_like(truth, -50), truth).item() == pytest.approx(1 - 1 / 33)
    assert dice_loss(torch.full_like(truth, -50), torch.zeros_like(truth)).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    ("text", "factors"),
    [
        ("dice", {"dice": 1}),
        ("dice+0.5*focal+bce", {"dice": 1, "focal": 0.5, "bce": 1}),
        (" 2 * DICE + 1e-1*bce ", {"dice": 2, "bce": 0.1}),
        ("1e+1*dice+bce", {"dice": 10, "bce": 1}),
        ("paper", {"dice": 1, "focal": 1, "bce": 1}),
    ],
)
@pytest.mark.parametrize("weights", [None, [3.0, 1.0, 1.0]])
def test_a_text_is_the_sum_it_says(text, factors, weights):
    logits, targets = tensors(*sample(hidden=0.1))
    expected = sum(factor * LOSSES[name](logits, targets, weights).item() for name, factor in factors.items())
    assert parse_loss(text, weights)(logits, targets).item() == pytest.approx(expected, rel=1e-6)


def test_only_ratios_of_organelle_weights_matter():
    logits, targets = tensors(*sample())
    losses = [parse_loss("paper", [a, 2 * a, 3 * a])(logits, targets).item() for a in (0.1, 1, 40)]
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-5)
    assert parse_loss("paper")(logits, targets).item() != pytest.approx(losses[0], rel=1e-4)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("dise+bce", "there is no loss 'dise'; did you mean dice?"),
        ("hinge", "there is no loss 'hinge'; there is dice, batch_dice, focal, balanced_focal, bce, paper"),
        ("dice+", "lacks a name"),
        ("", "lacks a name"),
        ("2*", "lacks a name"),
        ("x*dice", "'x' is no number above 0"),
        ("-1*dice", "'-1' is no number above 0"),
        ("0*dice", "'0' is no number above 0"),
        ("nan*dice", "'nan' is no number above 0"),
        ("inf*dice", "'inf' is no number above 0"),
    ],
)
def test_a_wrong_text_is_one_line(text, says):
    with pytest.raises(UserError) as error:
        parse_loss(text)
    assert says in str(error.value) and "\n" not in str(error.value)


def test_weights_must_be_one_above_zero_for_each_organelle():
    with pytest.raises(ValueError, match="above zero"):
        parse_loss("dice", [1, 0, 1])
    with pytest.raises(ValueError, match="3 organelles need as many weights"):
        parse_loss("dice", [1, 1])(*tensors(*sample()))
