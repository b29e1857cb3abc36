"""run_pipeline.py --blocks with a network, as a user types it."""

import json
from pathlib import Path

import numpy as np
import pytest
from test_learned_boundaries import save

from emlib.volumes.open import open_volume
from emlib.volumes.phantom import PhantomSettings, make_phantom

PHANTOM = ("--dataset", "sample://phantom", "--cutout", 80, 72, 18, "--quiet")
NAMES = ("membranes", "mitochondria", "synapses")


def files(folder: Path) -> dict[str, bytes]:
    found = sorted([*folder.glob("data/*.npy"), *folder.glob("tables/*")])
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


@pytest.mark.parametrize("until", ["boundaries", pytest.param("graph", marks=pytest.mark.slow)])
def test_a_run_in_blocks_leaves_the_bytes_of_a_run_in_memory(pipeline, tmp_path, until):
    """Boundaries, mitochondria and synapses of a network on aligned sections, and all that comes from them."""
    model = save(tmp_path / "m.pth", NAMES, voxel=(50, 8, 8))
    call = (*PHANTOM, "--boundaries", "experts", "--model_path", model, "--until", until)
    assert pipeline(*call, "--outdir", tmp_path / "memory")[0] == 0
    code, _, err = pipeline(*call, "--blocks", 37, 30, 7, "--outdir", tmp_path / "blocks")
    assert code == 0, err
    memory, blocks = files(tmp_path / "memory"), files(tmp_path / "blocks")
    assert memory.keys() == blocks.keys()
    assert {f"data/{name}_f16_zyx.npy" for name in ("synapse_probability", "mitochondria_probability")} <= memory.keys()
    assert [name for name in memory if memory[name] != blocks[name]] == []
    about = json.loads((tmp_path / "blocks" / "data" / "boundaries_f16_zyx.json").read_text())["settings"]
    assert about["from"] == "experts" and about["channel"] == "membranes" and about["model"] == "m.pth"


@pytest.mark.slow
def test_two_workers_average_three_axes(pipeline, tmp_path):
    """What is too large for memory stays in the store: the same map, and the same table of synapses."""
    np.save(tmp_path / "em.npy", make_phantom(PhantomSettings(shape=(24, 60, 70), seed=5)).em)
    model = save(tmp_path / "m.pth", NAMES, sections=3, voxel=(12, 12, 12))
    call = ("--dataset", tmp_path / "em.npy", "--voxel_size", 10, 10, 10, "--quiet", "--model_path", model)
    call += ("--boundaries", "experts", "--synapses", "experts", "--set", "synapses.experts.min_probability=0.52")
    whole = ("--cutout", 70, 60, 24, "--offset", 0, 0, 0)
    assert pipeline(*call, *whole, "--outdir", tmp_path / "memory")[0] == 0
    how = ("--blocks", 40, 40, 16, "--npy", "never", "--workers", 2)
    code, _, err = pipeline(*call, *how, "--outdir", tmp_path / "blocks")
    assert code == 0, err
    found = open_volume(tmp_path / "blocks/data/volume.zarr/boundaries")
    everything = tuple(slice(0, n) for n in found.shape)
    expected = np.load(tmp_path / "memory/data/boundaries_f16_zyx.npy")
    np.testing.assert_array_equal(found.read(everything), expected.astype(np.float32))
    memory, blocks = files(tmp_path / "memory"), files(tmp_path / "blocks")
    for table in ("synapse_candidates.csv", "graph_edges.csv"):
        assert memory[f"tables/{table}"] == blocks[f"tables/{table}"]
