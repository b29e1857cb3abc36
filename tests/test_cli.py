"""Flags, configuration files, settings by name, and how errors end."""

import argparse
import os
import runpy
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from emlib.errors import UserError
from emlib.runs import cli
from emlib.runs.settings import listing, override
from emlib.threads import get_threads, set_threads

ROOT = Path(__file__).resolve().parent.parent


def parser():
    made = cli.Parser(prog="tool.py")
    made.add_argument("--min_score", type=float, default=0.1)
    made.add_argument("--no-align", action="store_true")
    made.add_argument("--cutout", type=int, nargs=3)
    group = made.add_mutually_exclusive_group()
    group.add_argument("--save_this", action="store_true")
    cli.add_run(made)
    return made


@pytest.mark.parametrize(
    "argv", [["--min_score", "2", "--no_align", "--save-this"], ["--min-score=2", "--no-align", "--save_this"]]
)
def test_flags_accept_both_spellings(argv):
    args = cli.parse(parser(), argv)
    assert (args.min_score, args.no_align, args.save_this) == (2.0, True, True)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--min_score", "high"], "argument --min_score: invalid float value: 'high'"),
        (["--cutouts", "3"], "unrecognized arguments: --cutouts 3"),
        (["--threads", "0"], "argument --threads: must be above 0, got 0"),
        (["--seed", "-1"], "argument --seed: must be from 0 to 9223372036854775807 (2^63 - 1), got -1"),
        (["--seed", "9" * 24], "argument --seed: must be from 0 to 9223372036854775807"),
        (["--seed", "1.5"], "argument --seed: invalid seed value: '1.5'"),
        (["--outdir", ""], "argument --outdir: the value is empty; give one, or leave the flag out"),
        (["--outdir="], "argument --outdir: the value is empty"),
        (["--config", " "], "argument --config: the value is empty"),
        (["--cutout", "8", "", "8"], "argument --cutout: the value is empty"),
    ],
)
def test_a_wrong_flag_is_one_line_and_exit_code_2(argv, message, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.parse(parser(), argv)
    text = capsys.readouterr().err
    assert stop.value.code == 2 and text.count("\n") == 1 and message in text and "tool.py --help" in text


def test_config_sets_flags_and_typed_flags_win(tmp_path):
    config = tmp_path / "run.yaml"
    config.write_text("min-score: 0.5\ncutout: [8, 9, 10]\nno_align: true\nsave_this: false\nseed: 7\n")
    args = cli.parse(parser(), ["--config", str(config), "--seed", "3"])
    assert (args.min_score, args.cutout, args.no_align, args.save_this, args.seed) == (0.5, [8, 9, 10], True, False, 3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("min_scores: 1", "unknown key 'min_scores'"),
        ("config: other.yaml", "unknown key 'config'"),
        ("- 1", "flag: value"),
        ("a: [", "is not YAML"),
        ("no_align: 3", "no_align is on or off, not 3"),
    ],
)
def test_bad_config(tmp_path, text, message):
    config = tmp_path / "run.yaml"
    config.write_text(text)
    with pytest.raises(UserError, match=message.replace("(", r"\(")):
        cli.parse(parser(), ["--config", str(config)])


def test_config_runs_no_code(tmp_path):
    config = tmp_path / "run.yaml"
    config.write_text(f"min_score: !!python/object/apply:os.system ['touch {tmp_path}/broken']")
    with pytest.raises(UserError, match="is not YAML"):
        cli.parse(parser(), ["--config", str(config)])
    assert not (tmp_path / "broken").exists()


def test_missing_config_and_bad_value_in_config(tmp_path, capsys):
    with pytest.raises(UserError, match="cannot read --config"):
        cli.parse(parser(), ["--config", str(tmp_path / "absent.yaml")])
    config = tmp_path / "run.yaml"
    config.write_text("min_score: high")
    with pytest.raises(SystemExit):
        cli.parse(parser(), ["--config", str(config)])
    assert "invalid float value: 'high'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        ("UserError('no such file: x; look again')", 2, "error: no such file: x; look again"),
        ("KeyboardInterrupt()", 130, "interrupted: "),
        ("MemoryError('12 GiB')", 2, "error: out of memory (12 GiB)"),
    ],
)
def test_errors_end_in_one_line(error, code, line):
    code_text = (
        "from emlib.runs import cli\nfrom emlib.errors import UserError\nimport sys\n"
        f"def f(): raise {error}\nsys.exit(cli.run(f))"
    )
    done = subprocess.run([sys.executable, "-c", code_text], capture_output=True, text=True)
    assert done.returncode == code and done.stderr.startswith(line) and done.stderr.count("\n") == 1
    shown = subprocess.run([sys.executable, "-c", code_text, "--debug"], capture_output=True, text=True)
    assert "Traceback" in shown.stderr


