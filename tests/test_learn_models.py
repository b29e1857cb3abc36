"""Networks: the published layout to the last parameter, sizes, edits, single experts, and what cannot be built."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from emlib.errors import UserError
from emlib.learn.models.build import build_model, count_parameters

SMALL = {
    "experts-paper": {"widths": [4, 8, 16]},
    "experts-laptop": {"widths": [4, 8, 16], "expert_widths": [4, 4, 4]},
}
ALL = pytest.mark.parametrize("name", sorted(SMALL))


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def small(name, organelles=("membranes", "synapses", "vesicles"), seed=0):
    torch.manual_seed(seed)
    model = build_model({"name": name, "organelles": organelles, **SMALL[name]})
    with torch.no_grad():
        for module in model.modules():  # running statistics other than those of a new network
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.uniform_(-0.2, 0.2)
                module.running_var.uniform_(0.5, 2)
    return model.eval()


def image(*shape, seed=1):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def described_layout(experts, widths=(32, 64, 128, 256)):
    """Names and shapes as the published model's description has them, written out without a module."""
    shapes = {}

    def conv(name, out, into, size):
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (out, into, size, size), (out,)

    def block(name, into, out):
        for number, source in (("1", into), ("2", out)):
            conv(f"{name}.conv{number}", out, source, 3)
            for part in ("weight", "bias", "running_mean", "running_var"):
                shapes[f"{name}.bn{number}.{part}"] = (out,)
            shapes[f"{name}.bn{number}.num_batches_tracked"] = ()
        shapes[f"{name}.se.fc1.weight"], shapes[f"{name}.se.fc1.bias"] = (out // 16, out), (out // 16,)
        shapes[f"{name}.se.fc2.weight"], shapes[f"{name}.se.fc2.bias"] = (out, out // 16), (out,)
        if into != out:
            conv(f"{name}.shortcut", out, into, 1)

    for i, out in enumerate(widths):
        block(f"encoder.layers.{i}", (1, *widths)[i], out)
    for k in range(experts):
        for i, (deep, fine) in enumerate(zip(widths[:0:-1], widths[-2::-1], strict=True)):
            shapes[f"decoders.{k}.ups.{i}.weight"] = (deep, fine, 2, 2)
            shapes[f"decoders.{k}.ups.{i}.bias"] = (fine,)
            block(f"decoders.{k}.dec_convs.{i}", 2 * fine, fine)
        conv(f"decoders.{k}.out_conv", 1, widths[0], 1)
    return shapes


def test_the_paper_network_has_the_published_parameters():
    names = ("membranes", "mitochondria", "synapses")
    assert count_parameters(build_model({"name": "experts-paper", "organelles": names})) == 3_629_707
    assert count_parameters(build_model({"name": "experts-paper", "organelles": names[:1]})) == 1_228_510 + 800_399


@pytest.mark.parametrize("experts", [1, 3, 5])
def test_the_paper_network_has_the_published_names_and_shapes(experts):
    model = build_model({"name": "experts-paper", "organelles": [f"o{k}" for k in range(experts)]})
    assert {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()} == described_layout(experts)


def written_out(weights, x, widths):
    """The published computation from its description, with nothing but weights and functions."""

    def conv(name, x, padding=0):
        return functional.conv2d(x, weights[f"{name}.weight"], weights[f"{name}.bias"], padding=padding)

    def norm(name, x):
        mean, var, scale, shift = (
            weights[f"{name}.{part}"][:, None, None] for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / torch.sqrt(var + 1e-5) * scale + shift

    def block(name, x):
        inner = torch.relu(norm(f"{name}.bn1", conv(f"{name}.conv1", x, 1)))
        inner = torch.relu(norm(f"{name}.bn2", conv(f"{name}.conv2", inner, 1)))
        squeeze = inner.mean((2, 3)) @ weights[f"{name}.se.fc1.weight"].T + weights[f"{name}.se.fc1.bias"]
        excite = torch.relu(squeeze) @ weights[f"{name}.se.fc2.weight"].T + weights[f"{name}.se.fc2.bias"]
        inner = inner * torch.sigmoid(excite)[:, :, None, None]
        return inner + (conv(f"{name}.shortcut", x) if f"{name}.shortcut.weight" in weights else x)

    features = []
    for level in range(len(widths)):
        x = functional.max_pool2d(x, 2) if level else x
        x = block(f"encoder.layers.{level}", x)
        features.append(x)
    logits, expert = [], 0
    while f"decoders.{expert}.out_conv.weight" in weights:
        x = features[-1]
        for i in range(len(widths) - 1):
            name = f"decoders.{expert}.ups.{i}"
            x = functional.conv_transpose2d(x, weights[f"{name}.weight"], weights[f"{name}.bias"], stride=2)
            x = block(f"decoders.{expert}.dec_convs.{i}", torch.cat([features[-2 - i], x], 1))
        logits.append(conv(f"decoders.{expert}.out_conv", x))
        expert += 1
    return torch.cat(logits, 1)


def test_the_paper_network_computes_what_is_described():
    model, x = small("experts-paper"), image(2, 1, 24, 32)
    with torch.no_grad():
        expected = written_out(model.state_dict(), x, (4, 8, 16))
        torch.testing.assert_close(model(x), expected, rtol=1e-5, atol=1e-5)


def test_dropout_drops_whole_channels_in_training_alone():
    model = small("experts-paper").train()
    dropped = {}
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Dropout2d):
            assert module.p == 0.2
            module.register_forward_hook(lambda _, x, y, name=name: dropped.update({name: (x[0], y)}))
    model(image(16, 1, 16, 16))
    x, y = dropped["encoder.layers.2.dropout"]
    gone = (y == 0).all((2, 3)) & ~(x == 0).all((2, 3))
    assert 0.1 < gone.float().mean() < 0.3
    torch.testing.assert_close(y[~gone], (x / 0.8)[~gone])
    model.eval()
    assert torch.equal(model(image(1, 1, 16, 16)), model(image(1, 1, 16, 16)))


@ALL
@pytest.mark.parametrize("size", [(16, 16), (17, 31), (40, 23), (32, 64)])
def test_any_size_gives_logits_of_that_size(name, size):
    with torch.no_grad():
        logits = small(name)(image(2, 1, *size))
    assert logits.shape == (2, 3, *size) and logits.dtype == torch.float32 and torch.isfinite(logits).all()


@ALL
def test_an_expert_alone_gives_its_own_channel(name):
    model, x = small(name), image(1, 1, 21, 30)
    with torch.no_grad():
        features, whole = model.encode(x), model(x)
        for expert in range(3):
            alone = model.decode(features, experts=[expert])
            assert torch.equal(alone[..., :21, :30], whole[:, [expert]])
        two = model.decode(features, experts=[2, 0])
        assert torch.equal(two[..., :21, :30], whole[:, [2, 0]])


@ALL
def test_levels_are_what_level_channels_say_and_can_be_edited(name):
    model, x = small(name), image(1, 1, 32, 32)
    seen = []

    def look(level, features):
        seen.append(level)
        return features

    with torch.no_grad():
        features = model.encode(x, look)
        assert seen == [0, 1, 2] and tuple(f.shape[1] for f in features) == model.level_channels == (4, 8, 16)
        assert torch.equal(model(x, look), model(x))
        blank = model.encode(x, lambda level, f: torch.zeros_like(f) if level == 1 else f)
        assert torch.equal(blank[0], features[0])  # before the edit
        assert (blank[1] == 0).all() and not torch.equal(blank[2], features[2])  # the edit, and what follows from it


@ALL
def test_an_edit_reaches_the_skip_and_the_levels_below(name):
    model, x = small(name), image(1, 1, 32, 32)

    def without(level):
        return lambda at, f: torch.zeros_like(f) if at == level else f

    with torch.no_grad():
        for level in range(3):
            features = model.encode(x)
            features[level] = torch.zeros_like(features[level])
            skip_alone = model.decode(features)
            both = model(x, without(level))
            assert not torch.equal(both, model(x))
            assert torch.equal(both, skip_alone) == (level == 2)  # nothing lies below the deepest


@ALL
def test_equal_seeds_give_equal_networks(name):
    one, two, other = small(name), small(name), small(name, seed=5)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


@ALL
def test_every_parameter_gets_a_gradient(name):
    model = small(name).train()
    model(image(2, 1, 32, 32)).square().mean().backward()
    assert [key for key, p in model.named_parameters() if p.grad is None or not np.isfinite(p.grad.numpy()).all()] == []


@pytest.mark.parametrize(
    ("architecture", "says"),
    [
        (
            {"name": "experts-papr", "organelles": ["a"]},
            "there is no network 'experts-papr'; did you mean experts-paper",
        ),
        ({"name": "zzz", "organelles": ["a"]}, "there is experts-laptop, experts-paper"),
        ({"organelles": ["a"]}, "there is no network 'None'"),
        ({"name": ["x"], "organelles": ["a"]}, "there is no network"),
        ({"name": "experts-paper"}, "needs the name of at least one organelle"),
        ({"name": "experts-paper", "organelles": "membranes"}, "needs the name of at least one organelle"),
        ({"name": "experts-paper", "organelles": ["a", 1]}, "needs the name of at least one organelle"),
        ({"name": "experts-paper", "organelles": 3}, "needs the name of at least one organelle"),
        ({"name": "experts-paper", "organelles": ["a", "b", "a"]}, "the organelle 'a' is named twice"),
        ({"name": "experts-paper", "organelles": ["a"], "width": [4]}, "has no setting 'width'; did you mean widths?"),
        ({"name": "experts-paper", "organelles": ["a"], "widths": 4}, "cannot be built"),
        ({"name": "experts-paper", "organelles": ["a"], "widths": [4, 0]}, "counts of channels"),
        ({"name": "experts-paper", "organelles": ["a"], "widths": ["4"]}, "cannot be built"),
        ({"name": "experts-paper", "organelles": ["a"], "dropout": 3}, "cannot be built: dropout"),
    ],
)
def test_what_cannot_be_built_is_one_line(architecture, says):
    with pytest.raises(UserError) as error:
        build_model(architecture)
    assert says in str(error.value) and "\n" not in str(error.value)
