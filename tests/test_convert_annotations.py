"""convert_annotations.py as a user calls it: what it writes, what it refuses, and that it loses nothing."""

import csv
import hashlib
import json
import tracemalloc

import numpy as np
import pytest
from annotation_files import box, grey, labelme_folder, labelme_shape, png_text, save, write_labelme
from PIL import Image

from emlib.annotations.classes import read_classes
from emlib.annotations.convert import FORMATS, ConvertSettings, convert
from emlib.annotations.splits import share_out


@pytest.fixture
def call(call_script, tmp_path):
    """Return a function that runs the script in this process and gives (exit code, stdout, stderr).

    ``--input`` is ``in`` and ``--output`` is ``out`` below tmp_path, unless given.
    """

    def run(kind, *argv):
        argv = ["--from", kind, *map(str, argv)]
        for flag, name in (("--input", "in"), ("--output", "out")):
            argv += [] if flag in argv else [flag, str(tmp_path / name)]
        done = call_script("convert_annotations.py", *argv)
        return done.returncode, done.stdout, done.stderr

    return run


def assert_refused(result, *said):
    """Check for exit code 2 and one line on stderr that holds these words; return it."""
    code, _, err = result
    assert code == 2 and err.count("\n") == 1 and "Traceback" not in err, err
    for words in said:
        assert words in err, err
    return err


