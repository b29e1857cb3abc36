"""Heads on backbones: one set of tests that every pair inherits, and what each head promises beside."""

import copy
from typing import ClassVar

import pytest
import torch

from emlib.errors import UserError
from emlib.interpret.ablation import Probe
from emlib.interpret.sampling import Sample
from emlib.learn.models.build import build_model
from emlib.learn.models.checkpoint import load_checkpoint, save_checkpoint
from emlib.learn.models.heads import MeansOfParts
from emlib.learn.normalisation import Normalisation

SIZES = [(16, 16), (33, 47), (64, 96), (100, 75)]
# timm's own small networks of each family (Swin has none), then the smallest that people use
SMALL = ["test_vit", "test_convnext", "test_resnet", "test_efficientnet"]
USUAL = ["vit_tiny_patch16_224", "swin_tiny_patch4_window7_224", "convnext_atto", "resnet18", "efficientnet_b0"]
BACKBONES = pytest.mark.parametrize("backbone", [*SMALL, *(pytest.param(b, marks=pytest.mark.slow) for b in USUAL)])


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def networks():
    """Return a function that gives a network in evaluation mode, the same one for equal arguments."""
    made = {}

    def call(**architecture):
        key = tuple(sorted(architecture.items()))
        if key not in made:
            made.clear()
            torch.manual_seed(0)
            made[key] = build_model({"organelles": ["membranes", "synapses"], **architecture}).eval()
        return made[key]

    return call


@pytest.fixture
def offline(monkeypatch):
    """Nothing may ask the network for anything."""

    def refuse(*args):
        raise AssertionError("a connection was opened")

    monkeypatch.setattr("socket.socket.connect", refuse)


def image(*shape, seed=1):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.usefixtures("offline")
class Contract:
    """What every network of a backbone and a decoder keeps; a head names itself and inherits."""

    architecture: ClassVar[dict]

    @pytest.fixture
    def model(self, networks, backbone):
        return networks(backbone=backbone, **self.architecture)

    @BACKBONES
    def test_any_size_gives_logits_of_that_size(self, model):
        with torch.no_grad():
            for size in SIZES:
                logits = model(image(2, 1, *size))
                assert logits.shape == (2, 2, *size) and torch.isfinite(logits).all()

    @BACKBONES
    def test_levels_are_what_level_channels_say_and_can_be_edited(self, model):
        x, seen = image(1, 1, 64, 96), []

        def look(level, features):
            seen.append((level, features.shape[1]))
            return features

        with torch.no_grad():
            features, plain = model.encode(x, look), model.encode(x)
            assert sorted(seen) == list(enumerate(model.level_channels))
            assert all(torch.equal(a, b) for a, b in zip(features, plain, strict=True))
            assert tuple(f.shape[1] for f in features) == model.level_channels
            for level in range(len(features)):
                blank = model.encode(x, lambda at, f, level=level: torch.zeros_like(f) if at == level else f)
                assert (blank[level] == 0).all()
                assert all(torch.equal(a, b) for a, b in zip(blank[:level], features[:level], strict=True))
                assert not torch.equal(model.decode(blank), model.decode(features))

    @BACKBONES
    def test_single_organelles_are_channels_of_the_whole(self, model):
        with torch.no_grad():
            features = model.encode(image(1, 1, 33, 47))
            whole = model.decode(features)
            assert whole.shape == (1, 2, 64, 64)
            assert torch.equal(model.decode(features, experts=[1]), whole[:, [1]])
            assert torch.equal(model.decode(features, experts=[1, 0]), whole[:, [1, 0]])

    @BACKBONES
    def test_a_checkpoint_gives_the_same_network(self, model, backbone, tmp_path):
        architecture = {"organelles": ["membranes", "synapses"], "backbone": backbone, **self.architecture}
        path = save_checkpoint(
            tmp_path / "model.pth",
            model,
            architecture=architecture,
            normalisation=Normalisation(),
            voxel_size_nm=None,
            metrics={},
            settings={},
        )
        loaded = load_checkpoint(path)
        assert loaded.organelles == ("membranes", "synapses") and loaded.model.activation == "sigmoid"
        with torch.no_grad():
            assert torch.equal(loaded.model(image(1, 1, 33, 47)), model(image(1, 1, 33, 47)))

    @BACKBONES
    def test_steps_reach_every_parameter_and_lower_the_loss(self, model):
        model = copy.deepcopy(model).train()
        for module in model.modules():  # so that two losses of one network are equal
            if isinstance(module, torch.nn.modules.dropout._DropoutNd):
                module.p = 0.0
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.0)
        x = image(2, 1, 64, 64)
        target = torch.cat([x > 0.5, x < 0.1], dim=1).float()
        losses = []
        for _ in range(4):
            optimizer.zero_grad()
            loss = torch.nn.functional.binary_cross_entropy_with_logits(model(x), target)
            loss.backward()
            losses.append(loss.item())
            assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()] == []
            optimizer.step()
        assert losses[-1] < losses[0]
        assert [name for name, p in model.named_parameters() if torch.equal(p, before[name])] == []


