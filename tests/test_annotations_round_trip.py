"""Masks written as COCO or Labelme and read back are the same masks: on real sections and on the phantom."""

import json
import shutil

import numpy as np
import pytest
from annotation_files import grey, labelme_shape, save, write_labelme
from PIL import Image

from emlib.annotations.convert import ConvertSettings, convert

LEAST_IOU = 0.99


def there_and_back(source, folder, between, **more):
    """Convert organelle folders to annotations and these to organelle folders; return the latter."""
    convert(ConvertSettings("instances", source, folder / "between", to=between, **more))
    beside = {"images": folder / "between" / "images"} if between == "coco" else {}
    convert(ConvertSettings(between, folder / "between", folder / "back", to="organelles", **beside))
    return folder / "back"


def lowest_iou(before, after):
    """The lowest IoU over all masks of two data sets."""
    found = []
    for path in sorted(before.rglob("*.png")):
        one, other = (np.asarray(Image.open(root / path.relative_to(before))) >= 128 for root in (before, after))
        if path.parent.name != "raw" and one.any():
            found.append((one & other).sum() / (one | other).sum())
    return min(found), len(found)


@pytest.mark.parametrize("between", ["coco", "labelme"])
def test_phantom_comes_back(tiny_domain, tmp_path, between):
    iou, count = lowest_iou(tiny_domain / "phantom", there_and_back(tiny_domain / "phantom", tmp_path, between))
    assert iou >= LEAST_IOU and count > 30


@pytest.mark.parametrize("between", ["coco", "labelme"])
def test_real_masks_come_back(real_data, tmp_path, between):
    for organelle in ("raw", "membranes", "mitochondria", "synapses"):
        source = sorted((real_data / "drosophila-vnc" / "val" / organelle).glob("*.png"))[0]
        (tmp_path / "vnc" / "val" / organelle).mkdir(parents=True)
        shutil.copy(source, tmp_path / "vnc" / "val" / organelle)
    iou, count = lowest_iou(tmp_path / "vnc", there_and_back(tmp_path / "vnc", tmp_path, between))
    assert iou >= LEAST_IOU and count == 3


def test_pycocotools_reads_what_is_written(tiny_domain, tmp_path):
    from pycocotools.coco import COCO

    convert(ConvertSettings("instances", tiny_domain / "phantom", tmp_path / "coco", to="coco"))
    read = COCO(tmp_path / "coco" / "annotations" / "instances_test.json")
    names = {one["id"]: one["name"] for one in read.loadCats(read.getCatIds())}
    for image in read.loadImgs(read.getImgIds()):
        for number, name in names.items():
            truth = np.asarray(Image.open(tiny_domain / "phantom" / "test" / name / image["file_name"])) > 0
            theirs = np.zeros(truth.shape, bool)
            for one in read.loadAnns(read.getAnnIds(image["id"], [number])):
                theirs |= read.annToMask(one).astype(bool)
                assert one["area"] == read.annToMask(one).sum()
            assert (theirs == truth).all()


@pytest.mark.parametrize("to", ["coco", "labelme"])
def test_polygons_keep_their_corners(tmp_path, to):
    corners = [[10.25, 20.5], [33.75, 21.0], [28.0, 40.125]]
    save(tmp_path / "in" / "a.png", grey())
    write_labelme(tmp_path / "in" / "a.json", [labelme_shape("m", corners)], "a.png")
    convert(ConvertSettings("labelme", tmp_path / "in", tmp_path / "out", to=to, split=(1, 0, 0)))
    if to == "coco":
        content = json.loads((tmp_path / "out/annotations/instances_train.json").read_text())
        assert content["annotations"][0]["segmentation"] == [np.ravel(corners).tolist()]
    else:
        assert json.loads((tmp_path / "out/train/a.json").read_text())["shapes"][0]["points"] == corners
