"""The layout keeps its promises: imports only go down, scripts stay thin, the classical path stays light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
# From the ground floor up; a module may import from its own floor and from those before it.
FLOORS = [
    *("errors", "threads", "volumes", "runs", "measure", "publish", "annotations"),
    *("evaluation", "learn", "stages", "interpret", "proofread", "view", "refine", "blockwise", "pipeline"),
]
SCRIPTS = sorted(path.name for path in ROOT.glob("*.py"))
HEAVY = ("torch", "napari", "PySide6", "timm")


def floor_of(module: str) -> int | None:
    """Index of the floor that ``emlib.<floor>...`` names; None for the package itself."""
    parts = module.split(".")
    return FLOORS.index(parts[1]) if len(parts) > 1 and parts[1] in FLOORS else None


def imports(path: Path):
    """Yield (module, whether it is imported when the file is loaded) for each import that runs."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typing_only = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and "TYPE_CHECKING" in ast.dump(block.test)
        for node in ast.walk(block)
    }
    inside = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef))
        for node in ast.walk(function)
    }
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, id(node) not in inside
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module, id(node) not in inside


@pytest.mark.parametrize("path", sorted((ROOT / "emlib").rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_only_go_down(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    here = floor_of(".".join(parts))
    if here is None:
        pytest.skip("the package's own front door")
    for module, _ in imports(path):
        if module.startswith("emlib."):
            assert floor_of(module) is not None, f"{module} stands on no floor of FLOORS"
            assert floor_of(module) <= here, f"{path.name} ({FLOORS[here]}) imports {module} from a floor above"


def test_the_import_check_sees_a_wrong_import(tmp_path):
    bad = tmp_path / "bad.py"
    bad.write_text("def f():\n    from emlib.pipeline import run_pipeline\n")
    assert list(imports(bad)) == [("emlib.pipeline", False)]


def test_every_floor_exists():
    for floor in FLOORS:
        assert (ROOT / "emlib" / floor).is_dir() or (ROOT / "emlib" / f"{floor}.py").is_file()


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_import_no_script(script):
    names = {module.split(".")[0] for module, _ in imports(ROOT / script)}
    assert not names & {Path(other).stem for other in SCRIPTS}


def test_the_classical_path_never_loads_torch():
    code = f"import sys, emlib.pipeline, emlib.publish.run_report; print([m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_loads_nothing_heavy(script):
    """Start-up of --help stays instant because scripts import the heavy parts after parsing."""
    code = (
        "import runpy, sys; sys.argv = ['x', '--help']\n"
        f"try:\n    runpy.run_path({str(ROOT / script)!r}, run_name='__main__')\n"
        "except SystemExit:\n    pass\n"
        "print('LOADED', [m for m in ('numpy', 'scipy', 'pandas', 'matplotlib', 'torch') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip().endswith("LOADED []")