def test_a_bug_still_crashes_loudly():
    with pytest.raises(ZeroDivisionError):
        cli.run(lambda: 1 // 0)


@pytest.mark.parametrize(
    "argv",
    [
        *(("run_pipeline.py", flag, "") for flag in ("--list", "--dataset", "--truth", "--truth_synapses")),
        *(("run_pipeline.py", flag, "") for flag in ("--boss_config", "--outdir", "--labels", "--boundaries")),
        *(("run_pipeline.py", flag, "") for flag in ("--show", "--rerun", "--config", "--set")),
        *(("fetch_data.py", "phantom", flag, "") for flag in ("--output", "--from", "--mirror")),
        ("fetch_data.py", ""),
        ("evaluate.py", "graph", "--pred", "", "--truth", "a.csv"),
        ("evaluate.py", "segmentation", "--pred", "a.npy", "--truth", ""),
    ],
)
def test_an_empty_value_is_refused_by_every_script(argv, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    script = runpy.run_path(str(ROOT / argv[0]))
    with pytest.raises(SystemExit) as stop:
        script["main"](argv[1:])
    text = capsys.readouterr().err
    assert stop.value.code == 2 and text.count("\n") == 1 and "the value is empty" in text
    assert list(tmp_path.iterdir()) == []


def test_an_empty_value_in_a_configuration_is_refused(tmp_path, capsys):
    config = tmp_path / "run.yaml"
    config.write_text("outdir: ''")
    with pytest.raises(SystemExit):
        cli.parse(parser(), ["--config", str(config)])
    assert "argument --outdir: the value is empty" in capsys.readouterr().err


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_configuration_that_is_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "run.yaml")
    with pytest.raises(UserError, match=r"run\.yaml is no file; name a YAML file"):
        cli.parse(parser(), ["--config", str(tmp_path / "run.yaml")])


def test_a_script_may_have_other_names_for_what_helps(capsys):
    def fails(error):
        def main():
            raise error

        return main

    assert cli.run(fails(UserError("cannot write x; choose another --outdir")), outdir="--output") == 2
    assert capsys.readouterr().err == "error: cannot write x; choose another --output\n"
    assert cli.run(fails(MemoryError("9 GiB")), smaller="ask for a smaller --shape") == 2
    assert capsys.readouterr().err == "error: out of memory (9 GiB); ask for a smaller --shape\n"


@dataclass(frozen=True)
class Inner:
    rate: float = 0.5
    count: int = 3


@dataclass(frozen=True)
class Outer:
    inner: Inner = field(default_factory=Inner)
    name: str = "x"
    flag: bool = False
    pair: tuple[float, float] = (1.0, 2.0)


def test_settings_by_name():
    changed = override(Outer(), ["inner.rate=2", "inner.count=4", "name=y z", "flag=true", "pair=[3, 4]"])
    assert changed == Outer(Inner(2.0, 4), "y z", True, (3, 4))
    assert isinstance(changed.inner.rate, float)


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("inner.rates=1", "there is no 'rates'; choose from rate, count"),
        ("inner=1", "choose one of its values: rate, count"),
        ("name.deep=1", "name has no values of its own"),
        ("inner.count=1.5", "expected a value like 3"),
        ("inner.rate=fast", "expected a value like 0.5"),
        ("flag=1", "expected a value like false"),
        ("inner.rate", "write NAME=VALUE"),
    ],
)
def test_wrong_settings_say_what_there_is(assignment, message):
    with pytest.raises(UserError, match=message.replace("(", r"\(")):
        override(Outer(), [assignment])


def test_the_listing_can_be_pasted_back():
    assert override(Outer(), list(listing(Outer()))) == Outer()


def test_positive_refuses_nan():
    with pytest.raises(argparse.ArgumentTypeError):
        cli.positive(float)("nan")


@pytest.mark.parametrize(
    ("flags", "environment", "expected"),
    [([], "3", 3), ([], "5,2", 5), (["--threads", "4"], "3", 4), ([], "0", None), ([], "all", None), ([], None, None)],
)
def test_threads_come_from_the_flag_then_from_the_environment(flags, environment, expected, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        monkeypatch.setenv(name, environment or "")  # put back afterwards
    set_threads(None)
    usual = get_threads()
    try:
        cli.parse(parser(), flags)
        assert get_threads() == (expected or usual)
    finally:
        set_threads(None)


def test_one_question_at_a_time_to_the_record(capsys):
    made = cli.Parser(prog="tool.py")
    cli.add_history(made)
    cli.add_run(made)
    assert cli.parse(made, ["--show", "last"]).show == "last" and cli.parse(made, ["--cutouts", "2"]).cutouts == 2
    for argv in (["--runs", "--rerun", "last"], ["--export", "csv", "--cutouts", "2"], ["--cutouts", "0"], ["--show"]):
        with pytest.raises(SystemExit) as stop:
            cli.parse(made, argv)
        assert stop.value.code == 2 and capsys.readouterr().err.count("\n") == 1
