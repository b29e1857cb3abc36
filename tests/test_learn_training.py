"""The training loop: learning, resuming to the bit, schedules, averages, failures, two processes."""

import io
import itertools
import os
import signal
import subprocess
import sys
import textwrap
import time
import types
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from emlib.errors import UserError
from emlib.learn.datasets.domain import find_split
from emlib.learn.datasets.patches import PatchSettings
from emlib.learn.datasets.sections import open_sections
from emlib.learn.normalisation import Normalisation
from emlib.learn.presets import HEADS, PRESETS
from emlib.learn.training import device, flags, journal
from emlib.learn.training.averaging import MovingAverage
from emlib.learn.training.class_weights import loss_weights
from emlib.learn.training.failures import memory_told
from emlib.learn.training.loop import train
from emlib.learn.training.recipe import lr_warning, make_recipe, recipe_flags
from emlib.learn.training.schedule import lr_factor
from emlib.learn.training.settings import TrainPaths, TrainSettings
from emlib.learn.training.state import make_optimizer
from emlib.learn.training.validation import DomainScores, SectionScores, tiles_within
from emlib.publish.figure_training import figure_training
from emlib.publish.page import save_figure
from emlib.threads import get_threads, set_threads
from emlib.volumes.atomic import atomic_path

SETTINGS = TrainSettings(epochs=3, lr=0.05, ema=0.5, warmup=0.2, device="cpu", precision="32")
TIMES = ("patches_per_s", "seconds")


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    before, torch_before = get_threads(), torch.get_num_threads()
    set_threads(1)
    yield
    set_threads(before)
    torch.set_num_threads(torch_before)


@pytest.fixture(autouse=True)
def no_drawing(monkeypatch):
    """Curves take longer than all else here; the tests that look at them draw."""
    monkeypatch.setattr(journal, "save_figure", lambda figure, folder, name: [])


class Batches:
    """Learnable toy data: a pixel is foreground where it is positive; a pure function of epoch, step and rank."""

    def __init__(self, steps=4, size=4, rank=0, at_step=None):
        self.steps_per_epoch, self.size, self.rank, self.at_step = steps, size, rank, at_step or {}

    def batch(self, epoch, step):
        generator = torch.Generator().manual_seed(1000 * epoch + 10 * step + self.rank)
        inputs = torch.randn(self.size, 1, 8, 8, generator=generator)
        return inputs, (inputs > 0).float()

    def loader(self, epoch, first_step=0, workers=0, device=None):
        for step in range(first_step, self.steps_per_epoch):
            inputs, targets = self.batch(epoch, step)
            change = self.at_step.get((epoch, step))
            yield (change(inputs) if change else inputs), targets

    def describe(self, epoch, step):
        return f"toy section {epoch}-{step}"


def network(dropout=0.2):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout2d(dropout), nn.Conv2d(4, 1, 1)
    )


def iou(model):
    inputs, targets = Batches(size=8).batch(99, 0)
    with torch.no_grad():
        found = model(inputs) > 0
    both, either = (found & (targets > 0)).sum(), (found | (targets > 0)).sum()
    return {"iou": float(both / either), "iou/toy": float(both / either)}


def save(path, model, scores, training):
    content = {"weights": model.state_dict(), "scores": scores, "training": training}
    buffer = io.BytesIO()  # else the name of the temporary file is in it
    torch.save(content, buffer)
    with atomic_path(path) as temporary:
        temporary.write_bytes(buffer.getvalue())


def run(folder, settings=SETTINGS, batches=None, *, model=None, validate=iou, keep=save, resume=False, **more):
    paths = TrainPaths(Path(folder) / "model.pth")
    state = torch.load(paths.last, weights_only=True)["training"] if resume else None
    lines = []
    result = train(
        model or network(),
        batches or Batches(),
        validate,
        nn.BCEWithLogitsLoss(),
        settings,
        paths=paths,
        save=keep,
        resume=state,
        note=lines.append,
        progress=False,
        **more,
    )
    return result, paths, lines


