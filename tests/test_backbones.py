"""Backbones of timm: which there are, features at fixed strides, weights from elsewhere, a broken torchvision."""

import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional

from emlib.errors import UserError
from emlib.learn.models import pretrained
from emlib.learn.models.backbones import FAMILIES, backbone_family, list_backbones, new_backbone, timm
from emlib.learn.models.build import build_model
from emlib.learn.models.multi_expert import pad_to_multiple
from emlib.learn.models.pretrained import load_backbone
from emlib.learn.models.pyramid import Pyramid
from emlib.learn.models.torchvision_operators import SCHEMAS, declare_missing_operators

# one small network of every family that FAMILIES names
REPRESENTATIVES = {
    "byobnet": "test_byobnet",
    "convnext": "test_convnext",
    "cspnet": "cs3darknet_focus_s",
    "cspnext": "cspnext_tiny",
    "davit": "davit_tiny",
    "deit": "deit_tiny_distilled_patch16_224",
    "densenet": "densenet121",
    "dla": "dla46_c",
    "dpn": "dpn48b",
    "edgenext": "edgenext_xx_small",
    "efficientnet": "test_efficientnet",
    "efficientvit_mit": "efficientvit_b0",
    "eva": "eva02_tiny_patch14_224",
    "fasternet": "fasternet_t0",
    "fastvit": "fastvit_t8",
    "focalnet": "focalnet_tiny_srf",
    "ghostnet": "ghostnet_050",
    "hardcorenas": "hardcorenas_a",
    "hgnet": "hgnetv2_b0",
    "hieradet_sam2": "hieradet_small",
    "inception_next": "inception_next_atto",
    "mambaout": "test_mambaout",
    "metaformer": "poolformer_s12",
    "mobilenetv3": "lcnet_035",
    "mobilevit": "mobilevit_xxs",
    "nextvit": "nextvit_small",
    "nfnet": "test_nfnet",
    "pvt_v2": "pvt_v2_b0",
    "rdnet": "rdnet_tiny",
    "regnet": "regnetx_002",
    "repghost": "repghostnet_050",
    "repvit": "repvit_m0_9",
    "res2net": "res2net50_48w_2s",
    "resnest": "resnest14d",
    "resnet": "test_resnet",
    "resnetv2": "resnetv2_18",
    "rexnet": "rexnetr_100",
    "senet": "legacy_seresnet18",
    "sknet": "skresnet18",
    "starnet": "starnet_s050",
    "swiftformer": "swiftformer_xs",
    "swin_transformer": "swin_tiny_patch4_window7_224",
    "swin_transformer_v2": "swinv2_tiny_window8_256",
    "swin_transformer_v2_cr": "swinv2_cr_tiny_224",
    "tiny_vit": "tiny_vit_5m_224",
    "vgg": "vgg11",
    "vision_transformer": "test_vit",
    "vovnet": "ese_vovnet19b_slim_dw",
    "xception_aligned": "xception41",
    "xcit": "xcit_nano_12_p16_224",
}
QUICK = {"resnet", "convnext", "efficientnet", "vision_transformer", "byobnet", "mambaout", "nfnet"}
FAMILY = pytest.mark.parametrize(
    "module", [m if m in QUICK else pytest.param(m, marks=pytest.mark.slow) for m in sorted(FAMILIES)]
)


def image(*shape, seed=1):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


