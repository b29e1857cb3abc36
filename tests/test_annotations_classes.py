"""classes.yaml: what is written is read back, and what makes no sense is refused in one line."""

import numpy as np
import pytest

from emlib.annotations.classes import Classes, MaskClass, make_classes, read_classes, write_classes
from emlib.errors import UserError


@pytest.mark.parametrize("ignore", [None, 255])
def test_written_classes_are_read_back(tmp_path, ignore):
    classes = make_classes(["membrane", "a: b", "yes", "12", "Zellkern – ü", "#1"], ignore=ignore)
    write_classes(tmp_path / "classes.yaml", classes)
    assert read_classes(tmp_path / "classes.yaml") == classes


def test_background_comes_first_and_colours_differ():
    classes = make_classes([f"c{i}" for i in range(63)])
    assert classes.classes[0] == MaskClass(0, "background", (0, 0, 0))
    assert len({one.colour for one in classes.classes}) == 64
    assert make_classes(["background", "c0"]) == make_classes(["c0"])


def test_ids_may_have_gaps_and_decide_the_dtype():
    few = Classes((MaskClass(0, "background", (0, 0, 0)), MaskClass(200, "a", (1, 2, 3))), ignore=255)
    assert few.dtype == np.uint8 and few.id_of("a") == 200
    assert Classes((*few.classes, MaskClass(256, "b", (1, 2, 4)))).dtype == np.uint16


def test_a_class_without_colour_gets_one(tmp_path):
    (tmp_path / "c.yaml").write_text("classes:\n- {id: 1, name: a}\n- {id: 0, name: background}\n")
    assert read_classes(tmp_path / "c.yaml") == make_classes(["a"])


@pytest.mark.parametrize(
    "text, said",
    [
        ("- 1", "no list called classes"),
        ("classes: []", "no list called classes"),
        ("classes: [{id: 0, name: a}, {id: 0, name: b}]", "the id 0 is given to several"),
        ("classes: [{id: 0, name: a}, {id: 1, name: a}]", "the name 'a' is given to several"),
        ("classes: [{id: 1, name: a}]", "no class has id 0"),
        ("classes: [{id: 0, name: a}]\nignore: 0", "ignore is 0, which is a class"),
        ("classes: [{id: 0, name: a}]\nignore: -1", "ignore must be a whole number"),
        ("classes: [{id: 70000, name: a}]", "70000 is no whole number from 0 to 65535"),
        ("classes: [{id: 0, name: a, colour: red}]", "'red' is no colour"),
        ("classes: [{id: 0}]", "is no class"),
        ("classes: [{id: 0, name: ''}]", "an empty name"),
        ("classes: [{id: 0, name: a}]\ncolors: 1", "colors, which means nothing"),
        ("classes: [", "cannot read"),
        ("a: &x [1]\nb: *x", "refers to another part"),
    ],
)
def test_bad_classes_are_refused(tmp_path, text, said):
    (tmp_path / "classes.yaml").write_text(text)
    with pytest.raises(UserError, match=said) as error:
        read_classes(tmp_path / "classes.yaml")
    assert "\n" not in str(error.value) and "classes.yaml" in str(error.value)


def test_missing_classes_are_told(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        read_classes(tmp_path / "classes.yaml")
