"""Annotation files as other programs write them, made by hand; the image is 60 px high and 80 px wide."""

import base64
import io
import json
from pathlib import Path

import numpy as np
from PIL import Image

HEIGHT, WIDTH = 60, 80


def grey(seed=0, size=(HEIGHT, WIDTH), dtype=np.uint8):
    """A noisy image."""
    top = np.iinfo(dtype).max
    return np.random.default_rng(seed).integers(0, top, size, dtype=dtype, endpoint=True)


def save(path, array):
    """Write an image and return its path."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)
    return path


def png_text(array):
    """An image as base64 of a PNG."""
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, format="PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def labelme_shape(label, points, kind="polygon", **more):
    """A shape as Labelme 5.5 writes it."""
    return {"label": label, "points": points, "group_id": None, "description": "", "shape_type": kind, "flags": {},
            "mask": None, **more}  # fmt: skip


def write_labelme(path, shapes, image="img.png", data=None, size=(HEIGHT, WIDTH)):
    """A file as Labelme 5.5 writes it."""
    content = {"version": "5.5.0", "flags": {}, "shapes": shapes, "imagePath": image, "imageData": data,
               "imageHeight": size[0], "imageWidth": size[1]}  # fmt: skip
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2), encoding="utf-8")
    return path


def box(x0, y0, x1, y1):
    """The corners of a rectangle."""
    return [[x0, y0], [x1, y0], [x1, y1], [x0, y1]]


def labelme_folder(folder, count=4, size=(HEIGHT, WIDTH), dtype=np.uint8):
    """A folder of Labelme files with images beside them: a mitochondrion and a membrane in each."""
    for i in range(count):
        name = f"sec_{i:03d}"
        save(folder / f"{name}.png", grey(i, size, dtype))
        shapes = [labelme_shape("mito", box(10, 20, 20, 30)), labelme_shape("membrane", box(15, 25, 40, 35))]
        write_labelme(folder / f"{name}.json", shapes, f"{name}.png", size=size)
    return folder
