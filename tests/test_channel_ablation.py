"""``channel_ablation.py`` as a user calls it: what it writes, that it repeats, and what it says when it cannot."""

import dataclasses
import json
import re
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from emlib.errors import UserError
from emlib.interpret.report import channel_analysis
from emlib.learn.models.build import build_model
from emlib.learn.models.checkpoint import load_checkpoint, save_checkpoint
from emlib.learn.normalisation import Normalisation
from emlib.threads import set_threads

ARCHITECTURE = {"name": "experts-paper", "organelles": ["membranes", "mitochondria"], "widths": [4, 6, 8]}
SIDE = 64


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Networks this small only wait for each other on several."""
    threads = torch.get_num_threads()
    set_threads(1)
    torch.set_num_threads(1)
    yield
    set_threads(None)
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def few_figures(request, monkeypatch):
    """They take longer than all else here; the tests of all that is written and of its bytes draw them."""
    if not any(word in request.node.name for word in ("figures", "bytes")):
        monkeypatch.setattr("emlib.interpret.report._draw", lambda *given: None)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A data set of two small sections, and an untrained network."""
    root = tmp_path_factory.mktemp("channels")
    rng = np.random.default_rng(0)
    for name in ("00", "03"):
        grey = rng.integers(0, 256, (SIDE, SIDE), np.uint8)
        masks = {"raw": grey, "membranes": (grey > 100) * 255, "mitochondria": (grey > 200) * 255}
        for folder, image in masks.items():
            path = root / "data" / "tiny" / "test" / folder
            path.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image.astype(np.uint8)).save(path / f"{name}.png")
    torch.manual_seed(0)
    kept = {"voxel_size_nm": None, "metrics": {}, "settings": {}}
    model = build_model(ARCHITECTURE)
    save_checkpoint(root / "model.pth", model, architecture=ARCHITECTURE, normalisation=Normalisation(), **kept)
    return root


def flags(place, out, *more):
    return (
        *("--data_root", place / "data", "--domain", "tiny", "--model_path", place / "model.pth", "--outdir", out),
        *("--patches", 2, "--patch_size", 32, "--points", 3, "--orders", 2, "--random_sets", 20, "--threads", 1, *more),
    )


def asked(place, out, **more):
    """The same call within this process."""
    small = {"patches": 2, "patch_size": 32, "points": 3, "orders": 2, "random_sets": 20, **more}
    where = {"data_root": place / "data", "domain": "tiny", "model_path": str(place / "model.pth"), "outdir": out}
    return channel_analysis(**{**where, **small})


def test_the_script_writes_tables_figures_and_a_summary(place, tmp_path, run_script):
    done = run_script(
        "channel_ablation.py", *flags(place, tmp_path, "--top_k", 5, "--device", "cuda", "--batch_size", 2)
    )
    assert done.returncode == 0, done.stderr
    if not torch.cuda.is_available():
        assert "warning: --device cuda" in done.stderr and "CPU" in done.stderr
    text = (tmp_path / "tables" / "channel_ablation_tiny.txt").read_text(encoding="utf-8")
    assert text.strip() in done.stdout
    assert "Sampled: 2 patches of 32 px" in text and "sections 00, 03 of tiny/test" in text
    assert "Channels are ranked on 1 patch (section 0" in text and "everything is judged on 1 patch (section 0" in text
    assert "top sets of 5 by gradient" in text and "share important channels" in text and "How to read this" in text
    importance = pd.read_csv(tmp_path / "tables" / "channel_importance_tiny.csv")
    assert importance.groupby("level")["channel"].nunique().tolist() == [4, 6, 8]
    deepest = importance[importance["level"] == 3]
    for name in ("ablation", "ablation_held_out"):
        assert deepest[name].notna().all() and importance[importance["level"] < 3][name].isna().all()
    assert (deepest.groupby("expert")["top"].sum() == 5).all()
    for expert, rows in deepest.groupby("expert"):
        assert rows.loc[rows["top"], "gradient"].min() >= rows.loc[~rows["top"], "gradient"].max(), expert
    effects = pd.read_csv(tmp_path / "tables" / "channel_set_ablation_tiny.csv")
    random = pd.read_csv(tmp_path / "tables" / "channel_random_sets_tiny.csv")
    assert set(effects["ablation"]) == {"zero", "mean"} and (random.groupby("draw").size() > 0).sum() >= 20
    row = effects.query("set == 'top' and of == 'membranes' and expert == 'membranes' and ablation == 'zero'")
    chance = random.query("size == 5 and ablation == 'zero' and expert == 'membranes'")
    drop = row[row["quantity"] == "drop"].iloc[0]
    assert drop["random_mean"] == pytest.approx(chance["drop"].mean(), rel=1e-4, abs=1e-7)
    record = json.loads((tmp_path / "tables" / "channel_ablation_tiny.json").read_text(encoding="utf-8"))
    assert record["top_k"] == 5 and len(record["model"]["sha256"]) == 64
    assert [len(record["patches"][use]) for use in ("ranking", "judging")] == [1, 1]
    for name in ("importance", "overlap", "ablation", "deletion"):
        for suffix in ("png", "pdf"):
            assert (tmp_path / "figures" / f"channel_{name}_tiny.{suffix}").stat().st_size > 3000


