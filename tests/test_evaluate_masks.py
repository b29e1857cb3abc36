"""``evaluate.py masks`` as a user calls it: what it writes and prints, and one line for each mistake."""

import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from emlib.errors import UserError
from emlib.evaluation import evaluate
from emlib.evaluation.mask_inputs import to_mask
from emlib.measure.masks.counts import MaskSettings
from emlib.measure.masks.scores import score_masks
from emlib.volumes.tiff import write_tiff

ORGANELLES = ("membranes", "mitochondria", "synapses")
SIZE = 96


def stack(seed, sections=3):
    """Sections with a few rectangles."""
    rng = np.random.default_rng(seed)
    masks = np.zeros((sections, SIZE, SIZE), bool)
    for section in masks:
        for y, x in rng.integers(0, SIZE - 20, (4, 2)):
            section[y : y + rng.integers(4, 20), x : x + rng.integers(4, 20)] = True
    return masks


def write(folder, masks, stems=("00", "03", "08"), high=255, ending="png"):
    folder.mkdir(parents=True, exist_ok=True)
    for stem, mask in zip(stems, masks, strict=True):
        Image.fromarray((mask * high).astype(np.uint8)).save(folder / f"{stem}.{ending}")


@pytest.fixture
def data(tmp_path):
    """Truth and a prediction one pixel off, of three organelles in three sections, and the EM beside the truth."""
    for i, organelle in enumerate(ORGANELLES):
        write(tmp_path / "truth" / organelle, stack(i))
        write(tmp_path / "pred" / organelle, np.roll(stack(i), 1, axis=2))
    write(tmp_path / "truth" / "raw", stack(9), high=90)
    return tmp_path


def masks(data, *more, run, pred="pred", truth="truth"):
    """Run the script within the folder of the data; ``run`` is one of the fixtures that can."""
    arguments = ["--pred", data / pred, "--truth", data / truth, "--outdir", data / "out", *more]
    return run("evaluate.py", "masks", *arguments)


def score(data, *, pred="pred", truth="truth", **options):
    """The same without the start of a process; lines and JSON."""
    lines = evaluate("masks", pred=str(data / pred), truth=str(data / truth), outdir=data / "out", **options)
    return lines, json.loads((data / "out/tables/evaluate_masks.json").read_text())


