"""Damaged and hostile tables, skeletons, configurations and settings end in a result or in one line, never else."""

import json
import re
import sys
import zipfile

import numpy as np
import pandas as pd
import pytest
from damaged_files import DAMAGE, damaged, fuzz, outcome
from hypothesis import given
from hypothesis import strategies as st

from emlib.errors import UserError
from emlib.evaluation.graph import read_edges
from emlib.evaluation.inputs import read_table
from emlib.evaluation.synapse_tables import read_synapses
from emlib.pipeline import StageSettings
from emlib.runs import cli
from emlib.runs.settings import listing, override
from emlib.volumes.swc import read_skeletons

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits memory and time as Linux does")
CASES, SWEEP = 60, 2000
SIZE = (50.0, 4.0, 4.0)


def parser():
    made = cli.Parser(prog="run")
    cli.add_volume(made)
    cli.add_run(made)
    made.add_argument("--set", nargs="+", action="extend", dest="assignments")
    return made


def configured(path):
    """Parse a configuration as a script does; argparse's own complaint is one line and exit code 2 as well."""
    try:
        return vars(cli.parse(parser(), ["--config", str(path)]))
    except SystemExit as end:
        assert end.code == 2
        raise UserError("refused by argparse") from end


def edges(path):
    table = read_edges(str(path))
    assert (table["source"] >= 0).all() and (table["target"] >= 0).all()
    return table


def synapses(path):
    table = read_synapses(path, scored=True)
    assert np.isfinite(table[["z", "y", "x"]].to_numpy(np.float64)).all()
    return table


def skeletons(path):
    found = read_skeletons(path, SIZE, "um")
    assert all(np.isfinite(one.nodes).all() for one in found)
    return found


NOTE = b"a note that no reader looks at and that takes some of the damage " * 4
READERS = {
    "synapses.csv": (
        b"z,y,x,pre_id,post_id,score,note\n" + b"1,2,3.5,4,5,0.5," + NOTE + b"\n7,8,9,1,2,1e-3," + NOTE + b"\n",
        synapses,
    ),
    "edges.csv": (b"source,target,weight,note\n1,2,3," + NOTE + b"\n2,1,4," + NOTE + b"\n", edges),
    "a.swc": (b"# " + NOTE + b"\n1 2 0 0 50 1 -1\n2 2 40.5 0 50 1 1\n3 2 40 8 50 1 2 # " + NOTE, skeletons),
    "a.yaml": (
        b"# " + NOTE + b"\ndataset: a.tif\nvoxel_size: [50, 4, 4]\ncutout: [64, 64, 16]\nseed: 3 # " + NOTE,
        configured,
    ),
}


def fuzz_reader(tmp_path, name, examples):
    """Damage a file ``examples`` times; return how many were read and the lines of those that were not."""
    content, read = READERS[name]
    path, opened, lines = tmp_path / name, [], []
    path.write_bytes(content)
    assert outcome(lambda: read(path))[0] is not None

    @fuzz(examples)
    @given(damage=DAMAGE)
    def holds(damage):
        path.write_bytes(damaged(content, damage[1]))
        result, line = outcome(lambda: read(path))
        (opened if line is None else lines).append(line or result)
        assert [p.name for p in tmp_path.iterdir()] == [name]

    holds()
    return len(opened), lines


@pytest.mark.parametrize("name", READERS)
def test_damaged_text(tmp_path, name):
    opened, lines = fuzz_reader(tmp_path, name, CASES)
    assert opened + len(lines) >= CASES
    assert opened >= 10 and len(lines) >= 10, "the reader must be reached, and damage must show"


@pytest.mark.slow
@pytest.mark.parametrize("name", READERS)
def test_damaged_text_sweep(tmp_path, name):
    opened, lines = fuzz_reader(tmp_path, name, SWEEP)
    assert opened > SWEEP // 50 and len(lines) > SWEEP // 50


JSON_LIKE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


def test_settings_of_any_value():
    """Whatever value a setting is given, it keeps its type and stays finite, or is refused."""
    names = [line.partition("=")[0] for line in listing(StageSettings())]
    taken, refused = [], []

    @fuzz(100)
    @given(name=st.sampled_from(names), value=JSON_LIKE)
    def holds(name, value):
        changed, line = outcome(lambda: override(StageSettings(), [f"{name}={json.dumps(value)}"]))
        if changed is None:
            refused.append(line)
            return
        taken.append(name)
        lines = dict(one.split("=", 1) for one in listing(changed))
        assert not any(word in lines[name] for word in ("NaN", "Infinity")) or name == "segment.segmenter"

    holds()
    assert taken and refused


@pytest.mark.parametrize("text", ["[" * 100_000, "1" + "0" * 400, "9" * 5000, "NaN", "-Infinity", "1e400", '"2"'])
def test_settings_that_are_no_numbers(text):
    changed, line = outcome(lambda: override(StageSettings(), [f"segment.multicut.bias={text}"]))
    assert changed is None and "expected a value like" in line


@pytest.mark.parametrize("text", ['"ab"', "8", "[8]", "[8, 18, 3]", '["a", 18]', "[8, [18]]", "[8, NaN]", "{}"])
def test_pairs_stay_pairs_of_numbers(text):
    assert override(StageSettings(), ["synapses.grain_nm=[7, 19]"]).synapses.grain_nm == (7.0, 19.0)
    changed, line = outcome(lambda: override(StageSettings(), [f"synapses.grain_nm={text}"]))
    assert changed is None and "expected a value like" in line