class TestUnet(Contract):
    architecture: ClassVar = {"name": "unet", "width": 2}

    def test_far_from_its_edge_a_tile_gives_what_the_section_gives(self, networks):
        model, section = networks(backbone="test_convnext", **self.architecture), image(1, 1, 64, 1024)
        with torch.no_grad():
            torch.testing.assert_close(
                model(section)[..., :256], model(section[..., :768])[..., :256], rtol=1e-4, atol=1e-5
            )


class TestPspNet(Contract):
    architecture: ClassVar = {"name": "pspnet", "width": 8}


class TestDeepLabV3Plus(Contract):
    architecture: ClassVar = {"name": "deeplabv3plus", "width": 8}


class TestUperNet(Contract):
    architecture: ClassVar = {"name": "upernet", "width": 8}


class TestBackboneExperts(Contract):
    architecture: ClassVar = {"name": "experts-backbone", "width": 2}

    def test_an_expert_is_the_decoder_that_was_asked_for(self):
        for name in ("unet", "pspnet", "deeplabv3plus", "upernet"):
            architecture = {"name": "experts-backbone", "decoder": name, "backbone": "test_resnet", "width": 8}
            model = build_model({"organelles": ["a", "b", "c"], **architecture})
            alone = build_model({"organelles": ["a"], "name": name, "backbone": "test_resnet", "width": 8})
            shapes = {key: p.shape for key, p in alone.decoder.state_dict().items()}
            assert len(model.decoders) == 3
            assert {key: p.shape for key, p in model.decoders[2].state_dict().items()} == shapes


@pytest.mark.parametrize("backbone", SMALL)
def test_gradients_at_a_level_are_what_editing_it_does(backbone):
    """What interpretation relies on: an edit passes through the backbone's later stages, and so do gradients."""
    torch.manual_seed(0)
    architecture = {"name": "experts-backbone", "backbone": backbone, "organelles": ["a", "b"], "width": 2}
    model, x = build_model(architecture).double().eval().requires_grad_(False), image(1, 1, 64, 64).double()
    features = model.encode(x, lambda level, f: f if f.requires_grad else f.detach().requires_grad_())
    slopes = torch.autograd.grad(model.decode(features, experts=[1]).sum(), features)
    for level, slope in enumerate(slopes):
        direction = torch.randn(slope.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(level))
        direction *= features[level] != 0  # where a maximum is shared by zeros there is no derivative
        total = []
        for step in (-1e-8, 1e-8):
            moved = model.encode(x, lambda at, f, s=step: f + s * direction if at == level else f)  # noqa: B023
            total.append(model.decode(moved, experts=[1]).sum().item())
        assert (total[1] - total[0]) / 2e-8 == pytest.approx((slope * direction).sum().item(), rel=1e-4, abs=1e-5)


def test_experts_of_a_backbone_can_be_ablated_at_every_level():
    model = build_model({"name": "experts-backbone", "backbone": "test_resnet", "organelles": ["a", "b"], "width": 2})
    masks = (image(2, 2, 64, 64) > 0.5).numpy().astype("uint8")
    drawn = Sample(image(2, 1, 64, 64).numpy(), masks, ((0, 0, 0), (0, 0, 64)), ("a", "b"))
    probe = Probe(model.eval(), drawn, batch_size=1)
    assert probe.channels == model.level_channels
    for level in range(len(probe.channels)):
        assert (probe.without(range(probe.channels[level]), level=level).change > 0).all()


