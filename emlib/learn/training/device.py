"""Device, precision and processes of a training, through Lightning Fabric."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable

import torch

# The package `lightning` would import all of Lightning and torchvision, which a training needs nothing of.
from lightning_fabric import Fabric

from emlib.errors import UserError
from emlib.learn.training.launched import Launch, find_launch
from emlib.learn.training.settings import TrainSettings
from emlib.runs.freed_memory import keep_freed_memory
from emlib.threads import get_threads


def start_fabric(settings: TrainSettings, note: Callable[[str], None] = print) -> Fabric:
    """Choose device and precision, start the other processes, share the cores out.

    Parameters
    ----------
    settings : TrainSettings
        With ``devices`` above 1 the running script is started so many times in all (DDP), unless ``torchrun`` did so;
        this call returns in each.
    note : callable
        Takes lines for the user.

    Returns
    -------
    Fabric

    Raises
    ------
    UserError
        If there are fewer CUDA devices than asked for.
    """
    device, launch = resolve_device(settings.device, note), find_launch() or Launch(settings.devices)
    if device == "cuda" and launch.here > torch.cuda.device_count():
        raise UserError(f"--devices {launch.here}: there are {torch.cuda.device_count()} CUDA devices; ask for fewer")
    if device == "mps" and settings.devices > 1:
        raise UserError(f"--devices {settings.devices}: mps has one device; leave --devices out")
    bf16 = resolve_precision(settings.precision, device, note) == "bf16"
    for name in ("lightning_fabric", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)  # it announces every process
    warnings.filterwarnings("ignore", module="lightning_fabric")
    keep_freed_memory()
    torch.set_num_threads(max(1, get_threads() // (launch.here if device == "cpu" else 1)))
    fabric = Fabric(
        accelerator=device,
        devices=launch.here,
        num_nodes=launch.machines,
        strategy="ddp" if launch.all > 1 else "auto",
        precision="bf16-mixed" if bf16 else "32-true",
    )
    threads = torch.get_num_threads()
    fabric.launch()
    torch.set_num_threads(threads)  # Fabric chooses its own number
    if device == "cuda":
        torch.backends.cudnn.benchmark = True  # patches have one size
    return fabric


def resolve_device(name: str, note: Callable[[str], None] = print) -> str:
    """Return "cpu", "cuda" or "mps" for what was asked; the CPU, with a warning, where it is not there.

    Examples
    --------
    >>> resolve_device("cpu")
    'cpu'
    """
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        return next(device for device in ("cuda", "mps", "cpu") if there[device])
    if not there[name]:
        note(f"warning: --device {name}: this machine or this build of PyTorch has none; the CPU is used")
        return "cpu"
    return name


def resolve_precision(name: str, device: str, note: Callable[[str], None] = print) -> str:
    """Return "32" or "bf16": with auto bf16 where the processor has instructions for it, since it is slow elsewhere."""
    fast = {
        "cuda": lambda: torch.cuda.is_bf16_supported(including_emulation=False),
        "cpu": lambda: torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported(),
        "mps": lambda: False,
    }[device]()
    if name == "auto":
        return "bf16" if fast else "32"
    if name == "bf16" and not fast:
        note(
            f"warning: --precision bf16: this {device} computes it slower than 32; leave the flag out for the fast one"
        )
    return name