def same(a, b):
    """Whether two trees of dicts, lists and tensors are equal to the bit; times apart."""
    if isinstance(a, dict):
        names = set(a) - {*TIMES, "elapsed_s", "tail_s"}
        return names == set(b) - {*TIMES, "elapsed_s", "tail_s"} and all(same(a[n], b[n]) for n in names)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


def test_training_learns_and_leaves_its_files(tmp_path, monkeypatch):
    monkeypatch.setattr(journal, "save_figure", save_figure)
    result, paths, lines = run(tmp_path, replace(SETTINGS, epochs=6))
    assert result.ended == "all epochs" and result.epochs == 6
    assert result.history[-1]["loss"] < 0.6 * result.history[0]["loss"]
    assert result.best["iou"] > 0.9
    assert {p.name for p in paths.folder.iterdir()} >= {"last.pth", "history.csv", "curves.png", "curves.pdf"}
    table = pd.read_csv(paths.folder / "history.csv")
    assert list(table["epoch"]) == [1, 2, 3, 4, 5, 6]
    assert table["iou"].max() == pytest.approx(result.best["iou"], abs=1e-5)
    assert len(lines) == 6 and lines[0].startswith("epoch 1/6  loss ") and "IoU" in lines[0] and "(toy " in lines[0]


def test_the_best_epoch_is_kept_with_averaged_weights(tmp_path):
    seen, scores = [], iter([0.3, 0.9, 0.5])

    def validate(model):
        seen.append({name: value.clone() for name, value in model.state_dict().items()})
        assert not model.training
        return {"iou": next(scores)}

    model = network()
    result, paths, _ = run(tmp_path, model=model, validate=validate)
    kept = torch.load(paths.best, weights_only=True)
    assert result.best["epoch"] == 2 and kept["scores"]["iou"] == 0.9
    assert same(kept["weights"], seen[1])
    assert not torch.equal(seen[2]["0.weight"], model.state_dict()["0.weight"]), "the average is not the weights"


@pytest.mark.parametrize("ema", (0.5, 0.0))
@pytest.mark.parametrize(("at", "number"), [((1, 1), signal.SIGINT), ((1, 3), signal.SIGTERM), ((0, 0), signal.SIGINT)])
def test_an_interrupted_training_ends_as_an_undisturbed_one(tmp_path, at, number, ema):
    """Weights, average, optimiser, history: equal to the bit, with dropout, wherever it was interrupted."""
    settings = replace(SETTINGS, ema=ema)
    _, whole, _ = run(tmp_path / "whole", settings)

    def interrupt(inputs):
        os.kill(os.getpid(), number)
        return inputs

    before = signal.getsignal(number)
    first, paths, _ = run(tmp_path / "parts", settings, Batches(at_step={at: interrupt}))
    assert signal.getsignal(number) == before
    assert first.interrupted and first.epochs == at[0]
    assert first.place == f"epoch {at[0] + 1} of 3, step {at[1] + 1} of 4"
    second, _, _ = run(tmp_path / "parts", settings, resume=True, model=network())
    assert second.ended == "all epochs"
    for name in ("best", "last"):
        ours, theirs = (torch.load(getattr(p, name), weights_only=True) for p in (paths, whole))
        assert same(ours, theirs)
    tables = [pd.read_csv(p.folder / "history.csv").drop(columns=list(TIMES)) for p in (paths, whole)]
    pd.testing.assert_frame_equal(*tables)


def test_the_comparison_sees_dropout(tmp_path):
    """Else the test above could not fail where the state of dropout is lost."""
    _, a, _ = run(tmp_path / "a")
    _, b, _ = run(tmp_path / "b", replace(SETTINGS, seed=1))
    _, c, _ = run(tmp_path / "c")
    loaded = [torch.load(p.last, weights_only=True) for p in (a, b, c)]
    assert not same(loaded[0], loaded[1]) and same(loaded[0], loaded[2])
    assert a.best.read_bytes() == c.best.read_bytes()