def refused(data, **options):
    with pytest.raises(UserError) as error:
        score(data, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_the_command_writes_what_it_promises(data, run_script):
    done = masks(data, "--voxel_size", 50, 4, 4, "--patch", 32, "--stride", 16, run=run_script)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 120
    assert lines[0] == "pooled over 3 whole sections (the figures to quote)"
    assert "mean over 75 patches of 32 px, stride 16 (an empty patch counts as 1)" in lines
    first = next(i for i, line in enumerate(lines) if line.startswith("membranes"))
    starts = [line[13:].strip().split("  ")[0] for line in lines[first : first + 4]]
    assert [start.split(" 0.")[0].split(" 1.")[0] for start in starts] == [
        "prediction",
        "all background",
        "all foreground",
        "random",
    ]
    assert [line.rsplit("/", 1)[1] for line in lines if line.startswith("written:")] == [
        "evaluate_masks.json",
        "evaluate_masks.csv",
        "evaluate_masks_sections.csv",
    ]
    found = json.loads((data / "out/tables/evaluate_masks.json").read_text())
    assert set(found) == {"pooled", "patch_mean", "chance", "inputs", "settings", "versions"}
    for protocol in ("pooled", "patch_mean"):
        assert set(found[protocol]) == set(found["chance"][protocol]) == {*ORGANELLES, "average"}
    pooled = found["pooled"]["synapses"]
    assert 0 < pooled["ci95"]["dice"][0] <= pooled["dice"] <= pooled["ci95"]["dice"][1] < 1
    assert found["pooled"]["membranes"]["object_f1"] is None and pooled["object_f1"] > 0
    assert found["chance"]["pooled"]["synapses"]["all_background"]["dice"] == 0
    assert found["inputs"]["organelles"]["synapses"]["sections"] == ["00", "03", "08"]
    assert found["settings"]["seed"] == 0 and "bits" in found["settings"]["meanings"]["vi"]
    direct = score_masks(stack(2), np.roll(stack(2), 1, axis=2), MaskSettings((4.0, 4.0), patch=32, stride=16))
    assert pooled == direct["pooled"] and found["patch_mean"]["synapses"] == direct["patch_mean"]


def test_tables_hold_every_line_and_section(data):
    score(data, voxel_size=(50, 4, 4))
    table = pd.read_csv(data / "out/tables/evaluate_masks.csv")
    assert len(table) == 2 * 4 * 4 and table["dice"].notna().all() and table["dice_low"].notna().sum() == 4
    sections = pd.read_csv(data / "out/tables/evaluate_masks_sections.csv", dtype={"section": str})
    assert sections["section"].tolist() == ["00", "03", "08"] * 3
    own = sections.query("organelle == 'synapses'")
    assert own["true_positives"].tolist() == (stack(2) & np.roll(stack(2), 1, axis=2)).sum(axis=(1, 2)).tolist()


def test_equal_commands_give_equal_bytes_and_the_seed_counts(data):
    tables = []
    for seed in (3, 3, 4):
        score(data, seed=seed)
        tables.append([(path.name, path.read_bytes()) for path in sorted((data / "out/tables").iterdir())])
    assert tables[0] == tables[1] != tables[2]


def test_without_a_voxel_size_the_boundary_is_null_and_said_to_be(data):
    lines, found = score(data)
    assert found["pooled"]["mitochondria"]["boundary_f1"] is None
    assert any("give --voxel_size for boundary F1" in line for line in lines)


def test_organelles_narrow_what_is_scored(data):
    (data / "pred/membranes/00.png").unlink()
    lines, found = score(data, organelles=["synapses", "mitochondria", "synapses"])
    assert list(found["pooled"]) == ["synapses", "mitochondria", "average"]
    lines, found = score(data, organelles=["synapses"])
    assert list(found["pooled"]) == ["synapses", "average"] and not any(line.startswith("average") for line in lines)


def test_extra_sections_of_the_prediction_are_noted(data):
    write(data / "pred/synapses", stack(7, 2), stems=("01", "10"))
    lines, found = score(data)
    assert any("2 sections without truth, left out: 01, 10" in line for line in lines)
    assert found["pooled"]["synapses"]["dice"] == score_masks(stack(2), np.roll(stack(2), 1, axis=2))["pooled"]["dice"]


def test_single_stacks_of_any_format(data, tmp_path):
    """A folder of images, a TIFF with its voxel size and an array score the same as in the layout."""
    expected = score(data, voxel_size=(50, 4, 4))[1]["pooled"]["synapses"]
    pred = np.roll(stack(2), 1, axis=2)
    write_tiff(tmp_path / "found.tif", pred.astype(np.uint8) * 255, (50, 4, 4))
    np.save(tmp_path / "found.npy", pred.astype(np.int64))
    np.save(tmp_path / "share.npy", pred.astype(np.float32) * 0.5)
    np.save(tmp_path / "synapses.npy", stack(2))
    for file in ("found.tif", "found.npy", "share.npy", "pred/synapses"):
        for truth in ("truth/synapses", "synapses.npy"):
            found = score(data, pred=file, truth=truth, voxel_size=(50, 4, 4))[1]
            assert found["pooled"]["synapses"] == expected
            assert found["inputs"]["organelles"]["synapses"]["sections"] == (
                ["00", "03", "08"] if "/" in truth + file else ["0", "1", "2"]
            )
    own = score(data, pred="found.tif", truth="synapses.npy")[1]
    assert own["settings"]["voxel_size_nm"] == [50, 4, 4] and own["pooled"]["synapses"] == expected
    named = score(data, pred="found.tif", truth="truth", organelles=["synapses"], voxel_size=(50, 4, 4))[1]
    assert named["pooled"]["synapses"] == expected
    other = score(data, pred="found.tif", truth="synapses.npy", organelles=["membranes"])[1]
    assert list(other["pooled"]) == ["membranes", "average"] and other["pooled"]["membranes"]["object_f1"] is None


@pytest.mark.parametrize(
    ("values", "dtype", "expected"),
    [
        ([0, 1], "uint8", [0, 1]),
        ([0, 1], "int64", [0, 1]),
        ([0, 1, 127, 128, 255], "uint8", [0, 0, 0, 1, 1]),
        ([0, 127, 128, 255], "int32", [0, 0, 1, 1]),
        ([0, 1, 255, 32767, 32768, 65535], "uint16", [0, 0, 0, 0, 1, 1]),
        ([0, 255, 32767, 32768], "int32", [0, 0, 0, 1]),
        ([0, 0.49, 0.5, 1], "float32", [0, 0, 1, 1]),
        ([0, 1], "bool", [0, 1]),
        ([0, 0], "uint8", [0, 0]),
    ],
)
def test_what_is_foreground(values, dtype, expected):
    mask, note = to_mask(np.array([[values]], dtype), "masks", ["00"])
    assert mask.dtype == bool and mask.ravel().astype(int).tolist() == expected and note is None


def test_a_faint_section_is_no_mask_of_ones():
    """Anti-aliased files hold sections whose largest value is 1; the stack decides, not the section."""
    faint = np.array([[[0, 1, 1]], [[0, 255, 128]]], np.uint8)
    assert to_mask(faint, "masks", ["00", "03"])[0].sum() == 2


def test_an_empty_truth_is_a_warning(data):
    write(data / "truth/synapses", np.zeros((3, SIZE, SIZE)))
    lines, found = score(data)
    assert any(line.startswith("warning: the truth of synapses is empty in all 3 sections") for line in lines)
    assert found["pooled"]["synapses"]["dice"] == 0
    assert found["chance"]["pooled"]["synapses"]["all_background"]["dice"] == 1


def spoil(path, value):
    """Give a pixel of a two-valued mask a third value."""
    image = np.asarray(Image.open(path)).copy()
    image[0, 0] = value
    Image.fromarray(image).save(path)


def test_a_mask_of_any_one_value_is_a_mask(data):
    write(data / "pred/synapses", stack(2), high=7)
    assert score(data)[1]["pooled"]["synapses"]["dice"] == 1


def test_draws_without_truth_say_nothing_about_dice(data):
    """Synapses in one section of three, half of them found: no draw makes the score better than it is."""
    truth = stack(2)
    truth[1:] = 0
    write(data / "truth/synapses", truth)
    pred = truth.copy()
    pred[0][:, np.flatnonzero(truth[0].any(axis=0))[::2]] = 0
    write(data / "pred/synapses", pred)
    found = score(data)[1]["pooled"]["synapses"]
    assert 0 < found["dice"] < 1 and found["ci95"]["dice"] == [found["dice"]] * 2


def test_a_prediction_below_half_range_is_noted(data):
    write(data / "pred/synapses", stack(2), high=100)
    spoil(data / "pred/synapses/00.png", 50)
    lines, found = score(data)
    assert any("synapses holds values up to 100" in line and "background" in line for line in lines)
    assert found["pooled"]["synapses"]["dice"] == 0


def test_small_objects_are_left_out(data):
    every = score(data, voxel_size=(50, 4, 4))[1]["pooled"]["synapses"]
    large = score(data, voxel_size=(50, 4, 4), min_object_nm2=2000.0)[1]["pooled"]["synapses"]
    assert 0 < large["objects_true"] < every["objects_true"] and large["dice"] == every["dice"]


def test_a_missing_organelle_is_one_line(data, call_script):
    for path in (data / "pred/synapses").iterdir():
        path.unlink()
    done = masks(data, run=call_script)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.count("\n") == 1 and "Traceback" not in done.stderr
    assert "has no masks of synapses; it has membranes, mitochondria" in done.stderr and "--organelles" in done.stderr


def test_mistakes_in_what_is_compared(data, tmp_path):
    assert "the truth" in (line := refused(data, organelles=["vesicles"])) and line.endswith(
        "has no masks of vesicles; it has membranes, mitochondria, synapses"
    )
    np.save(tmp_path / "one.npy", stack(0))
    np.save(tmp_path / "four.npy", stack(0, 4))
    np.save(tmp_path / "wide.npy", np.zeros((3, 4, 5), bool))
    (tmp_path / "nothing").mkdir()
    assert "one stack" in refused(data, pred="one.npy") and "--organelles" in refused(data, pred="one.npy")
    assert "--organelles names a, b" in refused(data, pred="one.npy", truth="one.npy", organelles=["a", "b"])
    assert "4 sections, the truth" in refused(data, pred="four.npy", truth="one.npy")
    assert "section 0 of the prediction" in (line := refused(data, pred="wide.npy", truth="one.npy"))
    assert "is 4 × 5" in line and "96 × 96" in line
    assert "no such file or folder" in refused(data, pred="nowhere")
    assert "no such file or folder" in refused(data, truth="nowhere")
    assert "holds no masks" in refused(data, pred="nothing")
    assert "holds no masks" in refused(data, truth="nothing")
    (tmp_path / "truth/synapses").rename(tmp_path / "truth/average")
    assert "average" in refused(data)


def test_a_sample_is_no_mask(data):
    with pytest.raises(UserError, match="no mask"):
        evaluate("masks", pred="sample://phantom", truth=str(data / "truth/synapses"), outdir=data / "out")


def test_mistakes_in_sections(data):
    (data / "pred/synapses/03.png").unlink()
    assert (line := refused(data)).endswith("it has 00, 08") and "lacks the section 03 of" in line
    write(data / "pred/synapses", [np.zeros((50, 60))], stems=["03"])
    line = refused(data)
    assert "03.png is 50 × 60" in line and "00.png is 96 × 96" in line
    write(data / "pred/synapses", np.zeros((3, 50, 60)))
    line = refused(data)
    assert "section 00 of the prediction" in line and "is 50 × 60" in line and "96 × 96" in line
    write(data / "truth/mitochondria", [np.zeros((SIZE, SIZE))], stems=["00"], ending="tif")
    assert "both PNG and TIFF" in refused(data)
    for i, ending in enumerate(("tif", "tiff")):
        write(data / "doubled", stack(i), ending=ending)
    assert "several files for the section 00, 03, 08" in refused(data, pred="doubled", truth="doubled")


def test_mistakes_in_values(data, tmp_path, call_script):
    def line(values):
        np.save(tmp_path / "values.npy", np.broadcast_to(np.array(values), (3, SIZE, SIZE, len(values)))[..., -1])
        return refused(data, pred="values.npy", truth="truth/synapses")

    assert "values.npy, section 00, holds NaN" in line([np.nan])
    assert "values from 255 to 255" in line([255.0])
    assert "values from -1 to -1" in line([-1])
    assert "values from 70000 to 70000" in line([70000])
    write(data / "truth/mitochondria", stack(1), high=7)
    spoil(data / "truth/mitochondria/00.png", 3)
    assert "values up to 7" in (text := refused(data)) and "0 and 255" in text
    (data / "truth/mitochondria/03.png").write_bytes(b"\x89PNG broken")
    done = masks(data, run=call_script)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "03.png" in done.stderr
    assert not (data / "out/tables/evaluate_masks.json").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--seed", -1], "--seed: must be from 0 to 9223372036854775807"),
        (["--min_object_nm2", -5], "--min_object_nm2: must be at least 0, got -5"),
        (["--min_object_nm2", "nan"], "--min_object_nm2: must be at least 0, got nan"),
        (["--min_object_nm2", 100], "--min_object_nm2 needs the size of a pixel; give --voxel_size"),
        (["--patch", 0], "must be above 0"),
        (["--boundary_nm", "nan"], "must be above 0"),
    ],
)
def test_mistakes_in_flags(data, call_script, flags, message):
    done = masks(data, *flags, run=call_script)
    assert done.returncode == 2 and message in done.stderr and done.stderr.count("\n") == 1


def test_real_masks_against_themselves(real_data, tmp_path):
    """Anti-aliased files included, the truth scores 1 and a VI of exactly 0; EPFL sections are not square."""
    for name, organelles in (("drosophila-vnc", ORGANELLES), ("epfl-multiclass", ("membranes", "mitochondria"))):
        folder = str(real_data / name / "test")
        evaluate("masks", pred=folder, truth=folder, outdir=tmp_path, organelles=organelles, voxel_size=(50, 5, 5))
        found = json.loads((tmp_path / "tables/evaluate_masks.json").read_text())
        for protocol in ("pooled", "patch_mean"):
            for scores in found[protocol].values():
                assert scores["dice"] == scores["iou"] == scores["accuracy"] == 1 and scores["vi"] == 0
        assert found["pooled"]["mitochondria"]["ap75"] == found["pooled"]["mitochondria"]["boundary_f1"] == 1
