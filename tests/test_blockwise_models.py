"""run_pipeline.py --blocks with a forest of pixels, with a model of contacts, and with the slice-wise baseline."""

import numpy as np
import pytest

from emlib.refine.edge_contacts import CONTACT_NAMES
from emlib.refine.edge_model import ContactModel, write_edge_model
from emlib.refine.features import FeatureSettings, feature_names
from emlib.refine.forest import ForestSettings, grow_forest
from emlib.refine.model_file import write_model
from emlib.stages.learned_edges import EdgeTuning
from emlib.volumes.phantom import PhantomSettings, make_phantom

SIZE = (10.0, 10.0, 10.0)


def grown(names, lead, settings):
    """A forest that looks at all features and mostly at one."""
    rng = np.random.default_rng(0)
    features = rng.random((2000, len(names))).astype(np.float32)
    answer = features.mean(axis=1) - 0.5 + 0.5 * (features[:, names.index(lead)] - 0.5) < 0
    return grow_forest(features, answer, names, settings)[0]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A volume and two models in files."""
    folder = tmp_path_factory.mktemp("models")
    np.save(folder / "em.npy", make_phantom(PhantomSettings(shape=(18, 50, 60), seed=5)).em)
    features = FeatureSettings((10.0,), (), (10.0,), (10.0,))
    pixels = grown(feature_names(SIZE, features), "gaussian 10 nm", ForestSettings(trees=6))
    write_model(folder / "pixels.npz", {"pixels": pixels}, {"features": features})
    contacts = grown(CONTACT_NAMES, "boundary median", ForestSettings("hgb", trees=10, min_leaf=5))
    tunings = {"multicut": EdgeTuning(0.0, 0.5), "gasp": EdgeTuning()}
    write_edge_model(folder / "contacts.npz", ContactModel(contacts, 1.0, 0.0, tunings, SIZE, boundaries="forest"))
    return folder


def files(folder):
    return {path.name: path.read_bytes() for path in [*folder.glob("data/*.npy"), *folder.glob("tables/*.csv")]}


@pytest.mark.slow
@pytest.mark.parametrize(
    "flags",
    [
        ("--boundaries", "forest", "--model_path", "pixels.npz", "--edge_model", "contacts.npz"),
        ("--segmenter", "watershed"),
    ],
    ids=["models", "baseline"],
)
def test_models_and_baseline_in_blocks_leave_the_bytes_of_a_run_in_memory(pipeline, tmp_path, models, flags):
    flags = [str(models / flag) if flag.endswith(".npz") else flag for flag in flags]
    call = ("--dataset", models / "em.npy", "--voxel_size", *SIZE, *flags, "--quiet")
    whole = ("--cutout", 60, 50, 18, "--offset", 0, 0, 0)
    code, _, err = pipeline(*call, *whole, "--outdir", tmp_path / "memory")
    assert code == 0, err
    code, _, err = pipeline(*call, "--blocks", 33, 27, 16, "--outdir", tmp_path / "blocks")
    assert code == 0, err
    memory, blocks = (files(tmp_path / name) for name in ("memory", "blocks"))
    assert memory.keys() == blocks.keys() and "neurite_labels_i32_zyx.npy" in memory
    assert [name for name in memory if memory[name] != blocks[name]] == []
    assert np.load(tmp_path / "blocks/data/neurite_labels_i32_zyx.npy").max() > 1
