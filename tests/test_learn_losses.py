"""Losses against their definitions written out in NumPy, for sigmoid and softmax, and against PyTorch's own."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from emlib.errors import UserError
from emlib.learn.losses import ACTIVATIONS, LOSSES, Comparison, parse_loss
from emlib.learn.losses.boundary import signed_distance
from emlib.learn.losses.cross_entropy import focal_loss
from emlib.learn.losses.overlap import dice_loss, tversky_loss

WEIGHTS = [1.0, 2.5, 0.25]
CASES = [(name, activation) for name in LOSSES for activation in ACTIVATIONS]


def sample(seed=0, shape=(2, 3, 5, 7), hidden=0.0, activation="sigmoid"):
    """Logits and targets in float64; a share of the targets is not annotated, with softmax in one channel."""
    rng = np.random.default_rng(seed)
    logits, targets = rng.normal(0, 3, shape), (rng.random(shape) < 0.3).astype(float)
    if activation == "softmax":
        classes = rng.integers(shape[1], size=(shape[0], *shape[2:]))
        targets = np.moveaxis(np.eye(shape[1])[classes], -1, 1).copy()
    targets[rng.random(shape) < hidden] = np.nan
    return logits, targets


def tensors(logits, targets):
    return torch.tensor(logits, dtype=torch.float32), torch.tensor(targets, dtype=torch.float32)


def probabilities(logits, activation):
    if activation == "sigmoid":
        return 1 / (1 + np.exp(-logits))
    raised = np.exp(logits - logits.max(1, keepdims=True))
    return raised / raised.sum(1, keepdims=True)


def unknown(targets, activation):
    nan = np.isnan(targets)
    return nan if activation == "sigmoid" else np.broadcast_to(nan.any(1, keepdims=True), nan.shape)


def pixel_mean(values, targets, weights, activation):
    """Mean over annotated pixels and channels, one after the other."""
    total = count = 0.0
    for index in np.ndindex(values.shape):
        if not unknown(targets, activation)[index]:
            total += weights[index[1]] * values[index]
            count += weights[index[1]]
    return total / count


def true_class_mean(of_truth, logits, targets, weights):
    """Mean over annotated pixels of a function of (probability, true class), weighted by that class."""
    p, total, count = probabilities(logits, "softmax"), 0.0, 0.0
    for b, y, x in np.ndindex(targets.shape[0], *targets.shape[2:]):
        if not np.isnan(targets[b, :, y, x]).any():
            truth = int(targets[b, :, y, x].argmax())
            total += weights[truth] * of_truth(p[b, truth, y, x], truth)
            count += weights[truth]
    return total / count


def numpy_bce(logits, targets, weights, activation):
    p = probabilities(logits, activation)
    return pixel_mean(-np.log(np.where(targets == 1, p, 1 - p)), targets, weights, activation)


def numpy_ce(logits, targets, weights, activation):
    if activation == "sigmoid":
        return numpy_bce(logits, targets, weights, activation)
    return true_class_mean(lambda p, _: -np.log(p), logits, targets, weights)


def numpy_focal(logits, targets, weights, activation, balanced=False):
    if activation == "softmax":
        alpha = [0.2, 0.8, 0.8] if balanced else [0.8] * 3
        return true_class_mean(lambda p, c: -alpha[c] * (1 - p) ** 2 * np.log(p), logits, targets, weights)
    p = probabilities(logits, activation)
    q = np.where(targets == 1, p, 1 - p)
    alpha = np.where(targets == 1, 0.8, 0.2) if balanced else 0.8
    return pixel_mean(-alpha * (1 - q) ** 2 * np.log(q), targets, weights, activation)


def numpy_tversky(logits, targets, weights, activation, alpha=0.3, beta=0.7):
    p, left_out, total, count = probabilities(logits, activation), unknown(targets, activation), 0.0, 0.0
    for b, e in np.ndindex(logits.shape[:2]):
        known = ~left_out[b, e]
        if known.any():
            guess, truth = p[b, e][known], targets[b, e][known]
            hit, false, missed = (guess * truth).sum(), (guess * (1 - truth)).sum(), ((1 - guess) * truth).sum()
            ratio = (hit + 0.5) / (hit + alpha * false + beta * missed + 0.5)
            total, count = total + weights[e] * (1 - ratio), count + weights[e]
    return total / count


def numpy_dice(logits, targets, weights, activation):
    return numpy_tversky(logits, targets, weights, activation, 0.5, 0.5)


def numpy_batch_dice(logits, targets, weights, activation):
    """The images of a batch laid side by side are one image."""
    return numpy_dice(np.concatenate([*logits], 2)[None], np.concatenate([*targets], 2)[None], weights, activation)


def jaccard_loss(truth, wrong):
    """1 - IoU if the pixels of ``wrong`` are wrong and no others (equation 6 of Berman et al. 2018)."""
    union = truth | wrong
    return wrong.sum() / union.sum() if union.any() else 0.0


def numpy_lovasz(logits, targets, weights, activation):
    p, left_out, total, count = probabilities(logits, activation), unknown(targets, activation), 0.0, 0.0
    for e in range(logits.shape[1]):
        known = ~left_out[:, e]
        truth, score = targets[:, e][known] == 1, logits[:, e][known]
        if not known.any() or (activation == "softmax" and not truth.any()):
            continue
        errors = np.maximum(1 - score * (2 * truth - 1), 0)
        if activation == "softmax":
            errors = abs(truth - p[:, e][known])
        wrong, before, loss = np.zeros(len(truth), bool), 0.0, 0.0
        for pixel in np.argsort(-errors):
            wrong[pixel] = True
            loss += errors[pixel] * (jaccard_loss(truth, wrong) - before)
            before = jaccard_loss(truth, wrong)
        total, count = total + weights[e] * loss, count + weights[e]
    return total / count


def numpy_boundary(logits, targets, weights, activation):
    """Distances from pixel to pixel by trying all; inside, the pixel at the outline has 0."""
    p, left_out, distance = probabilities(logits, activation), unknown(targets, activation), np.zeros(logits.shape)
    for b, e, y, x in np.ndindex(logits.shape):
        inside, outside = ((targets[b, e] == value) & ~left_out[b, e] for value in (1, 0))
        if inside.any() and outside.any() and not left_out[b, e, y, x]:
            other = outside if inside[y, x] else inside
            nearest = min(np.hypot(y - row, x - column) for row, column in np.argwhere(other))
            distance[b, e, y, x] = 1 - nearest if inside[y, x] else nearest
    if activation == "softmax":
        return pixel_mean((distance * p)[:, 1:], np.where(left_out, np.nan, 0)[:, 1:], weights[1:], "sigmoid")
    return pixel_mean(distance * p, targets, weights, activation)


EXPECTED = {
    "ce": numpy_ce,
    "bce": numpy_bce,
    "dice": numpy_dice,
    "batch_dice": numpy_batch_dice,
    "focal": numpy_focal,
    "balanced_focal": lambda *given: numpy_focal(*given, balanced=True),
    "tversky": numpy_tversky,
    "lovasz": numpy_lovasz,
    "boundary": numpy_boundary,
    "paper": lambda *given: sum(EXPECTED[name](*given) for name in ("dice", "focal", "ce")),
}


@pytest.mark.parametrize(("name", "activation"), CASES)
@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("hidden", [0.0, 0.3])
def test_a_loss_equals_its_definition(name, activation, weights, hidden):
    logits, targets = sample(hidden=hidden, activation=activation)
    found = parse_loss(name, weights, activation)(*tensors(logits, targets)).item()
    assert found == pytest.approx(EXPECTED[name](logits, targets, weights or [1, 1, 1], activation), rel=1e-5)


@pytest.mark.parametrize(("name", "activation"), CASES)
def test_the_gradient_is_that_of_finite_differences(name, activation):
    logits, targets = sample(shape=(2, 3, 3, 4), hidden=0.2, activation=activation)
    logits = torch.tensor(logits / 2, requires_grad=True)
    loss = parse_loss(name, WEIGHTS, activation)
    assert torch.autograd.gradcheck(lambda tensor: loss(tensor, torch.tensor(targets)), [logits])


@pytest.mark.parametrize(("name", "activation"), CASES)
def test_an_image_nobody_annotated_counts_for_nothing(name, activation):
    """An organelle of it, with sigmoid; all of it, with softmax."""
    logits, targets = sample(activation=activation)
    targets[1, 2] = np.nan
    found = parse_loss(name, WEIGHTS, activation)(*tensors(logits, targets)).item()
    assert found == pytest.approx(EXPECTED[name](logits, targets, WEIGHTS, activation), rel=1e-5)
    if activation == "softmax":
        alone = parse_loss(name, WEIGHTS, activation)(*tensors(logits[:1], targets[:1])).item()
        assert found == pytest.approx(alone, rel=1e-5)


@pytest.mark.parametrize(("name", "activation"), CASES)
def test_no_gradient_comes_from_pixels_that_are_not_annotated(name, activation):
    logits, targets = sample(hidden=0.2, activation=activation)
    left_out = torch.tensor(unknown(targets, activation))
    logits, targets = tensors(logits, targets)
    logits.requires_grad_()
    parse_loss(name, None, activation)(logits, targets).backward()
    assert torch.isfinite(logits.grad).all() and (logits.grad[left_out] == 0).all()
    taught = logits.grad[~left_out] != 0
    assert taught.any() if name in ("lovasz", "boundary") else taught.all()


@pytest.mark.parametrize(("name", "activation"), CASES)
def test_nothing_annotated_is_zero_with_zero_gradient(name, activation):
    logits = torch.randn(1, 2, 4, 4, generator=torch.Generator().manual_seed(0), requires_grad=True)
    loss = parse_loss(name, None, activation)(logits, torch.full((1, 2, 4, 4), torch.nan))
    loss.backward()
    assert loss.item() == 0 and (logits.grad == 0).all()


@pytest.mark.parametrize(("name", "activation"), CASES)
def test_extreme_logits_stay_finite(name, activation):
    logits = torch.tensor([[-1e4, 1e4, -1e4, 1e4], [1e4, -1e4, 1e4, 1e4]]).reshape(1, 2, 2, 2).requires_grad_()
    targets = torch.tensor([[0.0, 1.0, 1.0, 0.0], [1.0, 0.0, 0.0, 1.0]]).reshape(1, 2, 2, 2)
    loss = parse_loss(name, None, activation)(logits, targets)
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(logits.grad).all()


@pytest.mark.parametrize(("name", "activation"), CASES)
def test_bfloat16_logits_are_summed_in_float32(name, activation):
    logits, targets = tensors(*sample(shape=(1, 2, 32, 32), activation=activation))
    logits, loss = logits.bfloat16(), parse_loss(name, None, activation)
    with torch.autocast("cpu", torch.bfloat16):
        found = loss(logits, targets)
    assert found.dtype == torch.float32 and found.item() == loss(logits.float(), targets).item()


@pytest.mark.parametrize("name", LOSSES)
def test_a_step_along_the_gradient_lowers_the_loss(name):
    for activation in ACTIVATIONS:
        logits, targets = tensors(*sample(activation=activation))
        logits.requires_grad_()
        loss = parse_loss(name, None, activation)
        before = loss(logits, targets)
        before.backward()
        assert loss(logits - 0.01 * logits.grad / logits.grad.norm(), targets) < before


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
    both = Comparison(logits, targets)
    balanced = reference(logits, targets, alpha=0.8, gamma=2, reduction="mean")
    assert focal_loss(both, balanced=True).item() == pytest.approx(balanced.item(), rel=1e-5)
    plain = reference(logits, targets, alpha=-1, gamma=2, reduction="mean")  # -1: no α
    assert focal_loss(both).item() == pytest.approx(0.8 * plain.item(), rel=1e-5)


@pytest.mark.parametrize("hidden", [0.0, 0.2])
def test_cross_entropy_equals_pytorch(hidden):
    logits, targets = tensors(*sample())
    assert parse_loss("ce")(logits, targets).item() == pytest.approx(
        torch.nn.BCEWithLogitsLoss()(logits, targets).item()
    )
    logits, targets = tensors(*sample(hidden=hidden, activation="softmax"))
    index = torch.where(targets.isnan().any(1), -100, targets.argmax(1))
    expected = functional.cross_entropy(logits, index, torch.tensor(WEIGHTS))
    assert parse_loss("ce", WEIGHTS, "softmax")(logits, targets).item() == pytest.approx(expected.item())


def test_two_classes_are_one_organelle():
    """Softmax of (0, z) is the sigmoid of z, and the background is the rest."""
    logits, targets = tensors(*sample(shape=(2, 1, 6, 5)))
    pair, truth = torch.cat([torch.zeros_like(logits), logits], 1), torch.cat([1 - targets, targets], 1)
    for name in ("ce", "bce", "focal", "balanced_focal", "boundary"):
        alone = parse_loss(name)(logits, targets).item()
        assert parse_loss(name, None, "softmax")(pair, truth).item() == pytest.approx(alone, rel=1e-5)


def test_dice_of_a_perfect_and_of_an_empty_answer():
    truth = torch.zeros(1, 1, 8, 8)
    truth[..., :4] = 1
    loss = parse_loss("dice")
    assert loss((truth - 0.5) * 100, truth).item() == pytest.approx(0, abs=1e-6)
    assert loss(torch.full_like(truth, -50), truth).item() == pytest.approx(1 - 1 / 33)
    assert loss(torch.full_like(truth, -50), torch.zeros_like(truth)).item() == pytest.approx(0, abs=1e-6)


def test_tversky_with_halves_is_dice():
    both = Comparison(*tensors(*sample(hidden=0.1)), WEIGHTS)
    assert tversky_loss(both, 0.5, 0.5).item() == pytest.approx(dice_loss(both).item())


def test_lovasz_of_sure_answers_is_one_minus_iou():
    """With probabilities of 0 and 1 the extension is the set function itself."""
    truth, answer = (torch.zeros(1, 2, 4, 4) for _ in range(2))
    truth[:, 1, :2], answer[:, 1, 1:3] = 1, 1
    truth[:, 0], answer[:, 0] = 1 - truth[:, 1], 1 - answer[:, 1]
    loss = parse_loss("lovasz", None, "softmax")((answer - 0.5) * 200, truth).item()
    assert loss == pytest.approx((1 - 4 / 12 + 1 - 4 / 12) / 2)


def test_an_empty_class_of_lovasz():
    """With sigmoid its worst pixel counts; with softmax it is left out."""
    logits = torch.tensor([[3.0, 1.0], [0.5, -4.0]]).reshape(1, 1, 2, 2)
    assert parse_loss("lovasz")(logits, torch.zeros_like(logits)).item() == pytest.approx(4)
    logits = torch.cat([logits, -logits, logits * 0], 1)
    targets = torch.zeros(1, 3, 2, 2)
    targets[:, 0] = 1
    without = parse_loss("lovasz", [1.0, 1e6, 1e6], "softmax")(logits, targets)
    assert without.item() == pytest.approx(parse_loss("lovasz", None, "softmax")(logits, targets).item())


def test_a_distance_map_has_its_sign_and_ignores_what_is_unknown():
    inside = np.zeros((5, 9), bool)
    inside[:, 3:6] = True
    assert signed_distance(inside, ~inside)[2].tolist() == [3, 2, 1, 0, -1, 0, 1, 2, 3]
    outside = ~inside
    outside[:, 6:] = False
    assert signed_distance(inside, outside)[2].tolist() == [3, 2, 1, 0, -1, -2, 0, 0, 0]
    for full in (inside | True, inside & False):
        assert not signed_distance(full, ~full).any()


@pytest.mark.parametrize(
    ("text", "factors"),
    [
        ("dice", {"dice": 1}),
        ("dice+0.5*focal+bce", {"dice": 1, "focal": 0.5, "bce": 1}),
        ("ce+dice+0.01*boundary", {"ce": 1, "dice": 1, "boundary": 0.01}),
        (" 2 * DICE + 1e-1*bce ", {"dice": 2, "bce": 0.1}),
        ("1e+1*dice+bce", {"dice": 10, "bce": 1}),
        ("paper", {"dice": 1, "focal": 1, "ce": 1}),
    ],
)
@pytest.mark.parametrize("weights", [None, [3.0, 1.0, 1.0]])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_text_is_the_sum_it_says(text, factors, weights, activation):
    logits, targets = tensors(*sample(hidden=0.1, activation=activation))
    both = Comparison(logits, targets, weights, activation)
    expected = sum(factor * LOSSES[name](both).item() for name, factor in factors.items())
    assert parse_loss(text, weights, activation)(logits, targets).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("name", "activation"), CASES)
def test_only_ratios_of_organelle_weights_matter(name, activation):
    logits, targets = tensors(*sample(activation=activation))
    losses = [parse_loss(name, [a, 2 * a, 3 * a], activation)(logits, targets).item() for a in (0.1, 1, 40)]
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-5)
    assert parse_loss(name, None, activation)(logits, targets).item() != pytest.approx(losses[0], rel=1e-4)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("dise+bce", "there is no loss 'dise'; did you mean dice?"),
        ("lovas", "there is no loss 'lovas'; did you mean lovasz?"),
        ("hinge", "there is no loss 'hinge'; there is ce, dice, batch_dice, focal, balanced_focal, bce and 4 more"),
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
    with pytest.raises(UserError, match="2 weights for 3 classes; give one for each of background, mito, er"):
        parse_loss("dice", [1, 1], "softmax", ["background", "mito", "er"])


def test_what_cannot_be_compared_is_refused():
    logits, targets = tensors(*sample())
    with pytest.raises(ValueError, match="no activation 'relu'"):
        parse_loss("dice", activation="relu")
    with pytest.raises(ValueError, match="are not both"):
        parse_loss("dice")(logits, targets[:, :1])
    with pytest.raises(ValueError, match="two classes or more"):
        parse_loss("dice", activation="softmax")(logits[:, :1], targets[:, :1])
