"""``train.py`` on index masks, on several data sets, with heads on encoders: flags, files, refusals."""

import itertools

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image
from test_train_scripts import call  # noqa: F401

from emlib.annotations.classes import Classes, make_classes, write_classes
from emlib.learn.inference import predict_section
from emlib.learn.models.checkpoint import load_checkpoint
from emlib.learn.training import journal

RUN = "--threads 1 --device cpu --precision 32 --patch_size 32 --stride 16 --batch_size 2 --sampling random".split()
RUN += "--patches_per_epoch 4 --epochs 1 --augment light".split()
SMALL = ["--preset", "paper", "--contact_sheet", 0, *RUN]


@pytest.fixture(autouse=True)
def curves(request, monkeypatch):
    """Curves take longer than such a training; the first test looks at them."""
    if "curves" not in request.node.name:
        monkeypatch.setattr(journal, "save_figure", lambda figure, folder, name: [])


def write(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array.astype(np.uint8)).save(path)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """``cells``: index masks of three classes, 255 where nobody annotated; ``one`` and ``two``: organelle folders."""
    root, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    for split, name in itertools.product(("train", "val"), ("0", "1")):
        mask = np.kron(rng.integers(0, 3, (6, 6)), np.ones((8, 8), int))
        grey = 60 * mask + 40 + rng.normal(0, 5, mask.shape)
        mask[:4] = 255
        write(root / "cells" / split / "raw" / f"{name}.png", grey)
        write(root / "cells" / split / "masks" / f"{name}.png", mask)
        for domain, organelles, side in (("one", "ab", 96), ("two", "bc", 48)):
            write(root / domain / split / "raw" / f"{name}.png", rng.integers(0, 256, (side, side)))
            for organelle in organelles:
                write(root / domain / split / organelle / f"{name}.png", (rng.random((side, side)) < 0.4) * 255)
    write_classes(root / "cells" / "classes.yaml", Classes(make_classes(["nucleus", "membrane"]).classes, 255))
    return root


def test_a_head_learns_index_masks_and_leaves_curves_and_a_file_that_is_all_that_inference_needs(call, made, tmp_path):  # noqa: F811
    out = tmp_path / "model.pth"
    argv = [
        "--data_root",
        made,
        "--domain",
        "cells",
        "--out_path",
        out,
        *RUN,
        "--head",
        "upernet",
        "--backbone",
        "resnet18",
    ]
    code, said, err = call("train.py", *argv, "--loss", "ce+dice", "--class_weights", "auto", "--half", "--patience", 8)
    assert (code, err) == (0, ""), err
    assert "cells: 2 train and 2 val sections, 3 classes: background, nucleus, membrane;" in said
    assert "weights in the loss: background " in said
    history = pd.read_csv(tmp_path / "model" / "history.csv")
    assert {"iou", "dice", "f1", "accuracy", "iou/nucleus", "iou/membrane", "dice/nucleus"} <= set(history)
    assert "iou/background" not in history and history["iou"][0] == pytest.approx(
        history[["iou/nucleus", "iou/membrane"]].mean(axis=1)[0], abs=1e-5
    )
    files = {path.name for path in (tmp_path / "model").iterdir()}
    assert files >= {"augmentation.png", "args.yaml", "history.csv", "last.pth", "curves.png"}
    checkpoint = load_checkpoint(out)
    assert checkpoint.organelles == ("background", "nucleus", "membrane") == checkpoint.model.organelles
    assert checkpoint.model.activation == checkpoint.architecture["activation"] == "softmax"
    assert checkpoint.settings["class_ids"] == [0, 1, 2] and set(checkpoint.settings["colours"]) == set(
        checkpoint.organelles
    )
    assert checkpoint.settings["loss"] == "ce+dice" and checkpoint.settings["head"] == "upernet"
    image = np.asarray(Image.open(made / "cells" / "val" / "raw" / "0.png"))
    found = predict_section(checkpoint.model, image, checkpoint.normalisation)
    assert found.shape == (3, 48, 48) and np.allclose(found.sum(0), 1, atol=1e-5)
    last = tmp_path / "model" / "last.pth"
    assert out.stat().st_size < 0.6 * sum(4 * p.numel() for p in checkpoint.model.parameters()) < last.stat().st_size
    args = yaml.safe_load((tmp_path / "model" / "args.yaml").read_text())
    assert args["head"] == "upernet" and args["half"] is True and args["class_weights"] == "auto"