def checksums(folder):
    """The checksum of every file of a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_the_documented_command(run_script, tmp_path):
    labelme_folder(tmp_path / "annotations", 10)
    command = "--from labelme --input annotations/ --output data/mycells --split 0.7 0.15 0.15".split()
    done = run_script("convert_annotations.py", *command, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    out = tmp_path / "data" / "mycells"
    counts = {split: len(list((out / split / "masks").glob("*.png"))) for split in ("train", "val", "test")}
    assert counts == {"train": 7, "val": 2, "test": 1}
    assert "10 images (train 7, val 2, test 1)" in done.stdout and "report.md" in done.stdout
    for mask in out.glob("*/masks/*.png"):
        ids = np.asarray(Image.open(mask))
        assert ids.dtype == np.uint8 and ids.shape == Image.open(mask.parent.parent / "raw" / mask.name).size[::-1]
        assert (ids[20:25, 10:20] == 2).all() and (ids[25:35, 15:40] == 1).all()  # membrane 1 drawn later, mito 2
    assert read_classes(out / "classes.yaml").names == ("background", "membrane", "mito")


@pytest.mark.parametrize("to", ["index-masks", "organelles", "instances", "coco", "labelme"])
def test_equal_commands_give_equal_bytes(call, tmp_path, to):
    labelme_folder(tmp_path / "in", 5)
    found = []
    for _ in range(2):
        code, _, err = call("labelme", "--to", to, "--overlays", "--overwrite")
        assert code == 0, err
        found.append(checksums(tmp_path / "out"))
    assert found[0] == found[1] and any(name.startswith("overlays/") for name in found[0])


def test_organelle_folders_keep_both_where_shapes_overlap(call, tmp_path):
    labelme_folder(tmp_path / "in", 3)
    assert call("labelme", "--to", "organelles")[0] == 0
    for path in (tmp_path / "out").glob("*/raw/*.png"):
        mito, membrane = (np.asarray(Image.open(path.parent.parent / n / path.name)) for n in ("mito", "membrane"))
        assert set(np.unique(mito)) == {0, 255} and (mito == 255).sum() == 100 and (membrane == 255).sum() == 250


def test_what_is_written_can_be_learnt_from(call, tmp_path):
    from emlib.learn.datasets.domain import check_splits, find_split

    labelme_folder(tmp_path / "in", 6)
    assert call("labelme", "--to", "organelles", "--output", tmp_path / "data" / "cells")[0] == 0
    splits = [find_split(tmp_path / "data", "cells", split) for split in ("train", "val", "test")]
    assert check_splits(splits) == [] and splits[0].organelles == ("membrane", "mito")


def test_priority_of_the_label_map_wins_over_the_order(call, tmp_path):
    labelme_folder(tmp_path / "in", 1)
    text = "labels: {mito: organelle, membrane: wall}\npriority: [organelle]\n"
    (tmp_path / "map.yaml").write_text(text)
    code, _, err = call("labelme", "--labels", tmp_path / "map.yaml")
    assert code == 0, err
    ids = np.asarray(Image.open(tmp_path / "out/train/masks/sec_000.png"))
    assert read_classes(tmp_path / "out" / "classes.yaml").names == ("background", "organelle", "wall")
    assert (ids == 1).sum() == 100 and (ids == 2).sum() == 250 - 25


def test_a_label_map_merges_drops_and_erases(call, tmp_path):
    save(tmp_path / "in" / "a.png", grey())
    shapes = [("m1", 0), ("m2", 10), ("hole", 12), ("junk", 20)]
    write_labelme(tmp_path / "in" / "a.json", [labelme_shape(n, box(x, 0, x + 5, 5)) for n, x in shapes], "a.png")
    (tmp_path / "map.yaml").write_text("m1: mito\nm2: mito\nhole: background\njunk: null\n")
    assert call("labelme", "--labels", tmp_path / "map.yaml")[0] == 0
    ids = np.asarray(Image.open(tmp_path / "out/train/masks/a.png"))
    assert (ids == 1).sum() == 25 + 10 and ids.max() == 1
    assert "dropped label,train,a,junk,1," in (tmp_path / "out" / "report.csv").read_text()


def test_drawn_background_erases_and_survives_labelme(call, tmp_path):
    save(tmp_path / "in" / "a.png", grey())
    shapes = [labelme_shape("mito", box(0, 0, 10, 10)), labelme_shape("background", box(2, 2, 5, 5))]
    write_labelme(tmp_path / "in" / "a.json", shapes, "a.png")
    assert call("labelme", "--to", "labelme", "--output", tmp_path / "again")[0] == 0
    for source in ("in", "again"):
        assert call("labelme", "--input", tmp_path / source, "--overwrite")[0] == 0
        ids = np.asarray(Image.open(tmp_path / "out/train/masks/a.png"))
        assert (ids == 1).sum() == 91 and not ids[2:5, 2:5].any()
        assert "overlap" not in (tmp_path / "out" / "report.csv").read_text()


def test_given_classes_keep_their_ids_and_colours(call, tmp_path):
    labelme_folder(tmp_path / "in", 3)
    text = "classes:\n- {id: 0, name: background}\n- {id: 4, name: mito, colour: '#010203'}\n"
    text += "- {id: 9, name: membrane}\n"
    (tmp_path / "classes.yaml").write_text(text)
    assert call("labelme", "--classes", tmp_path / "classes.yaml")[0] == 0
    assert read_classes(tmp_path / "out" / "classes.yaml") == read_classes(tmp_path / "classes.yaml")
    masks = [np.asarray(Image.open(path)) for path in (tmp_path / "out").glob("*/masks/*.png")]
    assert {int(value) for mask in masks for value in np.unique(mask)} == {0, 4, 9}
    (tmp_path / "classes.yaml").write_text("classes: [{id: 0, name: background}, {id: 1, name: mitos}]")
    assert_refused(
        call("labelme", "--classes", tmp_path / "classes.yaml", "--overwrite"), "no class is called 'membrane'"
    )


def test_16_bit_images_stay_16_bit(call, tmp_path):
    labelme_folder(tmp_path / "in", 1, dtype=np.uint16)
    assert call("labelme")[0] == 0
    written = np.asarray(Image.open(tmp_path / "out/train/raw/sec_000.png"))
    assert written.dtype == np.uint16 and (written == grey(0, dtype=np.uint16)).all()


# Splits


def test_splits_depend_on_the_seed_alone():
    names = [f"{i}" for i in range(40)]
    assert share_out(names, seed=3) == share_out(names, seed=3) == share_out(names[::-1], seed=3)
    assert share_out(names, seed=3) != share_out(names, seed=4)


@pytest.mark.parametrize("count", range(1, 30))
@pytest.mark.parametrize("fractions", [(0.7, 0.15, 0.15), (0.98, 0.01, 0.01), (1, 0, 0), (0, 0.5, 0.5), (0.9, 0, 0.1)])
def test_every_split_with_a_share_has_an_image(count, fractions):
    drawn = list(share_out([str(i) for i in range(count)], fractions).values())
    counts = [drawn.count(split) for split in ("train", "val", "test")]
    assert sum(counts) == count
    wanted = sum(share > 0 for share in fractions)
    assert sum(number > 0 for number in counts) == min(count, wanted)
    assert all(number == 0 for number, share in zip(counts, fractions, strict=True) if share == 0)
    if count >= 10 * wanted:
        assert all(abs(n - s * count) <= 1.01 for n, s in zip(counts, fractions, strict=True))


def test_folders_that_name_splits_are_kept(call, tmp_path):
    for split, count in (("train", 2), ("valid", 1)):
        labelme_folder(tmp_path / "in" / split, count)
    assert call("labelme")[0] == 0
    written = sorted(path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").glob("*/raw/*"))
    assert written == ["train/raw/sec_000.png", "train/raw/sec_001.png", "val/raw/sec_000.png"]
    assert_refused(call("labelme", "--split", 1, 0, 0, "--overwrite"), "is divided already into train, val")


@pytest.mark.parametrize(
    "name, text",
    [("s.csv", "name,split\nsec_000,test\nsec_001.png,train\n"), ("s.yaml", "test: [sec_000]\ntrain: [sec_001]")],
)
def test_a_split_file(call, tmp_path, name, text):
    labelme_folder(tmp_path / "in", 2)
    (tmp_path / name).write_text(text)
    assert call("labelme", "--split_file", tmp_path / name)[0] == 0
    assert (tmp_path / "out/test/raw/sec_000.png").exists() and (tmp_path / "out/train/raw/sec_001.png").exists()


@pytest.mark.parametrize(
    "text, said",
    [
        ("test: [sec_000]", "does not say where sec_001 goes; did you mean sec_000?"),
        ("tst: [sec_000]", "no split is called 'tst'; did you mean test"),
        ("train: [0]", "put names of digits in quotes"),
        ("train: [a]\ntest: [a]", "puts a into train and test"),
        ("- a", "must hold lists"),
    ],
)
def test_bad_split_files(call, tmp_path, text, said):
    labelme_folder(tmp_path / "in", 2)
    (tmp_path / "s.yaml").write_text(text)
    assert_refused(call("labelme", "--split_file", tmp_path / "s.yaml"), said)


def test_a_split_file_brings_no_two_images_of_one_name_together(call, tmp_path):
    for split in ("train", "val"):
        labelme_folder(tmp_path / "in" / split, 1)
    (tmp_path / "s.yaml").write_text("train: [train/sec_000, val/sec_000]")
    assert_refused(call("labelme", "--split_file", tmp_path / "s.yaml"), "would both be train/sec_000.png")
    (tmp_path / "s.yaml").write_text("train: [val/sec_000]\ntest: [train/sec_000]")
    assert call("labelme", "--split_file", tmp_path / "s.yaml")[0] == 0
    assert sorted(path.parts[-3] for path in (tmp_path / "out").glob("*/raw/*")) == ["test", "train"]


def test_images_of_one_name_in_several_folders_get_longer_names(call, tmp_path):
    for cell in ("cell1", "cell2"):
        labelme_folder(tmp_path / "in" / cell, 1)
    assert call("labelme", "--split", 1, 0, 0)[0] == 0
    assert sorted(p.stem for p in (tmp_path / "out/train/masks").iterdir()) == ["cell1_sec_000", "cell2_sec_000"]


# The report


def test_the_report_counts_and_tells_what_was_odd(call, tmp_path):
    labelme_folder(tmp_path / "in", 1)
    save(tmp_path / "in" / "lonely.png", grey())
    save(tmp_path / "in" / "none.png", grey())
    write_labelme(tmp_path / "in" / "none.json", [], "none.png")
    odd = [
        labelme_shape("mito", [[0, 0], [20, 20], [20, 0], [0, 20]]),
        labelme_shape("mito", box(70, 50, 90, 70)),
        labelme_shape("mito", box(100, 0, 120, 9)),
        labelme_shape("mito", [[1, 1], [2, 2]]),
        labelme_shape("mito", box(30.6, 30.6, 30.9, 30.9)),
        labelme_shape("wall", [[30, 10], [50, 10]], "line"),
    ]
    save(tmp_path / "in" / "odd.png", grey())
    write_labelme(tmp_path / "in" / "odd.json", odd, "odd.png")
    write_labelme(tmp_path / "in" / "lost.json", odd, "lost.png")
    code, out, err = call("labelme", "--skip_missing", "--split", 1, 0, 0)
    assert code == 0, err
    rows = list(csv.DictReader((tmp_path / "out" / "report.csv").open(encoding="utf-8")))
    found = {(row["what"], row["image"]): int(row["number"]) for row in rows if row["image"]}
    for what in ("mended", "clipped", "outside", "degenerate", "no pixel", "drawn line"):
        assert found[what, "odd"] == 1, what
    assert found["empty", "none"] == found["unannotated image", "lonely.png"] == found["missing image", "lost"] == 1
    assert found["overlap", "sec_000"] == 25
    counts = {(row["what"], row["label"]): int(row["number"]) for row in rows if not row["image"]}
    assert counts["shapes", "mito"] == 1 + 2 and counts["images", "mito"] == 2 and counts["images", ""] == 3
    ids = [np.asarray(Image.open(path)) for path in (tmp_path / "out/train/masks").glob("*.png")]
    classes = read_classes(tmp_path / "out" / "classes.yaml")
    for name in ("mito", "wall", "membrane"):
        assert counts["pixels", name] == sum(int((one == classes.id_of(name)).sum()) for one in ids)
    page = (tmp_path / "out" / "report.md").read_text()
    assert "GEOS MakeValid" in page and "| mito | 3 shapes in 2 images" in page
    assert "warning: mended: 1" in out and "warning: missing image: 1" in out


def test_overlays_show_each_class_in_its_colour(call, tmp_path):
    labelme_folder(tmp_path / "in", 1)
    assert call("labelme", "--overlays")[0] == 0
    picture = np.asarray(Image.open(tmp_path / "out/overlays/train/sec_000.png"))
    factor = picture.shape[1] // 80
    assert picture.shape[1] == 80 * factor and factor == 11
    colours = {one.name: one.colour for one in read_classes(tmp_path / "out" / "classes.yaml").classes}
    assert tuple(picture[20 * factor, 12 * factor]) == colours["mito"]  # its upper edge
    assert tuple(picture[35 * factor - 1, 30 * factor]) == colours["membrane"]  # the lower one
    assert len(set(picture[22 * factor, 12 * factor])) == 1  # grey inside


# What is refused


def test_unknown_names_suggest_the_nearest(call, tmp_path):
    labelme_folder(tmp_path / "in", 1)
    assert_refused(call("labelmee"), "--from labelmee", "did you mean labelme")
    assert_refused(call("yolo"), "did you mean yolo-seg")
    assert_refused(call("labelme", "--to", "index"), "did you mean index-masks")
    assert_refused(call("labelme", "--overlap", "latest"), "did you mean later")


@pytest.mark.parametrize(
    "kind, name",
    [("labelme", "a.json"), ("coco", "a.json"), ("via", "a.json"), ("geojson", "a.geojson"), ("cvat", "a.xml")],
)
@pytest.mark.parametrize(
    "text", ['{"shapes": [', "", "\x00\x01", "[1, 2]", "{}", '{"a": {"b": 1}}', "<a><b></a>", "<a/>"]
)
def test_corrupt_files(call, tmp_path, kind, name, text):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / name).write_text(text)
    assert_refused(call(kind), str(tmp_path / "in"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind, name", [("imagej-roi", "a.roi"), ("imagej-roi", "a.zip"), ("napari-shapes", "a.csv"),
                                        ("index-mask", "masks/a.png"), ("instances", "masks/a.tif")])  # fmt: skip
def test_corrupt_binary_files(call, tmp_path, kind, name):
    path = tmp_path / "in" / name
    path.parent.mkdir(parents=True)
    path.write_bytes(b"Iout\x00\x00broken")
    assert_refused(call(kind, "--label", "m"), str(path))


def test_the_format_that_a_file_seems_to_have_is_told(call, tmp_path):
    labelme_folder(tmp_path / "in", 1)
    assert_refused(call("coco"), "it looks like --from labelme")


@pytest.mark.parametrize(
    "damage", [{"points": [[1, "a"], [2, 2], [3, 3]]}, {"points": None}, {"shape_type": "blob"}, {"label": ...}]
)
def test_damaged_shapes(call, tmp_path, damage):
    labelme_folder(tmp_path / "in", 1)
    shape = {**labelme_shape("m", box(0, 0, 5, 5)), **damage}
    shape = {key: value for key, value in shape.items() if value is not ...}
    write_labelme(tmp_path / "in" / "sec_000.json", [shape], "sec_000.png")
    assert_refused(call("labelme"), "sec_000.json")


def test_an_image_is_missing(call, tmp_path):
    labelme_folder(tmp_path / "in", 3)
    for name in ("sec_001.png", "sec_002.png"):
        (tmp_path / "in" / name).unlink()
    assert_refused(call("labelme"), "no image sec_001.png", "and 1 more are missing", "--images", "--skip_missing")
    (tmp_path / "in" / "sec_000.png").unlink()
    assert_refused(call("labelme", "--skip_missing"), "no annotation has an image")


def test_the_label_map_lacks_a_label(call, tmp_path):
    labelme_folder(tmp_path / "in", 1)
    (tmp_path / "map.yaml").write_text("mitos: m\nmembrane: w\n")
    assert_refused(
        call("labelme", "--labels", tmp_path / "map.yaml"), "does not map the label 'mito'", "did you mean mitos"
    )


@pytest.mark.parametrize(
    "text, said",
    [
        ("- a", "must hold lines 'label: class'"),
        ("labels: {mito: m}\npriorities: []", "unknown key 'priorities'; did you mean priority"),
        ("labels: {mito: m}\npriority: [k]", "priority names 'k'"),
        ("mito: [a]", "must hold lines"),
        ("a: [", "cannot read"),
    ],
)
def test_bad_label_maps(call, tmp_path, text, said):
    labelme_folder(tmp_path / "in", 1)
    (tmp_path / "map.yaml").write_text(text)
    assert_refused(call("labelme", "--labels", tmp_path / "map.yaml"), said)


def test_an_empty_or_absent_input(call, tmp_path):
    assert_refused(call("labelme"), "no such file or folder")
    (tmp_path / "in").mkdir()
    for kind in FORMATS:
        assert_refused(call(kind), "holds no")


def test_an_annotation_of_another_size(call, tmp_path):
    labelme_folder(tmp_path / "in", 2)
    save(tmp_path / "in" / "sec_001.png", grey(0, (30, 40)))
    assert_refused(call("labelme"), "is of an image of 60 × 80", "sec_001.png is 30 × 40")


@pytest.mark.parametrize("split", [(0.7, 0.2, 0.2), (0.5, 0.6, -0.1), (0, 0, 0)])
def test_shares_that_do_not_add_up(call, tmp_path, split):
    labelme_folder(tmp_path / "in", 1)
    assert_refused(call("labelme", "--split", *split), "add up to 1")


def test_an_image_annotated_twice_and_two_images_of_one_name(call, tmp_path):
    labelme_folder(tmp_path / "in", 1)
    (tmp_path / "in" / "annotations").mkdir()
    write_labelme(tmp_path / "in" / "annotations" / "sec_000.json", [], "../sec_000.png")
    assert_refused(call("labelme"), "the image sec_000 is annotated in")
    save(tmp_path / "pictures" / "a" / "x.png", grey())
    save(tmp_path / "pictures" / "b" / "x.png", grey())
    write_labelme(tmp_path / "other" / "x.json", [], "x.png")
    assert_refused(call("labelme", "--input", tmp_path / "other", "--images", tmp_path / "pictures"), "may be about")


def test_nothing_is_lost_in_the_output_folder(call, tmp_path):
    labelme_folder(tmp_path / "in", 2)
    assert call("labelme")[0] == 0
    before = checksums(tmp_path / "out")
    assert_refused(call("labelme"), "holds a data set already", "--overwrite")
    assert checksums(tmp_path / "out") == before
    (tmp_path / "out" / "notes.txt").write_text("mine")
    assert_refused(call("labelme", "--overwrite"), "notes.txt, which no conversion wrote")
    assert (tmp_path / "out" / "notes.txt").read_text() == "mine"
    (tmp_path / "out" / "notes.txt").unlink()
    assert call("labelme", "--overwrite", "--to", "organelles")[0] == 0
    assert not list((tmp_path / "out").glob("*/masks"))
    assert_refused(call("labelme", "--output", tmp_path / "in", "--overwrite"), "holds what is read")
    assert_refused(call("labelme", "--output", tmp_path, "--overwrite"), "holds what is read")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]


def test_a_failure_midway_leaves_nothing(call, tmp_path):
    labelme_folder(tmp_path / "in", 2)
    path = tmp_path / "in" / "sec_001.png"
    path.write_bytes(path.read_bytes()[:200])  # the header can be read, the pixels cannot
    assert_refused(call("labelme"), "sec_001.png")
    assert sorted(one.name for one in tmp_path.iterdir()) == ["in"]


def test_organelles_whose_names_make_no_folder(call, tmp_path):
    save(tmp_path / "in" / "a.png", grey())
    write_labelme(tmp_path / "in" / "a.json", [labelme_shape("../x", box(0, 0, 5, 5))], "a.png")
    assert_refused(call("labelme", "--to", "organelles"), "no organelle can be called '../x'")
    assert not (tmp_path / "x").exists()
    write_labelme(tmp_path / "in" / "a.json", [labelme_shape("masks", box(0, 0, 5, 5))], "a.png")
    assert_refused(
        call("labelme", "--to", "organelles"), "no organelle can be called 'masks'"
    )  # it would hold class ids


def test_odd_values_are_refused_in_one_line(call, tmp_path):
    labelme_folder(tmp_path / "in", 2)
    assert_refused(call("labelme", "--split", "nan", 0.5, 0.5), "--split nan 0.5 0.5 adds up to nan")
    (tmp_path / "via").mkdir()
    (tmp_path / "via" / "v.json").write_text('{"x": {"filename": 3, "regions": []}}')
    assert_refused(call("via", "--input", tmp_path / "via"), "no image 3 for ")
    write_labelme(tmp_path / "held" / "a.json", [labelme_shape("m", box(0, 0, 5, 5))], "a.png", "aGVsbG8=")
    assert_refused(call("labelme", "--input", tmp_path / "held"), "a.json: the image is of no known kind")


def test_memory_does_not_grow_with_the_number_of_images(tmp_path):
    """Forty images with embedded data need hardly more than ten."""
    peaks = []
    for count in (10, 40):
        for i in range(count):
            shapes = [labelme_shape("m", box(10, 20, 20, 30))]
            size = (200, 200)
            write_labelme(tmp_path / f"in{count}" / f"{i}.json", shapes, f"{i}.png", png_text(grey(i, size)), size)
        tracemalloc.start()
        convert(ConvertSettings("labelme", tmp_path / f"in{count}", tmp_path / f"out{count}"))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 200_000  # bytes; the forty images hold 1.2 million more


def test_the_settings_are_on_record(call, tmp_path):
    labelme_folder(tmp_path / "in", 1)
    assert call("labelme", "--seed", 5)[0] == 0
    record = json.loads((tmp_path / "out" / "conversion.json").read_text())
    assert record["settings"]["seed"] == "5" and "train/masks/sec_000.png" in record["files"]
