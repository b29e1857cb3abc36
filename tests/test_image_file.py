"""One image in a file: what is stored, whichever way it is stored."""

import numpy as np
import pytest
import tifffile
from PIL import Image

from emlib.errors import UserError
from emlib.volumes.image_file import grey_of, open_with_pillow, read_tiff_image, tiff_image_shape

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (17, 23), np.uint8)
RGB = RNG.integers(0, 256, (17, 23, 3), np.uint8)


@pytest.mark.parametrize("how", ["strips", "tiles", "planes"])
def test_colour_comes_with_its_samples_last(tmp_path, how):
    options = {"strips": {"rowsperstrip": 5}, "tiles": {"tile": (16, 16)}, "planes": {"planarconfig": "separate"}}[how]
    array = np.moveaxis(RGB, -1, 0) if how == "planes" else RGB
    tifffile.imwrite(tmp_path / "a.tif", array, photometric="rgb", compression="zlib", **options)
    assert np.array_equal(read_tiff_image(tmp_path / "a.tif", keep_palette=False), RGB)
    assert tiff_image_shape(tmp_path / "a.tif") == (17, 23)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, bool])
def test_where_0_is_white_it_can_be_turned_round(tmp_path, dtype):
    stored = GREY > 99 if dtype is bool else GREY.astype(dtype)
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="miniswhite")
    assert np.array_equal(read_tiff_image(tmp_path / "a.tif", keep_palette=True), ~stored)
    assert np.array_equal(read_tiff_image(tmp_path / "a.tif", keep_palette=True, as_shown=False), stored)


def test_a_palette_gives_indices_or_colours(tmp_path):
    image = Image.fromarray(GREY % 4, mode="P")
    image.putpalette([10, 20, 30, 250, 0, 0, 0, 250, 0, 1, 2, 3])
    image.save(tmp_path / "a.tif")
    assert np.array_equal(read_tiff_image(tmp_path / "a.tif", keep_palette=True), GREY % 4)
    colours = np.array([(10, 20, 30), (250, 0, 0), (0, 250, 0), (1, 2, 3)], np.uint8)
    assert np.array_equal(read_tiff_image(tmp_path / "a.tif", keep_palette=False), colours[GREY % 4])


def test_several_images_in_a_file_are_refused(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.stack([GREY] * 3), photometric="minisblack")
    with pytest.raises(UserError, match=r"a\.tif holds 3 images; save one section per file"):
        read_tiff_image(tmp_path / "a.tif", keep_palette=True)


def test_brightness_is_that_of_pillow_and_grey_stays_as_it_is():
    assert np.array_equal(grey_of(RGB), np.asarray(Image.fromarray(RGB).convert("L")))
    for dtype in (np.uint8, np.uint16):
        every = np.arange(np.iinfo(dtype).max + 1, dtype=dtype)[None]
        assert np.array_equal(grey_of(np.stack([every] * 3, -1)), every)
    deep = np.full((2, 2, 3), 65535, np.uint16)
    assert grey_of(deep).dtype == np.uint16 and (grey_of(deep) == 65535).all()
    assert grey_of(RGB / 255).dtype == np.float32


def test_an_image_of_any_size_is_opened(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    Image.fromarray(GREY).save(tmp_path / "a.png")
    with open_with_pillow(tmp_path / "a.png", ("PNG",)) as image:
        assert np.array_equal(np.asarray(image), GREY)
