"""``predict.py --blocks``: the masks and probabilities of the prediction in memory, resumed, with workers, refused."""

import json

import numpy as np
import pytest
from test_predict import NAMES, TILES, call, model, refused, save_model, tissue  # noqa: F401

from emlib.blockwise import prediction_task
from emlib.volumes.ome_zarr import open_array, write_ome_zarr

SHAPE, SIZE = (5, 150, 200), (50, 4, 4)


@pytest.fixture(scope="module")
def volume(tmp_path_factory):
    path = tmp_path_factory.mktemp("volume") / "em.zarr"
    write_ome_zarr(path, tissue(SHAPE), SIZE, 32)
    return path


def arrays(out, names=NAMES):
    """All voxels of all results."""
    return [np.asarray(open_array(path)) for name in names for path in sorted(out.glob(f"**/{name}/em.zarr"))]


def same(one, other, count, names=NAMES):
    pairs = list(zip(arrays(one, names), arrays(other, names), strict=True))
    assert len(pairs) == count and all(a.dtype == b.dtype and (a == b).all() for a, b in pairs)
    assert all(a.any() for a, _ in pairs)


@pytest.mark.parametrize("blocks", [(200, 150, 5), (64, 64, 2), (77, 150, 1)])
def test_blocks_give_what_memory_gives(call, model, volume, tmp_path, blocks):  # noqa: F811
    argv = ("--model_path", model, "--input", volume, *TILES, "--probabilities", "--threads", 1)
    assert call(*argv, "--output", tmp_path / "memory")[0] == 0
    code, _, err = call(*argv, "--output", tmp_path / "blocks", "--blocks", *blocks)
    assert code == 0 and "planned memory" in err and "most for predict" in err, err
    same(tmp_path / "memory", tmp_path / "blocks", 4)
    told = [
        json.loads((tmp_path / f"{which}/predict_done.jsonl").read_text().splitlines()[-1])
        for which in ("memory", "blocks")
    ]
    assert told[0]["foreground"] == told[1]["foreground"] and told[0]["files"] == told[1]["files"]
    assert not list((tmp_path / "blocks/runs/blocks").glob("em*"))


@pytest.mark.parametrize(
    "more", [("--orthogonal",), ("--orthogonal", "--resample_nm", 6), ("--resample_nm", 7.3, "--grey_range", 10, 200)]
)
def test_three_planes_resampling_and_ranges_of_grey(call, model, tmp_path, more):  # noqa: F811
    write_ome_zarr(tmp_path / "em.zarr", tissue((40, 70, 60)), (8, 8, 8), 16)
    argv = ("--model_path", model, "--input", tmp_path / "em.zarr", *TILES, "--probabilities", "--threads", 1, *more)
    assert call(*argv, "--output", tmp_path / "memory")[0] == 0
    code, _, err = call(*argv, "--output", tmp_path / "blocks", "--blocks", 37, 41, 23)
    assert code == 0, err
    same(tmp_path / "memory", tmp_path / "blocks", 4)


def test_classes_that_exclude_each_other_and_one_of_them(call, volume, tmp_path):  # noqa: F811
    softmax = save_model(tmp_path / "softmax.pth", "softmax", ("background", *NAMES))
    argv = ("--model_path", softmax, "--input", volume, *TILES, "--threads", 1, "--organelles", "mitochondria")
    assert call(*argv, "--output", tmp_path / "memory")[0] == 0
    assert call(*argv, "--output", tmp_path / "blocks", "--blocks", 100, 80, 2)[0] == 0
    same(tmp_path / "memory", tmp_path / "blocks", 1, ("masks",))


def test_what_was_done_is_not_done_again(call, model, volume, tmp_path, monkeypatch):  # noqa: F811
    argv = ("--model_path", model, "--input", volume, *TILES, "--threads", 1, "--blocks", 200, 150, 1)
    assert call(*argv, "--output", tmp_path / "whole")[0] == 0
    predicted, real = [], prediction_task._predicted

    def watched(predictor, source, work, box):
        predicted.append(box[0].start)
        if len(predicted) == 3:
            raise KeyboardInterrupt
        return real(predictor, source, work, box)

    monkeypatch.setattr(prediction_task, "_predicted", watched)
    assert call(*argv, "--output", tmp_path / "parts")[0] == 130
    assert call(*argv, "--output", tmp_path / "parts", "--resume")[0] == 0
    assert predicted == [0, 1, 2, 2, 3, 4]
    same(tmp_path / "whole", tmp_path / "parts", 2)


@pytest.mark.slow
def test_workers_give_the_same(call, model, volume, tmp_path):  # noqa: F811
    argv = ("--model_path", model, "--input", volume, *TILES, "--threads", 1, "--probabilities")
    assert call(*argv, "--output", tmp_path / "memory")[0] == 0
    code, _, err = call(*argv, "--output", tmp_path / "two", "--blocks", 90, 150, 3, "--workers", 2)
    assert code == 0 and "with 2 at work" in err, err
    same(tmp_path / "memory", tmp_path / "two", 4)


def test_objects_are_found_in_the_whole(call, model, volume, tmp_path):  # noqa: F811
    argv = ("--model_path", model, "--input", volume, *TILES, "--threads", 1, "--instances", "components", "--measure")
    for name, more in (("memory", ()), ("blocks", ("--blocks", 64, 150, 2))):
        assert call(*argv, "--output", tmp_path / name, *more)[0] == 0
    tables = [(tmp_path / name / "measurements/em.csv").read_bytes() for name in ("memory", "blocks")]
    assert tables[0] == tables[1]


def test_what_does_not_go_in_blocks_is_one_line(call, model, volume, tmp_path):  # noqa: F811
    known = ("--model_path", model, "--input", volume, "--output", tmp_path / "out", *TILES)
    for more, said in (
        (("--workers", 2), "--workers goes with --blocks X Y Z"),
        (("--scheduler", "tcp://127.0.0.1:1"), "--scheduler goes with --blocks X Y Z"),
        (
            ("--blocks", 9, 9, 9, "--workers", 2, "--scheduler", "tcp://127.0.0.1:1"),
            "--scheduler has workers of its own",
        ),
    ):
        assert said in refused(call, *known, *more)
    np.save(tmp_path / "one.npy", tissue((40, 40)))
    line = refused(call, *known[:2], "--input", tmp_path / "one.npy", *known[4:], "--blocks", 9, 9, 9)
    assert "--blocks is for volumes, and" in line and "is one image" in line


def test_a_block_that_does_not_fit_is_refused_with_what_would(call, model, tmp_path):  # noqa: F811
    path = tmp_path / "em.npy"
    np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=(64, 2048, 2048)).flush()
    argv = ("--model_path", model, "--input", path, "--output", tmp_path / "out", *TILES, "--memory_gb", 1)
    line = refused(call, *argv, "--blocks", 2048, 2048, 64)
    assert "--memory_gb 1 is too little for blocks of 2048 2048 64 (x y z), which take " in line
    assert "; give --memory_gb " in line and line.endswith("or smaller --blocks or --tile")
