"""Training with several processes that ``torchrun`` started, from a volume that stays in Zarr."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from test_train_zarr import volume  # noqa: F401
from test_volume_training import QUICK

from emlib.errors import UserError
from emlib.learn.models.checkpoint import load_checkpoint
from emlib.learn.training.launched import Launch, devices_in_all, find_launch, helps

ROOT = Path(__file__).resolve().parent.parent


def test_what_torchrun_says_counts():
    told = {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "6", "LOCAL_WORLD_SIZE": "3", "RANK": "3", "LOCAL_RANK": "0"}
    assert find_launch(told) == Launch(3, 2) and helps(told) and not helps({**told, "RANK": "0"})
    assert [devices_in_all(asked, Launch(3, 2)) for asked in (None, 3, 6)] == [6, 6, 6]
    assert devices_in_all(4, None) == 4 and devices_in_all(None, None) is None
    with pytest.raises(UserError, match="torchrun started 6 processes and --devices says 2; leave --devices out"):
        devices_in_all(2, Launch(3, 2))
    with pytest.raises(UserError, match="3 processes on this machine and 4 in all; give each machine the same"):
        find_launch({**told, "WORLD_SIZE": "4"})


@pytest.mark.slow
def test_torchrun_trains_as_devices_do(volume, tmp_path):  # noqa: F811
    files = ["--volume", volume / "em.zarr", "--labels", volume / "labels.zarr", "--memory_gb", "2e-5"]
    flags = [
        *files,
        *QUICK.split(),
        "--threads",
        "2",
        "--batch_size",
        "2",
        "--patches_per_epoch",
        "8",
        "--schedule",
        "constant",
    ]
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = {}
    for name, before, more in (("torchrun", torchrun, []), ("devices", [], ["--devices", "2"])):
        argv = [
            sys.executable,
            *before,
            "train.py",
            *flags,
            *more,
            "--epochs",
            "1",
            "--out_path",
            tmp_path / f"{name}.pth",
        ]
        done[name] = subprocess.run(list(map(str, argv)), cwd=ROOT, capture_output=True, text=True, timeout=900)
        assert done[name].returncode == 0, done[name].stderr
        assert done[name].stdout.count("epoch 1/1") == 1 and done[name].stdout.count("wrote ") == 1
    for name in ("{}.pth", "{}/last.pth"):
        one, other = (load_checkpoint(tmp_path / name.format(which)) for which in done)
        assert one.metrics == other.metrics
        a, b = one.model.state_dict(), other.model.state_dict()
        assert all(torch.equal(a[key], b[key]) for key in a)
    assert one.settings["devices"] == other.settings["devices"] == 2
    # what torchrun started goes on where Fabric's processes ended
    argv = [sys.executable, *torchrun, "train.py", *flags, "--resume", "--epochs", "2"]
    argv += ["--out_path", tmp_path / "devices.pth"]
    more = subprocess.run(list(map(str, argv)), cwd=ROOT, capture_output=True, text=True, timeout=900, env=os.environ)
    assert more.returncode == 0 and "epoch 2/2" in more.stdout and "epoch 1/2" not in more.stdout, more.stderr