@pytest.mark.parametrize("ema", (0.5, 0.0))
def test_saving_within_an_epoch_changes_nothing(tmp_path, ema):
    _, a, _ = run(tmp_path / "a", replace(SETTINGS, ema=ema))
    _, b, _ = run(tmp_path / "b", replace(SETTINGS, ema=ema, save_min=0.0))
    assert same(*(torch.load(p.last, weights_only=True) for p in (a, b)))


def test_a_finished_training_resumes_only_for_more_epochs(tmp_path):
    run(tmp_path)
    again, _, lines = run(tmp_path, resume=True)
    assert again.ended == "all epochs" and again.epochs == 3 and not lines
    more, _, _ = run(tmp_path, replace(SETTINGS, epochs=5), resume=True)
    assert more.epochs == 5


def test_another_network_or_number_of_steps_cannot_be_resumed(tmp_path):
    run(tmp_path)
    with pytest.raises(UserError, match="another network or optimiser; give the flags"):
        run(tmp_path, model=nn.Conv2d(1, 1, 1), resume=True)
    with pytest.raises(UserError, match="had 4 steps in an epoch, this one 5"):
        run(tmp_path, batches=Batches(steps=5), resume=True)


def test_average_follows_its_definition():
    model, decay = network(), 0.9
    average = MovingAverage(model, decay)
    expected = {name: value.clone().double() for name, value in model.state_dict().items()}
    for update in range(12):
        with torch.no_grad():
            for value in model.state_dict().values():
                value.add_(torch.ones_like(value))
        average.update()
        kept = min(decay, (1 + update) / (10 + update))
        for name, value in model.state_dict().items():
            whole = not value.is_floating_point()
            expected[name] = value.double() if whole else kept * expected[name] + (1 - kept) * value.double()
    for name, value in average.model.state_dict().items():
        torch.testing.assert_close(value.double(), expected[name], atol=1e-5, rtol=1e-5)


def test_learning_rate_rises_then_falls_to_zero():
    factors = [lr_factor(step / 1000, 0.1, "cosine") for step in range(1001)]
    peak = factors.index(max(factors))
    assert peak == 100 and max(factors) == 1
    assert factors[:101] == sorted(factors[:101]) and factors[100:] == sorted(factors[100:], reverse=True)
    assert factors[-1] == pytest.approx(0, abs=1e-12) and factors[550] == pytest.approx(0.5)
    assert {lr_factor(step / 1000, 0.0, "constant") for step in range(1001)} == {1.0}


class FakeTime:
    """A clock that moves only when told to."""

    def __init__(self, monkeypatch):
        self.now = 1000.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)

    def passing(self, seconds, result):
        self.now += seconds
        return result


@pytest.mark.parametrize("steps", (3, 10_000))
def test_a_time_budget_holds_the_last_validation_and_anneals(tmp_path, monkeypatch, steps):
    """One second a step, five a validation, a budget of 60: with many short epochs and within a single long one."""
    clock = FakeTime(monkeypatch)
    ticks = dict.fromkeys(itertools.product(range(100), range(steps)), lambda inputs: clock.passing(1.0, inputs))
    settings = replace(SETTINGS, epochs=100, time_budget_min=1.0, save_min=1e9)
    result, _, _ = run(
        tmp_path, settings, Batches(steps=steps, size=1, at_step=ticks), validate=lambda m: clock.passing(5.0, iou(m))
    )
    took = clock.now - 1000
    assert result.ended == "time budget"
    assert 60 - 5 - 3 <= took <= 60 + 1.1, took
    assert result.history[-1]["lr"] < 0.1 * settings.lr
    assert result.epochs == (1 if steps == 10_000 else len(result.history))


