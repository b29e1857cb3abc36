"""Weights for a backbone: none, those that timm knows, or a file of weights of timm."""

from __future__ import annotations

import logging
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import huggingface_hub
import safetensors.torch
import torch
from huggingface_hub import constants
from torch import nn

from emlib.errors import UserError
from emlib.learn.models.backbones import timm
from emlib.learn.models.pyramid import Pyramid
from emlib.learn.models.tensor_files import read_tensors

SECONDS = 5.0  # to wait for the server of weights before it is called out of reach
WANTED = "give a .safetensors or .pth file of timm's weights"
WRAPPERS = ("state_dict_ema", "state_dict", "model_ema", "model", "module")  # names under which files hold them
SHOWN = 3  # names of weights in a message


def load_backbone(model: nn.Module, weights: str | Path) -> None:
    """Give the backbone of a new network other weights; the decoder keeps its own.

    Parameters
    ----------
    model : nn.Module
        Built by `emlib.learn.models.build.build_model` with a ``backbone``.
    weights : str or Path
        "none": random, as they are. "imagenet": those that timm has for this backbone, from its cache or downloaded.
        Else a file, ``.safetensors`` or of ``torch.save``, with the weights of this backbone by timm's names. The
        first convolution is summed over its colours (timm's ``adapt_input_conv``), the classifier is left out.

    Raises
    ------
    UserError
        If the network has no backbone of timm, there are no such weights, the server cannot be reached, or the file
        cannot be read, or lacks a weight or has it in another shape.

    Examples
    --------
    >>> from emlib.learn.models.build import build_model
    >>> load_backbone(build_model({"name": "experts-paper", "organelles": ["synapses"], "widths": [4]}), "none")
    """
    if str(weights) == "none":
        return
    encoder = getattr(model, "encoder", None)
    if not isinstance(encoder, Pyramid):
        raise UserError(f"this network has no backbone that could take the weights {weights}; leave --weights out")
    with (
        torch.random.fork_rng(devices=[]),
        _quiet(),
    ):  # a network is built to hold them; the seed's numbers go on as without
        net = _imagenet(encoder) if str(weights) == "imagenet" else _from_file(encoder, Path(weights).expanduser())
    encoder.take_net(net)


def _imagenet(encoder: Pyramid) -> nn.Module:
    name = encoder.backbone
    known = timm.get_pretrained_cfg(name)
    if known is None or not known.has_weights:
        raise UserError(f"timm has no pretrained weights of {name}; give a file of weights, or --weights none")
    if not _cached(known) and not _reached(constants.ENDPOINT):
        raise UserError(
            f"cannot download the weights of {name}: {constants.ENDPOINT} cannot be reached; give a file of weights, "
            "or --weights none"
        )
    try:
        return encoder.new_net(pretrained=True)
    except UserError:
        raise
    except Exception as error:  # the hub, the network and the file may raise anything
        raise UserError(
            f"cannot load the pretrained weights of {name} ({_line(error)}); give a file of weights, or --weights none"
        ) from error


def _cached(known: Any) -> bool:
    """Whether the weights lie on this machine."""
    if not known.hf_hub_id:
        return False
    names = (known.hf_hub_filename, constants.SAFETENSORS_SINGLE_FILE, constants.PYTORCH_WEIGHTS_NAME)
    repository = known.hf_hub_id.partition("@")[0]
    found = (huggingface_hub.try_to_load_from_cache(repository, name) for name in names if name)
    return any(isinstance(path, str) for path in found)


def _reached(address: str) -> bool:
    """Whether a server answers at all; timm's own download retries for minutes where none does."""
    if constants.HF_HUB_OFFLINE:
        return False
    try:
        with urllib.request.urlopen(urllib.request.Request(address, method="HEAD"), timeout=SECONDS):
            return True
    except urllib.error.HTTPError as answer:
        return answer.code < 500
    except (OSError, ValueError):
        return False


def _from_file(encoder: Pyramid, path: Path) -> nn.Module:
    tensors, net = _read(path), encoder.new_net()
    lacking: list[str] = []
    net.register_load_state_dict_post_hook(lambda module, keys: lacking.extend(keys.missing_keys))
    module = sys.modules[type(net).__module__]
    try:
        timm.models.load_pretrained(
            net,
            pretrained_cfg={**net.pretrained_cfg, "source": "", "state_dict": tensors},
            num_classes=0,
            in_chans=encoder.in_channels,
            filter_fn=getattr(module, "checkpoint_filter_fn", None),  # older names, sizes of position embeddings
            strict=False,
        )
    except Exception as error:  # what timm makes of foreign names and shapes may raise anything
        raise UserError(f"{path} does not fit the backbone {encoder.backbone}: {_line(error)}") from error
    needed = {name for name, _ in encoder.net.named_parameters()}  # what was pruned may be absent
    if lacking := [name for name in lacking if name in needed]:
        own = ", ".join(sorted(tensors)[:SHOWN])
        what = "no weight" if len(lacking) == len(needed) else f"{len(needed) - len(lacking)} of {len(needed)} weights"
        raise UserError(
            f"{path} has {what} of the backbone {encoder.backbone}: it lacks {', '.join(lacking[:SHOWN])} … and holds "
            f"{own} …; {WANTED}"
        )
    return net


def _read(path: Path) -> dict[str, torch.Tensor]:
    """Weights by timm's names; what training wrappers put around them is taken off."""
    if not path.is_file():
        raise UserError(f"there is no file of weights {path}; --weights is none, imagenet or a file")
    if path.suffix == ".safetensors":
        try:
            content: Any = safetensors.torch.load_file(path)
        except Exception as error:  # a foreign file may raise anything
            raise UserError(f"{path} is no file of safetensors, or is damaged ({_line(error)}); {WANTED}") from error
    else:
        content = read_tensors(path, WANTED)
    for name in WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(name), Mapping):
            content = content[name]
    found = content.items() if isinstance(content, Mapping) else ()
    tensors = {str(key).removeprefix("module."): value for key, value in found if isinstance(value, torch.Tensor)}
    if not tensors:
        raise UserError(f"{path} holds no weights; {WANTED}")
    return tensors


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep timm from listing what it leaves out; what matters of it is in the error."""
    logger = logging.getLogger("timm.models._builder")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