@FAMILY
def test_every_family_gives_features_at_every_stride_of_any_image(module):
    pyramid = Pyramid(REPRESENTATIVES[module]).eval()
    assert backbone_family(REPRESENTATIVES[module]) is FAMILIES[module]
    with torch.no_grad():
        for size in [(33, 47), (128, 96)]:
            x = image(1, 1, *size)
            features = pyramid(x)
            padded = pad_to_multiple(x, 32).shape[-2:]
            assert [tuple(f.shape) for f in features] == [
                (1, c, padded[0] // s, padded[1] // s) for c, s in zip(pyramid.channels, (2, 4, 8, 16, 32), strict=True)
            ]
        seen = pyramid(x, lambda level, f: f)
        assert all(torch.equal(a, b) for a, b in zip(seen, features, strict=True))  # the hook sees what is returned
        for level, stride in enumerate(pyramid.strides[:-1]):
            changed = pyramid(x, lambda at, f, level=level: torch.zeros_like(f) if at == level else f)
            follows = stride in pyramid.levels  # it is the backbone's own, so that the next stage sees the change
            assert (changed[level] == 0).all() and follows != torch.equal(changed[level + 1], features[level + 1])
    if FAMILIES[module].dilates:
        dilated = Pyramid(REPRESENTATIVES[module], strides=(4, 8), dilate=True).eval()(image(1, 1, 64, 96))
        assert [tuple(f.shape[2:]) for f in dilated] == [(16, 24), (8, 12)]


def test_every_family_has_a_representative_and_all_names_have_a_family():
    assert set(REPRESENTATIVES) == set(FAMILIES)
    names = list_backbones()
    assert len(names) > 900 and names == list_backbones("*")
    assert {backbone_family(name).plain for name in names} == {True, False}
    assert set(names) >= set(REPRESENTATIVES.values())


def test_the_list_takes_patterns_and_shows_what_can_be_built_alone():
    assert list_backbones("resnet1*t") == ["resnet10t", "resnet14t"]
    assert list_backbones("resnet18") == ["resnet18"] and list_backbones("resnet18x") == []
    assert timm.list_models("maxvit*") and list_backbones("maxvit*") == []


@pytest.mark.parametrize("name", ["test_resnet", "test_convnext", "test_efficientnet"])
def test_the_backbones_own_strides_are_taken_as_they_are(name):
    """The same weights in the network that timm itself builds for features."""
    pyramid, x = Pyramid(name).eval(), image(1, 1, 64, 96)
    net = timm.create_model(name, in_chans=1, num_classes=0).eval()
    net.load_state_dict(pyramid.net.state_dict(), strict=False)
    with torch.no_grad():
        expected = {64 // f.shape[2]: f for f in net.forward_intermediates(x, intermediates_only=True)}
        for stride, features in zip(pyramid.strides, pyramid(x), strict=True):
            assert (stride in expected) == (stride in pyramid.levels)
            if stride in expected:
                assert torch.equal(features, expected[stride])


def test_a_plain_transformer_gives_its_last_tokens_at_their_own_stride():
    pyramid, x = Pyramid("vit_tiny_patch16_224", strides=(8, 16, 32)).eval(), image(1, 1, 64, 96)
    with torch.no_grad():
        eight, sixteen, thirty_two = pyramid(x)
        tokens = pyramid.net.forward_features(x)[:, 1:].transpose(1, 2).reshape(1, 192, 4, 6)
        torch.testing.assert_close(sixteen, tokens)
        assert torch.equal(thirty_two, functional.max_pool2d(sixteen, 2)) and eight.shape == (1, 96, 8, 12)


def test_tokens_of_other_sizes_are_brought_to_the_same_strides():
    for name, patch in [("eva02_tiny_patch14_224", 14), ("vit_small_patch8_224", 8), ("vit_small_patch32_224", 32)]:
        pyramid = Pyramid(name, strides=(4, 8, 16, 32)).eval()
        assert pyramid.patch == patch
        with torch.no_grad():
            features = pyramid(image(1, 1, 64, 96))
        assert [tuple(f.shape[2:]) for f in features] == [(16, 24), (8, 12), (4, 6), (2, 3)]


@pytest.mark.parametrize("name", ["test_vit", "eva02_tiny_patch14_224", "test_resnet"])
def test_positions_kept_for_one_size_change_nothing_there(name):
    pyramid, x = Pyramid(name, strides=(4, 16)).eval(), image(1, 1, 33, 90)
    with torch.no_grad():
        before = pyramid(x)
        pyramid.fix_size(33, 90)
        for one, other in zip(pyramid(x), before, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    if name == "test_vit":
        assert pyramid.net.pos_embed.shape[1] == pyramid.net.num_prefix_tokens + 4 * 6


def test_what_no_stride_needs_is_not_built():
    whole, half = Pyramid("test_resnet"), Pyramid("test_resnet", strides=(2, 4, 8))
    assert sum(p.numel() for p in half.parameters()) < sum(p.numel() for p in whole.parameters()) / 2
    assert not [name for name, _ in Pyramid("convnext_atto").named_parameters() if "head" in name]
    with pytest.raises(ValueError, match="has no stage of stride 64"):
        Pyramid("test_resnet", strides=(32, 64))


def test_images_smaller_than_their_padding_are_mirrored_again():
    x = torch.arange(3.0).expand(1, 1, 1, 3).reshape(1, 1, 1, 3).repeat(1, 1, 3, 1)
    assert pad_to_multiple(x, 8)[0, 0, 0].tolist() == [0, 1, 2, 1, 0, 1, 2, 1]
    assert pad_to_multiple(image(1, 1, 16, 16), 32).shape == (1, 1, 32, 32)


def colour_weights(name, seed=0):
    """Weights of a network for colour images with a classifier, no two alike."""
    net = timm.create_model(name, num_classes=10)
    generator = torch.Generator().manual_seed(seed)
    return {
        key: torch.rand(value.shape, generator=generator) if value.is_floating_point() else value
        for key, value in net.state_dict().items()
    }


def grey_model(name, head="unet"):
    torch.manual_seed(0)
    return build_model({"name": head, "backbone": name, "organelles": ["a"], "width": 2})


@pytest.mark.parametrize("wrapper", ["safetensors", "plain", "state_dict", "module."])
@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_convnext", "test_efficientnet"])
def test_weights_of_a_file_are_taken_over(name, wrapper, tmp_path, caplog):
    weights, model = colour_weights(name), grey_model(name)
    path = tmp_path / ("weights.safetensors" if wrapper == "safetensors" else "weights.pth")
    if wrapper == "safetensors":
        save_file(weights, path)
    elif wrapper == "plain":
        torch.save(weights, path)
    elif wrapper == "state_dict":
        torch.save({"epoch": 3, "state_dict": weights}, path)
    else:
        torch.save({f"module.{key}": value for key, value in weights.items()}, path)
    decoder = {key: value.clone() for key, value in model.decoder.state_dict().items()}
    drawn = torch.get_rng_state()
    load_backbone(model, path)
    assert torch.equal(torch.get_rng_state(), drawn) and not caplog.records
    own, summed = model.encoder.net.state_dict(), []
    for key, value in own.items():
        if value.shape == weights[key].shape:
            assert torch.equal(value, weights[key]), key
        else:
            summed.append(key)
            torch.testing.assert_close(value, weights[key].sum(1, keepdim=True))
    assert len(summed) == 1  # the first convolution
    assert all(torch.equal(value, decoder[key]) for key, value in model.decoder.state_dict().items())
    assert all(p.requires_grad for p in model.parameters())


def test_no_weights_leave_the_network_as_it_is():
    model = grey_model("test_resnet")
    before = {key: value.clone() for key, value in model.state_dict().items()}
    load_backbone(model, "none")
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_weights_that_do_not_fit_are_one_line(tmp_path):
    path, model = tmp_path / "w.pth", grey_model("test_resnet")
    for content, says in [
        (colour_weights("test_convnext"), "w.pth has no weight of the backbone test_resnet: it lacks"),
        ({"a": 1}, "w.pth holds no weights"),
        ([1, 2], "w.pth holds no weights"),
    ]:
        torch.save(content, path)
        with pytest.raises(UserError) as error:
            load_backbone(model, path)
        assert says in str(error.value) and "\n" not in str(error.value)
    part = colour_weights("test_resnet")
    last = [key for key in part if key.startswith("layer4")]
    torch.save({key: value for key, value in part.items() if key not in last}, path)
    with pytest.raises(UserError, match=r"has \d+ of \d+ weights of the backbone test_resnet: it lacks layer4"):
        load_backbone(model, path)
    torch.save({key: value[:1] if value.ndim == 4 else value for key, value in part.items()}, path)
    with pytest.raises(UserError, match=r"does not fit the backbone test_resnet: .*size mismatch"):
        load_backbone(model, path)


def test_files_that_cannot_be_read_are_one_line(tmp_path):
    model = grey_model("test_resnet")
    (tmp_path / "w.safetensors").write_bytes(b"no safetensors at all")
    (tmp_path / "w.pth").write_bytes(b"no weights at all")
    for weights, says in [
        (tmp_path / "w.safetensors", "is no file of safetensors, or is damaged"),
        (tmp_path / "w.pth", "is no checkpoint, or is damaged"),
        (tmp_path / "none.pth", "there is no file of weights"),
        (tmp_path, "there is no file of weights"),
        ("imagnet", "--weights is none, imagenet or a file"),
    ]:
        with pytest.raises(UserError) as error:
            load_backbone(model, weights)
        assert says in str(error.value) and "\n" not in str(error.value)
    plain = build_model({"name": "experts-laptop", "organelles": ["a"]})
    with pytest.raises(UserError, match="no backbone that could take the weights imagenet"):
        load_backbone(plain, "imagenet")


def test_without_a_network_pretrained_weights_are_one_quick_line(monkeypatch):
    monkeypatch.setattr(pretrained.constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(pretrained, "_cached", lambda known: False)
    with pytest.raises(UserError, match=r"cannot download the weights of resnet18: http://127.0.0.1:9 cannot be reach"):
        load_backbone(grey_model("resnet18"), "imagenet")
    without = next(name for name in list_backbones("resnet*") if not timm.get_pretrained_cfg(name).has_weights)
    with pytest.raises(UserError, match=f"timm has no pretrained weights of {without}"):
        load_backbone(grey_model(without), "imagenet")


def test_a_failing_download_is_one_line(monkeypatch):
    def fail(*args, **options):
        raise OSError("the connection\nbroke")

    monkeypatch.setattr(pretrained, "_cached", lambda known: True)
    monkeypatch.setattr(timm.models._builder, "load_state_dict_from_hf", fail)
    with pytest.raises(
        UserError, match=r"cannot load the pretrained weights of resnet18 \(OSError: the connection bro"
    ):
        load_backbone(grey_model("resnet18"), "imagenet")


def test_downloaded_weights_are_taken_over(monkeypatch):
    weights = colour_weights("test_resnet") | {"fc.weight": torch.rand(1000, 512), "fc.bias": torch.rand(1000)}
    monkeypatch.setattr(pretrained, "_cached", lambda known: True)
    monkeypatch.setattr(timm.models._builder, "load_state_dict_from_hf", lambda *args, **options: dict(weights))
    model = grey_model("test_resnet")
    load_backbone(model, "imagenet")
    own = model.encoder.net.state_dict()
    assert torch.equal(own["layer2.0.conv1.weight"], weights["layer2.0.conv1.weight"])
    assert not [
        key for key, value in own.items() if value.shape == weights[key].shape and not value.equal(weights[key])
    ]


def test_an_unknown_backbone_names_the_nearest():
    for name, says in [("resnet188", "did you mean resnet18"), ("convnxt_atto", "convnext_atto"), ("", "there is")]:
        with pytest.raises(UserError) as error:
            new_backbone(name)
        assert says in str(error.value) and "--list-backbones" in str(error.value)


FAKE = """
import torch.library
@torch.library.register_fake("torchvision::nms")
def nms(dets, scores, iou_threshold): ...
@torch.library.register_fake("torchvision::qnms")
def qnms(dets, scores, iou_threshold): ...
"""


CHECK = """
import pathlib, sys
folder = pathlib.Path(sys.argv[1])
sys.path.insert(0, str(folder))
try:
    import torchvision
except RuntimeError as error:
    print(error)
from emlib.learn.models import torchvision_operators as ours
print(ours._compiled_part_loads())
(folder / "torchvision" / "_C.so").write_bytes(b"built for something else")
print(ours._compiled_part_loads())
print(ours.declare_missing_operators())
import torchvision
print(ours.declare_missing_operators())
"""


def test_a_torchvision_without_its_compiled_part_can_be_imported(tmp_path):
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text(FAKE)
    done = subprocess.run([sys.executable, "-c", CHECK, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        "operator torchvision::nms does not exist",
        "False",  # without the file, and with one that cannot be loaded
        "False",
        str(tuple(SCHEMAS)),
        "()",
    ]


def test_a_whole_torchvision_is_left_alone(monkeypatch):
    assert declare_missing_operators() == ()  # timm, and with it torchvision, is imported already
    module = sys.modules[declare_missing_operators.__module__]
    monkeypatch.delitem(sys.modules, "torchvision")
    monkeypatch.setattr(module, "_KEPT", [])
    monkeypatch.setattr(module, "_compiled_part_loads", lambda: True)
    assert declare_missing_operators() == () and module._KEPT == []