@pytest.mark.parametrize("parts", [1, 2, 3, 6])
def test_means_of_parts_are_adaptive_average_pooling(parts):
    for size in [(1, 1), (2, 3), (8, 12), (7, 13), (5, 40)]:
        x = image(2, 3, *size)
        torch.testing.assert_close(MeansOfParts(parts)(x), torch.nn.functional.adaptive_avg_pool2d(x, parts))


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("backbone", ["test_resnet", "test_vit"])
@pytest.mark.parametrize("name", ["unet", "pspnet", "deeplabv3plus", "upernet", "experts-backbone"])
def test_a_traced_network_takes_any_multiple_of_32(name, backbone):
    model = build_model({"name": name, "backbone": backbone, "organelles": ["a", "b"], "width": 8}).eval()
    with torch.no_grad():
        traced = torch.jit.trace(model, image(1, 1, 64, 96), check_trace=False)
        for size in [(64, 96), (128, 32)]:
            torch.testing.assert_close(traced(image(1, 1, *size)), model(image(1, 1, *size)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["deeplabv3plus", "upernet", "pspnet"])
def test_a_batch_of_one_can_be_trained_on(name):
    """What is pooled to one place has no spread over a batch of one."""
    model = build_model({"name": name, "backbone": "test_resnet", "organelles": ["a"], "width": 8}).train()
    model(image(1, 1, 64, 64)).square().mean().backward()
    gradients = [parameter.grad for parameter in model.parameters()]
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)
    assert any(gradient.any() for gradient in gradients)


@pytest.mark.parametrize(
    ("name", "stride", "expected"),
    [("pspnet", None, (8,)), ("pspnet", 16, (16,)), ("deeplabv3plus", None, (4, 16)), ("deeplabv3plus", 8, (4, 8))],
)
def test_the_deepest_stage_is_dilated_to_the_output_stride(name, stride, expected):
    architecture = {"name": name, "organelles": ["a"], "width": 8, "output_stride": stride}
    model = build_model({**architecture, "backbone": "test_resnet"}).eval()
    features = model.encode(image(1, 1, 64, 96))
    assert [(64 // f.shape[2], 96 // f.shape[3]) for f in features] == [(s, s) for s in expected]
    assert model.level_channels[-1] == model.encoder.net.feature_info[-1]["num_chs"]
    assert len(model.encoder.net.feature_info) == 5  # the deepest stage, not one of stride 8
    windows = build_model({**architecture, "backbone": "edgenext_xx_small"})  # cannot be dilated
    assert windows.encoder.strides == (*expected[:-1], 16)


def test_activation_is_kept_and_softmax_needs_two_classes():
    architecture = {"name": "unet", "backbone": "test_resnet", "organelles": ["background", "a"]}
    assert build_model(architecture).activation == "sigmoid"
    assert build_model({**architecture, "activation": "softmax"}).activation == "softmax"
    assert build_model({"name": "experts-laptop", "organelles": ["a"]}).activation == "sigmoid"
    with pytest.raises(UserError, match="no activation 'softmx'; did you mean softmax"):
        build_model({**architecture, "activation": "softmx"})
    with pytest.raises(UserError, match="softmax needs at least two classes"):
        build_model({**architecture, "activation": "softmax", "organelles": ["background"]})


def test_several_grey_values_per_pixel_can_go_in():
    for backbone in SMALL:
        model = build_model({"name": "unet", "backbone": backbone, "organelles": ["a"], "in_channels": 3, "width": 2})
        assert model.eval()(image(1, 3, 33, 40)).shape == (1, 1, 33, 40)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"name": "unett"}, "there is no network 'unett'; did you mean unet"),
        ({"name": "deeplab"}, "did you mean deeplabv3plus"),
        ({"backbone": "resnet188"}, "there is no backbone 'resnet188'; did you mean resnet18"),
        ({"backbone": 18}, "there is no backbone '18'"),
        ({"backbone": "maxvit_tiny_tf_224"}, "there is no backbone 'maxvit_tiny_tf_224'"),
        ({"width": 0}, "the width of the decoder is at least 1 channel, not 0"),
        ({"width": "wide"}, "cannot be built"),
        ({"in_channels": 0}, "cannot be built"),
        ({"output_stride": 8}, "has no setting 'output_stride'"),
        ({"name": "pspnet", "output_stride": 4}, "output_stride is 8 or 16, not 4"),
        ({"name": "experts-backbone", "decoder": "unets"}, "there is no decoder 'unets'; did you mean unet"),
        ({"name": "experts-backbone", "output_stride": 8}, "unet uses all strides of its backbone"),
    ],
)
def test_what_cannot_be_built_is_one_line(changed, says):
    with pytest.raises(UserError) as error:
        build_model({"name": "unet", "backbone": "test_resnet", "organelles": ["a"], **changed})
    assert says in str(error.value) and "\n" not in str(error.value)