def test_a_budget_counts_what_ran_before_the_interrupt(tmp_path, monkeypatch):
    clock = FakeTime(monkeypatch)
    ticks = dict.fromkeys(itertools.product(range(100), range(4)), lambda inputs: clock.passing(1.0, inputs))
    stop = {**ticks, (5, 0): lambda inputs: (os.kill(os.getpid(), signal.SIGTERM), clock.passing(1.0, inputs))[1]}
    settings = replace(SETTINGS, epochs=100, time_budget_min=1.0, save_min=1e9)
    run(tmp_path, settings, Batches(at_step=stop))
    before, clock.now = clock.now - 1000, 9000.0
    result, _, _ = run(tmp_path, settings, Batches(at_step=ticks), resume=True)
    assert result.ended == "time budget" and 55 <= before + clock.now - 9000 <= 61.1


def test_patience_ends_a_training_that_gets_no_better(tmp_path):
    scores = iter([0.2, 0.5, 0.4, 0.5, 0.3, 0.9])
    result, _, _ = run(tmp_path, replace(SETTINGS, epochs=6, patience=3), validate=lambda m: {"iou": next(scores)})
    assert result.ended == "patience" and result.epochs == 5 and result.best["epoch"] == 2


def test_the_optimizer_receives_clipped_gradients(tmp_path):
    norms = []

    def look(optimizer, *_):
        gradients = [p.grad.ravel() for group in optimizer.param_groups for p in group["params"]]
        norms.append(float(torch.linalg.vector_norm(torch.cat(gradients))))

    for clip in (1e-3, 0.0):
        hook = register_optimizer_step_pre_hook(look)
        try:
            run(tmp_path, replace(SETTINGS, clip=clip))
        finally:
            hook.remove()
    clipped, free = norms[: len(norms) // 2], norms[len(norms) // 2 :]
    assert len(clipped) == len(free) == 12
    assert max(clipped) <= 1e-3 * 1.001 and min(free) > 2e-3


def test_decay_spares_biases_and_normalisation():
    groups = make_optimizer(network(), SETTINGS).param_groups
    assert [g["weight_decay"] for g in groups] == [SETTINGS.weight_decay, 0.0]
    assert {p.ndim for p in groups[0]["params"]} == {4} and {p.ndim for p in groups[1]["params"]} == {1}


def test_a_loss_that_is_no_number_names_its_batch_and_spares_the_files(tmp_path):
    batches = Batches(at_step={(1, 2): lambda inputs: inputs * float("nan")})
    with pytest.raises(UserError, match=r"not finite in epoch 2, step 3 \(batch: toy section 1-2\)") as told:
        run(tmp_path, batches=batches)
    assert "\n" not in str(told.value)
    last = torch.load(tmp_path / "model" / "last.pth", weights_only=True)
    assert last["training"]["epoch"] == 1 and all(torch.isfinite(w).all() for w in last["weights"].values())


class Hungry(nn.Module):
    def __init__(self, error):
        super().__init__()
        self.layer, self.error = nn.Conv2d(1, 1, 1), error

    def forward(self, inputs):
        if self.error:
            raise self.error
        return self.layer(inputs) + torch.empty(2**60)


@pytest.mark.parametrize("error", (None, torch.OutOfMemoryError("CUDA out of memory. Tried …"), MemoryError()))
def test_memory_that_runs_out_names_the_flags(tmp_path, error):
    with pytest.raises(
        UserError, match="out of memory while training; use a smaller --batch_size, then a smaller --patch_size"
    ):
        run(tmp_path, model=Hungry(error))


def test_memory_that_runs_out_while_validating_names_flags_of_the_training(tiny_domain):
    held_out = open_sections(find_split(tiny_domain, "phantom", "val"))
    with pytest.raises(UserError, match=r"while validating; use a smaller --batch_size, then a smaller --patch_size$"):
        SectionScores(held_out, Normalisation())(Hungry(None))


class EmptyMasks:
    """Two sections; only some organelles have pixels."""

    def __init__(self, present):
        self.present, self.organelles = present, ("a", "b")
        self.split = type("Split", (), {"folder": Path("data/x/val")})

    def __len__(self):
        return 2

    def image(self, index):
        return np.zeros((32, 32), np.uint8)

    def masks(self, index):
        return np.stack([np.full((32, 32), here, np.uint8) for here in self.present])


def test_an_organelle_without_truth_stays_out_of_the_mean():
    """The network calls everything foreground: right for the one that is everywhere, unmeasurable for the other."""
    everything = torch.nn.Conv2d(1, 2, 1)
    torch.nn.init.constant_(everything.weight, 0)
    torch.nn.init.constant_(everything.bias, 9)
    scores = SectionScores(EmptyMasks((1, 0)), Normalisation())(everything)
    assert scores["iou"] == scores["iou/a"] == 1 and np.isnan(scores["iou/b"]) and np.isnan(scores["dice/b"])
    with pytest.raises(UserError, match="data/x/val: all masks are empty"):
        SectionScores(EmptyMasks((0, 0)), Normalisation())(everything)


class FewMasks:
    """Sections of random masks, some of them not annotated, and a network whose output is in the image."""

    def __init__(self, domain, organelles, own, exclusive, seed):
        rng = np.random.default_rng(seed)
        shape = (2, len(organelles), 32, 32)
        classes = np.eye(shape[1], dtype=np.uint8)[rng.integers(0, shape[1], (2, 32, 32))].transpose(0, 3, 1, 2)
        self.stack = classes if exclusive else (rng.random(shape) < 0.4).astype(np.uint8)
        self.stack[:, :, :4] = 255
        self.stack[:, [name not in own for name in organelles]] = 255
        self.organelles = tuple(organelles)
        self.split = types.SimpleNamespace(folder=Path("data/x/val"), domain=domain, organelles=own)
        self.grey = rng.integers(0, 256, (2, 32, 32), dtype=np.uint8)

    def __len__(self):
        return 2

    def image(self, index):
        return self.grey[index]

    def masks(self, index):
        return self.stack[index]


class Linear(nn.Module):
    def __init__(self, activation, count):
        super().__init__()
        self.activation, self.count, self.weight = activation, count, nn.Parameter(torch.zeros(1))

    def forward(self, x):
        return torch.cat([(x * (k + 2) * 7 % 1) * 4 - 2 for k in range(self.count)], 1) + self.weight


@pytest.mark.parametrize("activation", ("sigmoid", "softmax"))
def test_scores_of_annotated_pixels_follow_their_definitions(activation):
    names, network = ("background", "b", "c"), Linear(activation, 3)
    sections = FewMasks("x", names, names, activation == "softmax", 0)
    scores = SectionScores(sections, Normalisation())(network)
    with torch.no_grad():
        logits = network(torch.from_numpy(sections.grey[:, None] / np.float32(255))).numpy()
    found = logits >= 0 if activation == "sigmoid" else logits.argmax(1)[:, None] == np.arange(3)[None, :, None, None]
    truth, known = sections.stack == 1, sections.stack != 255
    iou = [
        (truth[:, k] & found[:, k] & known[:, k]).sum() / ((truth[:, k] | found[:, k]) & known[:, k]).sum()
        for k in range(3)
    ]
    scored = range(1, 3) if activation == "softmax" else range(3)
    assert [scores[f"iou/{names[k]}"] for k in scored] == pytest.approx([iou[k] for k in scored])
    assert scores["iou"] == pytest.approx(np.mean([iou[k] for k in scored])) and scores["f1"] == scores["dice"]
    assert scores["dice"] == pytest.approx(np.mean([2 * iou[k] / (1 + iou[k]) for k in scored]))
    right = (
        (truth == found)[known].mean() if activation == "sigmoid" else (truth & found & known).sum() / known[:, 0].sum()
    )
    assert scores["accuracy"] == pytest.approx(right) and ("iou/background" in scores) == (activation == "sigmoid")


def test_several_data_sets_count_alike_and_lack_what_they_lack():
    one, two = FewMasks("one", ("a", "b"), ("a", "b"), False, 0), FewMasks("two", ("a", "b"), ("b",), False, 1)
    parts, network = [SectionScores(each, Normalisation()) for each in (one, two)], Linear("sigmoid", 2)
    alone, together = [part(network) for part in parts], DomainScores(parts)(network)
    assert {name for name in together if name.startswith("iou/")} == {"iou/one/a", "iou/one/b", "iou/two/b"}
    assert together["iou/two/b"] == alone[1]["iou"] == alone[1]["iou/b"]
    for measure in ("iou", "dice", "f1", "accuracy"):
        assert together[measure] == pytest.approx((alone[0][measure] + alone[1][measure]) / 2)
    assert DomainScores(parts[:1])(network) == alone[0]


def test_weights_of_classes():
    assert loss_weights("auto", np.array([0.25, 0.01]), ("a", "b"), "sigmoid") == [0.3333, 1.6667]
    assert loss_weights(None, np.ones(2), ("a", "b"), "sigmoid") is None
    with pytest.raises(UserError, match="3 numbers for 2 classes; give one for each of background, a, in this order"):
        loss_weights((1, 2, 3), np.ones(2), ("background", "a"), "softmax")


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"backbone": "resnet18"}, "--backbone resnet18 goes with --head unet"),
        ({"weights": "imagenet"}, "--weights imagenet goes with --head"),
        ({"head": "upnet"}, "no head 'upnet'; did you mean unet or upernet"),
        ({"class_weights": ["auto", "1"]}, "--class_weights auto 1: give auto, or a number above 0"),
        ({"class_weights": ["0"]}, "--class_weights 0: give auto"),
    ],
    ids=str,
)
def test_flags_that_cannot_be_are_told(flags, said):
    with pytest.raises(UserError, match=said):
        make_recipe("laptop", flags)


