"""An array of a run that is no longer what its sidecar says is told by whoever reads it whole."""

import hashlib
import json

import numpy as np
import pytest
from volume_files import noise

from emlib.errors import UserError
from emlib.evaluation import label_pass
from emlib.evaluation.label_pass import Preparation, count_pairs, open_pair
from emlib.runs.artefacts import Outputs
from emlib.volumes.open import open_volume

WHOLE = (slice(0, 6), slice(0, 20), slice(0, 30))
TOLD = r"{name} is not as it was written: its {what} is not that in .*\.json; make it again, or if you changed it on "


def flip(path):
    """Change one bit of the last voxel."""
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.fixture
def em(tmp_path):
    """An array as a run leaves it."""
    return Outputs(tmp_path).array("em", noise((6, 20, 30)), "EM", voxel_size_nm=(40.0, 8.0, 8.0))


@pytest.fixture(scope="module")
def finished(pipeline, tmp_path_factory):
    """Flags for the volume, and the data of a run on it."""
    folder = tmp_path_factory.mktemp("finished")
    np.save(folder / "em.npy", noise((8, 48, 48)))
    flags = ["--dataset", folder / "em.npy", "--voxel_size", 40, 8, 8, "--cutout", 48, 48, 8, "--quiet"]
    code, _, err = pipeline(*flags, "--until", "segment", "--outdir", folder / "out")
    assert code == 0, err
    return flags, folder / "out" / "data"


@pytest.mark.parametrize(
    ("flag", "name"),
    [("--labels", "neurite_labels_i32_zyx"), ("--dataset", "em_cutout_u8_zyx"), ("--boundaries", "boundaries_f16_zyx")],
)
def test_a_flipped_byte_ends_a_run_in_one_line(flag, name, finished, pipeline, tmp_path):
    flags, data = finished
    for suffix in ("npy", "json"):
        (tmp_path / f"{name}.{suffix}").write_bytes((data / f"{name}.{suffix}").read_bytes())
    array = tmp_path / f"{name}.npy"
    command = [*flags, flag, array, "--until", "segment", "--outdir", tmp_path / "again"]
    assert pipeline(*command)[0] == 0
    flip(array)
    code, _, err = pipeline(*command)
    assert code == 2 and err.count("\n") == 1 and f"{array} is not as it was written: its SHA-256 is not that in" in err
    assert err.endswith(f"if you changed it on purpose, delete {tmp_path / name}.json\n")
    (tmp_path / f"{name}.json").unlink()
    assert pipeline(*command)[0] == 0


def test_a_flipped_byte_ends_an_evaluation_in_one_line(finished, call_script, tmp_path):
    truth = finished[1] / "neurite_labels_i32_zyx.npy"
    pred = Outputs(tmp_path).array("pred", np.load(truth), "labels")
    flip(pred)
    done = call_script("evaluate.py", "segmentation", "--pred", pred, "--truth", truth, "--outdir", tmp_path / "out")
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and f"{pred} is not as it was written" in done.stderr
    assert not list((tmp_path / "out").rglob("*.csv"))


def test_slabs_are_compared_after_the_last_one(em, tmp_path, monkeypatch):
    """Labels larger than a slab are never in memory as a whole."""
    labels = Outputs(tmp_path).array("labels", noise((6, 20, 30)).astype(np.int32), "labels")
    monkeypatch.setattr(label_pass, "SLAB_VOXELS", 2 * 20 * 30)
    assert count_pairs(open_pair(str(labels), str(labels), None, None), Preparation())[0]
    flip(labels)
    pair = open_pair(str(labels), str(labels), None, None)
    with pytest.raises(UserError, match=TOLD.format(name="labels.npy", what="SHA-256")):
        count_pairs(pair, Preparation())


def test_a_part_is_read_without_the_rest_and_the_whole_is_compared_after_it(em):
    flip(em)
    read = open_volume(em).read
    for part in (WHOLE[0], slice(0, 3), slice(3, 5)):
        assert read((part, slice(0, 20), slice(0, 29))).shape[2] == 29
    read((slice(0, 2), *WHOLE[1:]))
    with pytest.raises(UserError, match=TOLD.format(name="em.npy", what="SHA-256")):
        read(WHOLE)


def test_each_byte_is_hashed_once(em, monkeypatch):
    hashed = []

    class Counting:
        def __init__(self):
            self.digest = hashlib.new("sha256")

        def update(self, part):
            hashed.append(part.nbytes)
            self.digest.update(part)

        def hexdigest(self):
            return self.digest.hexdigest()

    monkeypatch.setattr("emlib.volumes.npy.hashlib.sha256", Counting)
    source = open_volume(em)
    assert hashed == []
    for _ in range(3):
        np.testing.assert_array_equal(source.read(WHOLE), np.load(em))
    assert hashed == [6 * 20 * 30]


@pytest.mark.parametrize(
    ("what", "other"), [("shape", noise((6, 30, 20))), ("dtype", noise((6, 20, 30)).view(np.int8))]
)
def test_another_array_in_its_place_is_seen_before_it_is_read(em, what, other):
    np.save(em, other)
    with pytest.raises(UserError, match=TOLD.format(name="em.npy", what=what)):
        open_volume(em)


@pytest.mark.parametrize("content", ['{"sha256": 5}', '{"sha256": "abc"}', '{"voxel_size_nm": [40, 8, 8]}', "[]", ""])
def test_a_sidecar_without_a_checksum_vouches_for_nothing(em, content):
    em.with_suffix(".json").write_text(content)
    flip(em)
    assert open_volume(em).read(WHOLE).shape == (6, 20, 30)


def test_what_a_run_writes_can_be_read_by_its_sidecar(tmp_path):
    for name, array in {"a": np.ones((2, 3, 4), ">u2"), "b": np.asfortranarray(noise((2, 3, 4)))}.items():
        path = Outputs(tmp_path).array(name, array, "x")
        assert json.loads(path.with_suffix(".json").read_text())["sha256"]
        np.testing.assert_array_equal(open_volume(path).read(tuple(slice(0, n) for n in (2, 3, 4))), array)