def test_a_preset_learns_index_masks_whose_classes_have_no_names(call, made, tmp_path):  # noqa: F811
    """The same code path; ``--ignore_index`` in place of classes.yaml, and a model repeated from args.yaml."""
    root = tmp_path / "data"
    for path in (made / "cells").rglob("*.png"):
        write(root / "cells" / path.relative_to(made / "cells"), np.asarray(Image.open(path)))
    out, again = tmp_path / "model.pth", tmp_path / "again.pth"
    argv = ["--data_root", root, "--domain", "cells", "--out_path", out, *SMALL, "--ignore_index", 255]
    code, said, _ = call("train.py", *argv, "--class_weights", 1, 2, 3)
    assert code == 0 and said.startswith("warning: there is no ") and "class_1 (id 1), class_2 (id 2)" in said
    assert load_checkpoint(out).organelles == ("background", "class_1", "class_2")
    assert not (tmp_path / "model" / "augmentation.png").exists()
    assert call("train.py", "--config", tmp_path / "model" / "args.yaml", "--out_path", again, "--quiet")[:2] == (0, "")
    assert again.read_bytes() == out.read_bytes()


def test_several_data_sets_train_one_model(call, made, tmp_path):  # noqa: F811
    out = tmp_path / "model.pth"
    argv = ["--data_root", made, "--domain", "one", "two", "--out_path", out, *SMALL]
    more = ["--domain_weights", 1, 3, "--resample_nm", 8, "--voxel_size", 40, 4, 4, 40, 8, 8]
    code, said, err = call("train.py", *argv, *more)
    assert (code, err) == (0, ""), err
    assert "one, two: 4 train and 4 val sections, a, b, c;" in said
    assert "patches from one 25%, two 75% (by --domain_weights)" in said
    history = pd.read_csv(tmp_path / "model" / "history.csv")
    columns = [name for name in history if name.startswith("iou/")]
    assert columns == ["iou/one/a", "iou/one/b", "iou/two/b", "iou/two/c"]
    assert history["iou"][0] == pytest.approx(history[columns].mean(axis=1)[0], abs=1e-5)
    checkpoint = load_checkpoint(out)
    assert checkpoint.organelles == ("a", "b", "c") and checkpoint.voxel_size_nm == (40, 8, 8)
    assert checkpoint.settings["domain"] == ["one", "two"] and set(checkpoint.settings["data"]) == {
        f"{domain}/{split}" for domain in ("one", "two") for split in ("train", "val")
    }


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--domain", "one", "cells"], "cells has index masks, one a folder for each organelle; train them apart"),
        (["--domain", "one", "one"], "--domain names one twice"),
        (["--domain", "one", "two", "--organelles", "a"], "two/train has no masks of a; it has b, c: leave it out"),
        (
            ["--domain", "one", "two", "--organelles", "b", "nuclei"],
            "none of one, two has masks of 'nuclei'; there is b",
        ),
        (["--domain", "one", "two", "--domain_weights", 1], "2 data sets need as many --domain_weights, not 1"),
        (["--domain", "one", "--voxel_size", 4, 4], "--voxel_size has 2 numbers; give Z Y X in nm"),
        (["--domain", "one", "--class_weights", 1], "--class_weights has 1 numbers for 2 organelles"),
        (["--domain", "one", "--augment", "lihgt"], "no augmentation 'lihgt'; did you mean light"),
        (["--domain", "one", "--head", "unett"], "no head 'unett'; did you mean unet"),
        (["--domain", "one", "--head", "unet", "--backbone", "resnet19"], "resnet19"),
        (
            ["--domain", "one", "--head", "unet", "--backbone", "test_resnet", "--batch_size", 1],
            "cannot normalise over a batch of one such patch; use --batch_size 2 or more, or a larger --patch_size",
        ),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, list) else "",
)
def test_what_cannot_be_trained_is_told_in_one_line(call, made, tmp_path, more, said):  # noqa: F811
    code, _, err = call("train.py", "--data_root", made, "--out_path", tmp_path / "m.pth", *SMALL, *more)
    assert code == 2 and said in err and err.count("\n") == 1, err
    assert not list(tmp_path.rglob("*.pth"))


def test_val_sections_that_show_nothing_are_refused_before_an_epoch_is_trained(call, made, tmp_path):  # noqa: F811
    root = tmp_path / "data"
    for path in (made / "cells").rglob("*.png"):
        image = np.array(Image.open(path))
        if path.parent.name == "masks" and path.parent.parent.name == "val":
            image[image < 255] = 0
        write(root / "cells" / path.relative_to(made / "cells"), image)
    write_classes(root / "cells" / "classes.yaml", Classes(make_classes(["nucleus", "membrane"]).classes, 255))
    out = tmp_path / "m.pth"
    code, said, err = call("train.py", "--data_root", root, "--domain", "cells", "--out_path", out, *SMALL)
    assert code == 2 and "val: all masks are empty, so no epoch can be measured" in err and err.count("\n") == 1
    assert "steps in an epoch" not in said and not (tmp_path / "m").exists()