def test_a_rate_far_from_the_preset_is_told():
    assert lr_warning("laptop", make_recipe("laptop", {"lr": 1e-4})).startswith(
        "--lr 0.0001 is 30 times below the 0.003"
    )
    assert lr_warning("laptop", make_recipe("laptop", {"lr": 1e-4, "head": "unet"})) is None
    assert "1e+04 times above" in lr_warning("paper", make_recipe("paper", {"lr": 1.0}))
    assert lr_warning("paper", make_recipe("paper", {})) is None


@pytest.mark.parametrize(("size", "batch", "expected"), [(256, 8, (1024, 1)), (256, 2, (512, 1)), (64, 2, (512, 1))])
def test_smaller_batches_are_validated_in_smaller_tiles(size, batch, expected):
    tiles = tiles_within(PatchSettings(size=size, batch_size=batch))
    assert (tiles.tile, tiles.batch_size) == expected


def test_other_errors_are_not_taken_for_memory():
    with pytest.raises(RuntimeError, match="shape"), memory_told("training"):
        raise RuntimeError("shape mismatch")


def test_a_full_disk_spares_the_old_checkpoint(tmp_path):
    """The limit of a file's size stands in for the end of the disk; the writer sees the same kind of error."""
    resource = pytest.importorskip("resource")
    _, paths, _ = run(tmp_path)
    old = paths.best.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def full(path, model, scores, training):
        resource.setrlimit(resource.RLIMIT_FSIZE, (1024, hard))
        try:
            with atomic_path(path) as temporary:
                temporary.write_bytes(bytes(4096))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    with pytest.raises(UserError, match=r"cannot write .*model\.pth"):
        run(tmp_path, keep=full)
    assert paths.best.read_bytes() == old
    assert not [p for p in tmp_path.rglob("*.tmp*")]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is CUDA here")