def laughs():
    """Ten lists, each of ten times the one before, in 300 bytes."""
    return "seed: [&a0 [1, 1]" + "".join(f", &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 10)) + "]"


def merges():
    return "x0: &x0 {k: 1}\n" + "".join(
        f"x{i}: &x{i} {{<<: [{', '.join([f'*x{i - 1}'] * 10)}]}}\n" for i in range(1, 9)
    )


YAML = {
    "tag": ("!!python/object/apply:os.mkdir [CANARY]", "is not YAML: could not determine a constructor"),
    "tag of a value": ("seed: !!python/object/apply:os.mkdir [CANARY]", "could not determine a constructor"),
    "new-style tag": ("seed: !!python/object/new:os.mkdir [CANARY]", "could not determine a constructor"),
    "module tag": ("seed: !!python/module:antigravity", "could not determine a constructor"),
    "lists of lists": (laughs(), r"refers to another part of itself with \*; write the value out"),
    "merged keys": (merges(), r"refers to another part of itself with \*"),
    "itself": ("&a\nseed: *a", r"refers to another part of itself with \*"),
    "deep": ("seed: " + "[" * 50_000, "is too long or nests too deeply"),
    "long": ("# " + "x" * 100_000, "is too long or nests too deeply"),
    "no date": ("seed: 2024-13-45", "is not YAML: month must be in"),
    "no number": ("seed: !!int foo", "is not YAML: invalid literal"),
    "endless number": ("seed: " + "1" * 5000, "is not YAML: Exceeds the limit"),
    "other flags in a value": (
        'cutout: [1, 2, 3, "--outdir", "/"]',
        "cutout is a value or a list of values, not '--outdir'",
    ),
    "a list in a list": ("cutout: [[1, 2], 3]", r"cutout is a value or a list of values, not '\[1, 2\]'"),
    "a mapping": ("dataset: {a: b}", "dataset is a value or a list of values"),
    "not UTF-8": (b"seed: \xff", "is not YAML: 'utf-8' codec"),
    "zero byte": (b"seed: \0", "is not YAML: unacceptable character"),
}


@pytest.mark.parametrize("case", YAML)
def test_hostile_configurations(tmp_path, monkeypatch, case):
    text, says = YAML[case]
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "a.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    result, line = outcome(lambda: configured(path))
    assert result is None
    assert re.search(says, line), line
    assert [p.name for p in tmp_path.iterdir()] == ["a.yaml"], "the configuration ran code"


TABLES = {
    "column twice": ('"z ","z","y","x"\n1,2,3,4\n', "has the column z more than once"),
    "more values than names": ("z,y,x\n1,2,3,4\n", "more values than|has 4 values, the header 3 names"),
    "name of two lines": ('"z\nq",y,x\n1,2,3\n', "lacks the column z|names; mend the header"),
    "long value": ("z,y,x\n" + "a" * 100_000 + ",2,3\n", "not a number"),
    "zero bytes": (b"\0" * 1000, "lacks the columns z, y, x"),
    "true": ("z,y,x,pre_id\n1,2,3,True\n", "line 2: pre_id is .?True"),
    "id beyond 2^63": ("z,y,x,pre_id\n1,2,3,9223372036854775808\n", "not a whole number"),
    "id beyond 2^64": ("z,y,x,pre_id\n1,2,3,1e300\n", "pre_id"),
}


@pytest.mark.parametrize("case", TABLES)
def test_hostile_tables(tmp_path, case):
    text, says = TABLES[case]
    path = tmp_path / "a.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    result, line = outcome(lambda: read_table(path, ["z", "y", "x"], ["pre_id"], optional=["pre_id"]))
    assert result is None
    assert re.search(says, line), line


def test_archives_are_not_unpacked(tmp_path):
    """A table in a zip is refused, so that no name in it can lead anywhere, nor a bomb go off."""
    table = pd.DataFrame({"z": [1], "y": [2], "x": [3]})
    with zipfile.ZipFile(tmp_path / "a.csv.zip", "w") as archive:
        archive.writestr("../../out.csv", table.to_csv(index=False))
    table.to_csv(tmp_path / "a.csv.gz", index=False)
    for name in ("a.csv.zip", "a.csv.gz"):
        result, line = outcome(lambda name=name: read_table(tmp_path / name, ["z"]))
        assert result is None and name in line
    assert len(list(tmp_path.iterdir())) == 2


def test_skeletons_beyond_all_bounds(tmp_path):
    path = tmp_path / "a.swc"
    path.write_text("1 0 1e308 0 0 1 -1\n")
    assert "a coordinate is out of all bounds in um" in outcome(lambda: read_skeletons(path, SIZE, "um"))[1]
    path.write_bytes(b"\xef\xbb\xbf1 0 4 0 0 1 -1\n")  # as editors on Windows begin a file
    assert read_skeletons(path, SIZE)[0].nodes.tolist() == [[0, 0, 1]]
    path.write_text("1 0 0 0 0 1 -1\n" + "".join(f"{i} 0 {i} 0 0 1 {i - 1}\n" for i in range(2, 20_000)))
    assert len(outcome(lambda: read_skeletons(path, SIZE))[0][0].edges) == 19_998