def test_equal_commands_give_equal_bytes(place, tmp_path):
    for name in ("one", "two"):
        asked(place, tmp_path / name, top_k=4, seed=3)
    files = [p.relative_to(tmp_path / "one") for p in (tmp_path / "one").rglob("*") if p.is_file()]
    assert len(files) > 15
    for file in files:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes(), file


def test_sections_and_levels_can_be_chosen(place, tmp_path):
    asked(place, tmp_path, sections=["03"], levels=[2], exact_all_levels=True, rank_by="ablation", quick=True)
    table = pd.read_csv(tmp_path / "tables" / "channel_importance_tiny.csv")
    assert sorted(set(table["level"])) == [2, 3] and table["ablation"].notna().all()
    record = json.loads((tmp_path / "tables" / "channel_ablation_tiny.json").read_text(encoding="utf-8"))
    patches = [patch for use in ("ranking", "judging") for patch in record["patches"][use]]
    assert {patch["section"] for patch in patches} == {"03"} and record["settings"]["rank_by"] == "ablation"
    assert len({(patch["y"], patch["x"]) for patch in patches}) == len(patches) == 2


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"top_k": 9}, "--top_k 9 is more than the 8 channels of the deepest level; the largest is 8"),
        ({"levels": [4]}, "--levels 4: the encoder has the levels 1 (shallowest) to 3"),
        ({"sections": ["07"]}, "no such section; it has 00, 03"),
        ({"random_sets": 5}, "--random_sets 5 cannot reach p ≤ 0.05; give 20 or more"),
        ({"patch_size": 8}, "the least is 16; mind --patch_size"),
        ({"split": "val"}, "has no val"),
    ],
)
def test_what_cannot_be_done_is_told(place, tmp_path, more, message):
    with pytest.raises(UserError, match=re.escape(message)):
        asked(place, tmp_path, **more)


@pytest.mark.slow
@pytest.mark.parametrize("quiet", [False, True])
def test_the_organelles_in_common_are_analysed(place, tmp_path, call_script, quiet):
    """A data set without one of the model's organelles, and with one that it does not know."""
    shutil.copytree(place / "data", tmp_path / "data")
    folder = tmp_path / "data" / "tiny" / "test"
    (folder / "membranes").rename(folder / "axons")
    more = ["--data_root", tmp_path / "data", *["--quiet"] * quiet]
    done = call_script("channel_ablation.py", *flags(place, tmp_path / "out", *more))
    assert done.returncode == 0, done.stderr
    assert "has membranes, mitochondria alone: axons" in done.stderr and "has no masks of it: membranes" in done.stderr
    assert "note:" not in done.stdout and (done.stdout == "") == quiet
    importance = pd.read_csv(tmp_path / "out" / "tables" / "channel_importance_tiny.csv")
    assert set(importance["expert"]) == {"mitochondria"}
    asked(place, tmp_path / "both")
    both = pd.read_csv(tmp_path / "both" / "tables" / "channel_importance_tiny.csv")
    assert set(both["expert"]) == {"membranes", "mitochondria"}
    record = json.loads((tmp_path / "out" / "tables" / "channel_ablation_tiny.json").read_text(encoding="utf-8"))
    assert list(record["dice"]) == record["organelles"] == ["mitochondria"]


def test_no_organelle_in_common_is_told_in_one_line(place, tmp_path, call_script):
    shutil.copytree(place / "data", tmp_path / "data")
    shutil.rmtree(tmp_path / "data" / "tiny" / "test" / "mitochondria")
    (tmp_path / "data" / "tiny" / "test" / "membranes").rename(tmp_path / "data" / "tiny" / "test" / "axons")
    done = call_script("channel_ablation.py", *flags(place, tmp_path / "out", "--data_root", tmp_path / "data"))
    assert done.returncode == 2 and "has membranes, mitochondria; the data set tiny has axons: use data" in done.stderr
    assert done.stderr.count("\n") == 1 and "Traceback" not in done.stderr