def test_cuda_that_is_not_there_warns_and_gives_the_cpu():
    lines = []
    assert device.resolve_device("cuda", lines.append) == "cpu"
    assert len(lines) == 1 and lines[0].startswith("warning: --device cuda") and lines[0].endswith("the CPU is used")


@pytest.mark.parametrize(
    ("bf16", "amx", "chosen"), [(True, False, "bf16"), (False, True, "bf16"), (False, False, "32")]
)
def test_precision_follows_the_processor(monkeypatch, bf16, amx, chosen):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: bf16)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    lines = []
    assert device.resolve_precision("auto", "cpu", lines.append) == chosen
    assert device.resolve_precision("bf16", "cpu", lines.append) == "bf16"
    assert len(lines) == (chosen == "32")


def test_bf16_and_channels_last_train_too(tmp_path):
    settings = replace(SETTINGS, precision="bf16", channels_last=True)
    seen = []
    model = network()
    model[0].register_forward_hook(lambda layer, inputs, output: seen.append(output))
    result, paths, _ = run(tmp_path, settings, model=model)
    assert seen[0].dtype == torch.bfloat16 and seen[0].is_contiguous(memory_format=torch.channels_last)
    assert result.history[-1]["loss"] < result.history[0]["loss"]
    assert torch.load(paths.best, weights_only=True)["weights"]["0.weight"].dtype == torch.float32


