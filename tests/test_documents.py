"""The documents stay true: their Python runs, their flags and settings exist."""

import re
import runpy
import shlex
from pathlib import Path

import numpy as np
import pytest

from emlib.volumes.tiff import write_tiff

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def commands():
    """Each command of this repository that a document shows, joined over line ends."""
    for document in DOCUMENTS:
        text = document.read_text(encoding="utf-8").replace("\\\n", " ")
        for line in re.findall(r"^\s*(python \w+\.py .*)$", text, flags=re.M):
            yield pytest.param(line.strip(), id=f"{document.name}: {line.strip()[:50]}")


@pytest.mark.parametrize("command", list(commands()))
def test_documented_flags_exist(command):
    """Parse the command line with the script's own parser; files it names need not exist."""
    script, *argv = shlex.split(command, comments=True)[1:]
    assert (ROOT / script).is_file()
    parse_args = runpy.run_path(str(ROOT / script))["parse_args"]
    if "--config" in argv:
        at = argv.index("--config")
        argv = argv[:at] + argv[at + 2 :]
    parse_args(argv)


def test_documented_settings_exist():
    from emlib.pipeline import StageSettings
    from emlib.runs.settings import override

    named = {name for d in DOCUMENTS for name in re.findall(r"--set ([\w.]+=[\w.]+)", d.read_text(encoding="utf-8"))}
    named.discard("NAME=VALUE")
    assert named
    for assignment in named:
        override(StageSettings(), [assignment])


def test_the_ten_lines_of_python_run(tmp_path, monkeypatch, capsys):
    from emlib.volumes.phantom import PhantomSettings, make_phantom

    text = (ROOT / "docs" / "your_data.md").read_text(encoding="utf-8")
    code = re.search(r"```python\n(.*?)```", text, flags=re.S).group(1)
    em = make_phantom(PhantomSettings(shape=(8, 96, 96))).em
    write_tiff(tmp_path / "my_stack.tif", em, (50, 4, 4))
    monkeypatch.chdir(tmp_path)
    scope = {}
    exec(code, scope)
    assert scope["labels"].shape == (8, 96, 96) and scope["labels"].dtype == np.int32
    assert "source" in capsys.readouterr().out


def test_every_script_is_in_the_readme():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for script in ROOT.glob("*.py"):
        assert f"python {script.name}" in text