def test_notes_on_voxel_sizes(call, made, tmp_path):  # noqa: F811
    argv = ["--data_root", made, "--domain", "one", "two", *SMALL, "--out_path"]
    code, said, _ = call("train.py", *argv, tmp_path / "a.pth", "--voxel_size", 40, 4, 4, 40, 8, 8)
    assert code == 0 and "warning: pixels differ in size (one 4 × 4, two 8 × 8 nm)" in said
    assert load_checkpoint(tmp_path / "a.pth").voxel_size_nm is None


def test_a_training_on_other_images_is_not_gone_on_with(call, made, tmp_path):  # noqa: F811
    root, out, recipe = tmp_path / "data", tmp_path / "model.pth", tmp_path / "mine.yaml"
    for path in (made / "one").rglob("*.png"):
        write(root / "one" / path.relative_to(made / "one"), np.asarray(Image.open(path)))
    recipe.write_text("base: light\nblur: 0.3\n")
    argv = ["--data_root", root, "--domain", "one", "--out_path", out, *SMALL, "--augment", recipe, "--quiet"]
    assert call("train.py", *argv)[0] == 0
    assert call("train.py", *argv, "--resume", "--epochs", 2, "--memory_gb", 1e-5)[0] == 0
    path = root / "one" / "val" / "a" / "1.png"
    mask, old = np.array(Image.open(path)), path.read_bytes()
    mask[0, 0] ^= 255
    write(path, mask)
    code, _, err = call("train.py", *argv, "--resume", "--epochs", 3)
    assert code == 2 and "--resume: the images or masks of one/val are not those that" in err and err.count("\n") == 1
    path.write_bytes(old)
    recipe.write_text("base: light\nblur: 0.4\n")
    code, _, err = call("train.py", *argv, "--resume", "--epochs", 3)
    assert code == 2 and "was trained with another augmentation (--augment differs in blur)" in err


def test_a_training_on_other_pixels_is_not_gone_on_with(call, made, tmp_path):  # noqa: F811
    """The size of a voxel decides how far sections are resampled; without that it is a note in the file."""
    argv = ["--data_root", made, "--domain", "one", *SMALL, "--quiet", "--out_path"]
    scaled = [*argv, tmp_path / "scaled.pth", "--resample_nm", 8]
    assert call("train.py", *scaled, "--voxel_size", 40, 8, 8)[0] == 0
    code, _, err = call("train.py", *scaled, "--voxel_size", 40, 6, 6, "--resume", "--epochs", 2)
    assert code == 2 and "was trained with --voxel_size [40.0, 8.0, 8.0], now it is [40.0, 6.0, 6.0]" in err
    plain = [*argv, tmp_path / "plain.pth"]
    assert call("train.py", *plain, "--voxel_size", 40, 8, 8)[0] == 0
    assert call("train.py", *plain, "--voxel_size", 40, 6, 6, "--resume", "--epochs", 2)[0] == 0


def test_a_rate_far_from_the_preset_is_told_before_training(call, made, tmp_path):  # noqa: F811
    argv = ["--data_root", made, "--domain", "one", "--out_path", tmp_path / "m.pth", *SMALL, "--lr", 0.1]
    code, said, _ = call("train.py", *argv)
    assert code == 0 and said.startswith(
        "warning: --lr 0.1 is 1e+03 times above the 0.0001 of --preset paper and may diverge"
    )


def test_a_place_that_cannot_be_written_names_out_path(call_script, made, tmp_path):
    (tmp_path / "file").touch()
    done = call_script(
        "train.py", "--data_root", made, "--domain", "one", "--out_path", tmp_path / "file" / "m.pth", *SMALL
    )
    assert done.returncode == 2 and "choose another --out_path" in done.stderr and "--outdir" not in done.stderr


def test_backbones_are_listed_without_any_other_flag(call):  # noqa: F811
    code, said, _ = call("train.py", "--list-backbones", "resnet1?")
    assert code == 0 and "resnet18" in said.split()
    code, _, err = call("train.py", "--list_backbones", "nonsense*")
    assert code == 2 and "no backbone is called like 'nonsense*'" in err and err.count("\n") == 1