@pytest.mark.parametrize(
    "wrong", ({"device": "tpu"}, {"ema": 1.0}, {"epochs": 0}, {"warmup": -0.1}, {"schedule": "steps"}), ids=str
)
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        TrainSettings(**wrong)


@pytest.mark.parametrize("preset", ("laptop", "paper"))
def test_flags_say_the_whole_recipe(preset):
    changed = make_recipe(preset, {"lr": 0.5, "no_ema": True, "stride": 7, "memory_format": "channels_last"})
    assert changed.training.lr == 0.5 and changed.training.ema == 0 and changed.patches.stride == 7
    assert changed.training.channels_last is True
    assert make_recipe(preset, recipe_flags(changed)) == changed
    more = {"head": "experts", "weights": "w.pth", "class_weights": ["2", "1"], "domain_weights": [1.0, 2.0]}
    headed = make_recipe(preset, more)
    assert headed.architecture == {"name": "experts-backbone", "backbone": "resnet18"} and headed.loss == "ce+dice"
    assert headed.class_weights == (2.0, 1.0) and headed.patches.domain_weights == (1.0, 2.0)
    assert make_recipe(preset, recipe_flags(headed)) == headed
    assert set(flags.HEADS) == set(HEADS) and set(flags.PRESETS) == set(PRESETS), "flags load no PyTorch to know them"


def test_tensorboard_gets_every_number_of_an_epoch(tmp_path, monkeypatch):
    rows = []

    class Writer:
        def __init__(self, folder, purge_step):
            rows.append((Path(folder).name, purge_step))

        def add_scalar(self, name, value, epoch):
            rows.append((name, value, epoch))

        def flush(self):
            pass

        close = flush

    monkeypatch.setattr(journal.importlib.util, "find_spec", lambda name: name == "tensorboard")
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", types.SimpleNamespace(SummaryWriter=Writer))
    result, _, _ = run(tmp_path)
    assert rows[0] == ("tensorboard", 1)
    assert [value for name, value, _ in rows[1:] if name == "iou"] == [row["iou"] for row in result.history]