def test_notes_come_before_anything_is_computed(place, tmp_path, monkeypatch):
    shutil.copytree(place / "data", tmp_path / "data")
    for path in (tmp_path / "data/tiny/test/mitochondria").glob("*.png"):
        Image.fromarray(np.zeros((SIDE, SIDE), np.uint8)).save(path)
    notes = []

    def analysed(*args, **kwargs):
        assert any("all 2 masks are empty" in line for line in notes)
        raise KeyboardInterrupt

    monkeypatch.setattr("emlib.interpret.report.analyse", analysed)
    with pytest.raises(KeyboardInterrupt):
        asked(place, tmp_path / "out", data_root=tmp_path / "data", note=notes.append)


def test_one_patch_is_ranked_and_judged_on_and_that_is_told(place, tmp_path):
    notes = []
    lines = asked(place, tmp_path, patches=1, note=notes.append)
    text = " ".join(" ".join(lines).split())
    assert "There is one patch alone: channels are ranked and judged on it" in text
    assert any(line.startswith("warning: There is one patch alone") for line in notes)
    assert "Sampled: 1 patch of 32 px" in text and "as their exact ablation does" in text


def test_what_no_patch_shows_cannot_be_told(place, tmp_path):
    shutil.copytree(place / "data", tmp_path / "data")
    for path in (tmp_path / "data/tiny/test/mitochondria").glob("*.png"):
        Image.fromarray(np.zeros((SIDE, SIDE), np.uint8)).save(path)
    lines = asked(place, tmp_path / "out", data_root=tmp_path / "data", note=[].append)
    text = " ".join(" ".join(lines).split())
    assert "mitochondria –" in text and "there is none of it on these patches" in text
    claims = pd.read_csv(tmp_path / "out" / "tables" / "channel_claims_tiny.csv")
    unknown = claims["verdict"] == "cannot be told"
    assert unknown.any() and (claims.loc[unknown, "tests"] == 0).all() and (claims.loc[~unknown, "tests"] > 0).all()
    told, tests = int((~unknown).sum()), int(claims["tests"].sum())
    assert f"The {told} claims that can be told rest on {tests} tests" in text


def test_channels_of_a_network_without_experts_are_not_analysed(place, tmp_path, monkeypatch):
    class OneDecoder(torch.nn.Module):
        organelles, level_channels = ("membranes", "mitochondria"), (4, 8)

    def loaded(*args, **kwargs):
        return dataclasses.replace(load_checkpoint(*args, **kwargs), model=OneDecoder())

    monkeypatch.setattr("emlib.interpret.analysis.load_checkpoint", loaded)
    with pytest.raises(UserError, match="OneDecoder has one decoder for all organelles"):
        asked(place, tmp_path)
    OneDecoder.decode = None
    OneDecoder.activation = "softmax"
    with pytest.raises(UserError, match="classes of this network exclude each other"):
        asked(place, tmp_path)


def test_imported_weights_take_names(place, tmp_path):
    """Plain weights know no organelles; a checkpoint does, and other names for its experts are refused."""
    torch.save(load_checkpoint(place / "model.pth").model.state_dict(), tmp_path / "plain.pth")
    names = ["membranes", "mitochondria"]
    with pytest.raises(UserError, match="expert_0"):
        asked(place, tmp_path / "out", model_path=str(tmp_path / "plain.pth"))
    lines = asked(place, tmp_path / "out", model_path=str(tmp_path / "plain.pth"), organelles=names)
    assert any("membranes & mitochondria" in line for line in lines)
    with pytest.raises(UserError, match="names its experts itself: membranes, mitochondria; leave --organelles out"):
        asked(place, tmp_path / "out", organelles=names[::-1])


@pytest.mark.slow
@pytest.mark.parametrize("script", ["test.py", "channel_ablation.py"])
def test_a_missing_model_path_names_the_models_there(script, place, tmp_path, call_script):
    (tmp_path / "models").mkdir()
    shutil.copy(place / "model.pth", tmp_path / "models" / "mine.pth")
    done = call_script(script, "--data_root", place / "data", "--domain", "tiny", cwd=tmp_path)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "name a model with --model_path; there is " in done.stderr and "models/mine.pth" in done.stderr