def test_curves_show_the_history():
    epochs = range(1, 61)
    table = pd.DataFrame(
        {"epoch": e, "loss": 2 / e, "iou": e / 100, "iou/a": e / 90, "iou/b": (e - 50) ** 2 / 9999} for e in epochs
    )
    loss, iou_axes = figure_training(table, "toy").axes
    assert list(loss.lines[0].get_ydata()) == list(table["loss"])
    drawn = {line.get_label(): line for line in iou_axes.lines}
    assert list(drawn) == ["a", "b", "mean", "best epoch"]
    assert list(drawn["b"].get_ydata()) == list(table["iou/b"])
    assert drawn["best epoch"].get_xdata()[0] == 60


def test_curves_of_many_classes_and_of_several_data_sets_can_be_told_apart():
    def drawn(names):
        table = pd.DataFrame({"epoch": e, "loss": 1.0, "iou": 0.5, **dict.fromkeys(names, 0.5)} for e in (1, 2))
        axes = figure_training(table, "toy").axes[1]
        styles = {line.get_label(): (line.get_color(), line.get_linestyle()) for line in axes.lines}
        return styles, [text.get_text() for text in axes.get_legend().get_texts()]

    styles, legend = drawn([f"iou/class {i}" for i in range(24)])
    assert len(set(styles.values())) == len(styles) == 26 and legend[:2] == ["class 0", "class 1"]
    styles, legend = drawn([f"iou/{domain}/{name}" for domain in ("x", "y") for name in ("a", "b", "c")])
    assert legend == ["a", "b", "c", "x", "y", "mean", "best epoch"]
    assert (
        styles["x/a"][0] == styles["y/a"][0] != styles["x/b"][0]
        and styles["x/a"][1] == styles["x/b"][1] != styles["y/a"][1]
    )


TWO = """
import torch
from test_learn_training import SETTINGS, Batches, TrainPaths, iou, replace, save
from torch import nn
from emlib.learn.training.device import start_fabric
from emlib.learn.training.loop import train
from emlib.threads import set_threads
from pathlib import Path

set_threads(1)
settings = replace(SETTINGS, devices=2, epochs=2, clip=0.0)
fabric = start_fabric(settings)
torch.manual_seed(0)
model = nn.Conv2d(1, 1, 3, padding=1)
folder = Path({folder!r})
result = train(
    model, Batches(rank=fabric.global_rank), iou, nn.BCEWithLogitsLoss(), settings,
    paths=TrainPaths(folder / "model.pth"), save=save, fabric=fabric,
)
losses = [row["loss"] for row in result.history]
torch.save([model.state_dict(), Batches(rank=fabric.global_rank).batch(0, 0)[0], losses],
           folder / f"rank{{fabric.global_rank}}.pth")
"""


@pytest.mark.slow
def test_two_processes_train_as_one_with_both_batches(tmp_path):
    script = tmp_path / "two.py"
    script.write_text(textwrap.dedent(TWO.format(folder=str(tmp_path))))
    here = Path(__file__).resolve().parent
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(here), str(here.parent)])}
    done = subprocess.run([sys.executable, str(script)], env=env, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("epoch 1/2") == 1, "the first process alone speaks"
    (ours, inputs, losses), (theirs, others, other_losses) = (
        torch.load(tmp_path / f"rank{rank}.pth", weights_only=True) for rank in (0, 1)
    )
    assert same(ours, theirs) and losses == other_losses and len(losses) == 2
    assert not torch.equal(inputs, others)

    class Both(Batches):
        def batch(self, epoch, step):
            pairs = [Batches(rank=rank).batch(epoch, step) for rank in (0, 1)]
            return tuple(torch.cat(parts) for parts in zip(*pairs, strict=True))

    torch.manual_seed(0)
    model = nn.Conv2d(1, 1, 3, padding=1)
    one, _, _ = run(tmp_path / "one", replace(SETTINGS, epochs=2, clip=0.0), Both(), model=model)
    assert losses == pytest.approx([row["loss"] for row in one.history], rel=1e-5), "the mean over both processes"
    torch.testing.assert_close(model.state_dict(), ours, atol=1e-5, rtol=1e-4)
