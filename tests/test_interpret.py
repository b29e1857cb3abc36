"""Channel importance, overlap and ablation against networks whose truth is known, and against brute force."""

from itertools import combinations, product

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.text import Text

from emlib.errors import UserError
from emlib.interpret.ablation import Probe, single_channels
from emlib.interpret.agreement import agreement_table, spearman
from emlib.interpret.analysis import AnalysisSettings, analyse
from emlib.interpret.claims import Claim, deletion_claims, measure_claims, overlap_claims, set_claims
from emlib.interpret.controls import ablate_sets, compare, random_orders
from emlib.interpret.deletion import area, deletion_areas, deletion_curves, deletion_steps
from emlib.interpret.experts import ChosenExperts
from emlib.interpret.halves import Halves, split_patches
from emlib.interpret.importance import gradient_importance
from emlib.interpret.overlap import (
    ChannelSet,
    channel_sets,
    intersection_chances,
    overlap_table,
    specific_chances,
    top_channels,
)
from emlib.interpret.sampling import Sample, balanced_choice, sample_patches
from emlib.interpret.summary import summary_text
from emlib.learn.normalisation import Normalisation
from emlib.measure.masks.pixels import pixel_counts, pixel_scores
from emlib.publish.figure_overlap import overlap_figure


class HandBuilt(torch.nn.Module):
    """One level of shifted copies of the image, and linear experts with weights given: everything can be worked out."""

    def __init__(self, weights, organelles=("a", "b"), bias=0.0):
        super().__init__()
        self.weights = torch.tensor(weights, dtype=torch.float32)
        self.bias, self.organelles = bias, organelles
        self.level_channels = (1, self.weights.shape[1])

    def encode(self, x, edit=None):
        edit = edit or (lambda level, t: t)
        first = edit(0, x)
        return [first, edit(1, torch.cat([first.roll(c, dims=3) for c in range(self.level_channels[1])], dim=1))]

    def decode(self, features, experts=None):
        weights = self.weights if experts is None else self.weights[list(experts)]
        return torch.einsum("bcyx,ec->beyx", features[1], weights) + self.bias


class Random(torch.nn.Module):
    """A random encoder of two levels with random experts that know nothing of each other."""

    def __init__(self, experts=3, channels=12, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.organelles = tuple("abcdefgh"[:experts])
        self.level_channels = (4, channels)
        self.one = torch.nn.Conv2d(1, 4, 3, padding=1)
        self.two = torch.nn.Conv2d(4, channels, 3, padding=1)
        self.heads = torch.nn.ModuleList(
            torch.nn.Sequential(torch.nn.Conv2d(channels + 4, 8, 1), torch.nn.ReLU(), torch.nn.Conv2d(8, 1, 1))
            for _ in range(experts)
        )

    def encode(self, x, edit=None):
        edit = edit or (lambda level, t: t)
        first = edit(0, torch.nn.functional.softplus(self.one(x)))
        return [first, edit(1, torch.nn.functional.softplus(self.two(torch.nn.functional.max_pool2d(first, 2))))]

    def decode(self, features, experts=None):
        up = torch.nn.functional.interpolate(features[1], scale_factor=2.0)
        joined = torch.cat([features[0], up], dim=1)
        return torch.cat([self.heads[e](joined) for e in experts or range(len(self.heads))], dim=1)


def sample(model, patches=3, side=16, seed=0, masks=None):
    rng = np.random.default_rng(seed)
    images = rng.normal(size=(patches, 1, side, side)).astype(np.float32)
    if masks is None:
        with torch.inference_mode():
            masks = (model.decode(model.encode(torch.from_numpy(images))) >= 0).numpy().astype(np.uint8)
    places = tuple(("00", 0, side * i) for i in range(patches))
    return Sample(images, masks, places, tuple(model.organelles))


TRUTH = [[2.0, -1.0, *[0.0] * 10], [0.0, 1.0, -3.0, *[0.0] * 9]]  # a needs {0, 1}, b needs {1, 2}


def test_the_gradient_of_a_linear_expert_is_its_weights():
    model = HandBuilt(TRUTH)
    drawn = sample(model)
    found = gradient_importance(model, drawn.images, batch_size=2)
    assert found["gradient"][1] == pytest.approx(np.abs(TRUTH))
    means = np.abs([np.mean(image) for image in drawn.images])
    assert found["gradient_x_activation"][1] == pytest.approx(np.abs(TRUTH) * means.mean(), abs=1e-6)
    assert found["gradient"][0][:, 0] == pytest.approx([1.0, 2.0])  # the first level feeds all: the sum of the weights


def test_gradients_leave_the_network_as_it_was():
    model = Random()
    before = [p.requires_grad for p in model.parameters()]
    gradient_importance(model, sample(model).images)
    assert [p.requires_grad for p in model.parameters()] == before and all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_importance_and_ablation_do_not_depend_on_the_batch(batch_size):
    model = Random()
    drawn = sample(model, patches=5)
    expected, found = (gradient_importance(model, drawn.images, batch_size=b) for b in (5, batch_size))
    for name in expected:
        for a, b in zip(expected[name], found[name], strict=True):
            assert a == pytest.approx(b, rel=1e-4)
    a, b = (single_channels(Probe(model, drawn, batch_size=n)) for n in (5, batch_size))
    assert a["ablation"] == pytest.approx(b["ablation"], rel=1e-4, abs=1e-7)


def test_gradients_equal_finite_differences():
    """Of the summed logits, channel by channel, on a network in double precision."""
    model = Random(experts=2, channels=3).double()
    image = torch.from_numpy(np.random.default_rng(1).normal(size=(1, 1, 6, 6)))
    found = gradient_importance(model, image.numpy())["gradient"]
    step = 1e-6
    for level, side in ((0, 6), (1, 3)):
        slopes = np.zeros((2, model.level_channels[level], side, side))
        for c, y, x in np.ndindex(slopes.shape[1:]):
            totals = []
            for sign in (1, -1):

                def nudge(at, t, sign=sign, level=level, where=(c, y, x)):
                    if at == level:
                        t = t.clone()
                        t[0, where[0], where[1], where[2]] += sign * step
                    return t

                with torch.no_grad():
                    totals.append(model.decode(model.encode(image, nudge)).sum((0, 2, 3)).numpy())
            slopes[:, c, y, x] = (totals[0] - totals[1]) / (2 * step)
        assert found[level] == pytest.approx(np.abs(slopes).mean((2, 3)), abs=1e-4)


@pytest.mark.parametrize("level", [0, 1])
@pytest.mark.parametrize("kind", ["zero", "mean"])
def test_ablation_equals_its_definition(level, kind):
    model, channels = Random(), [1, 3]
    rng = np.random.default_rng(2)
    drawn = sample(model, masks=rng.integers(0, 2, (3, 3, 16, 16)).astype(np.uint8))
    found = Probe(model, drawn, batch_size=2).without(channels, kind=kind, level=level, experts=[2, 0])
    images = torch.from_numpy(drawn.images)
    with torch.inference_mode():
        clean = model.encode(images)[level]
        value = clean.mean((0, 2, 3), keepdim=True) if kind == "mean" else torch.zeros_like(clean)

        def edit(at, t):
            mask = torch.zeros(1, t.shape[1], 1, 1, dtype=bool)
            mask[:, channels] = True
            return torch.where(mask, value, t) if at == level else t

        before, after = model.decode(model.encode(images)).numpy(), model.decode(model.encode(images, edit)).numpy()
    for place, expert in enumerate([2, 0]):
        counts = pixel_counts(drawn.masks[:, expert] > 0, after[:, expert] >= 0)
        assert found.dice[place] == pytest.approx(pixel_scores(counts)["dice"])
        assert found.change[place] == pytest.approx(np.abs(after - before)[:, expert].mean(), rel=1e-4)
        assert found.change[place] > 0


def test_a_known_network_is_read_correctly():
    """Expert a needs channels 0 and 1, b needs 1 and 2: every measure, set and verdict must say so."""
    model = HandBuilt(TRUTH, bias=-0.5)
    drawn = sample(model, patches=4)
    probe = Probe(model, drawn)
    assert probe.baseline.dice == pytest.approx([1, 1])
    exact = single_channels(probe)
    found = {"gradient": gradient_importance(model, drawn.images)["gradient"][1], **exact}
    for measure in ("gradient", "ablation", "ablation_dice"):
        for e, used in enumerate([{0, 1}, {1, 2}]):
            assert set(np.flatnonzero(found[measure][e] > 1e-9)) == used
    top = top_channels(found["ablation"], 2)
    sets = {(one.kind, one.of): one.channels for one in channel_sets(top, model.organelles)}
    assert sets == {
        ("top", "a"): (0, 1),
        ("top", "b"): (1, 2),
        ("shared", "all"): (1,),
        ("specific", "a"): (0,),
        ("specific", "b"): (2,),
    }
    effects, random = ablate_sets(probe, channel_sets(top, model.organelles), random_orders(12, 60, 0))
    own = effects[(effects["set"] == "specific") & (effects["quantity"] == "selectivity")]
    assert (own.loc[own["of"] == own["expert"], "value"] > 0.1).all()
    assert (own.loc[own["of"] != own["expert"], "value"] < -0.1).all()
    other = effects[(effects["of"] == "b") & (effects["set"] == "specific") & (effects["expert"] == "a")]
    assert (other.loc[other["quantity"].isin(["drop", "change"]), "value"].abs() < 1e-6).all()
    claims = set_claims(effects, {"a": 1.0, "b": 1.0}, ("a", "b"))
    verdicts = {claim.text: claim.verdict for claim in claims}
    for name in ("a", "b"):  # of 66 sets of two, none but the right one takes all of an expert
        assert verdicts[f"The top 2 channels of {name} matter to it more than random ones"] == "survives"
    assert len(random) == 2 * 2 * 60 * 2  # kinds, sizes, draws, experts


def test_random_sets_of_one_size_are_all_as_good_as_the_set_of_all():
    model = HandBuilt(TRUTH)
    probe = Probe(model, sample(model))
    effects, _ = ablate_sets(probe, channel_sets(top_channels(np.abs(TRUTH), 12), ("a", "b")), random_orders(12, 20, 0))
    assert effects["z"].isna().all() and (effects["p"] == 1).all()
    assert {claim.verdict for claim in set_claims(effects, {"a": 1.0, "b": 1.0}, ("a", "b"))} == {"cannot be told"}


def subsets(n, k):
    return [frozenset(s) for s in combinations(range(n), k)]


@pytest.mark.parametrize(("n", "k", "sets"), [(5, 2, 2), (6, 3, 3), (5, 3, 3), (4, 2, 4), (4, 4, 2), (5, 1, 3)])
def test_chances_equal_brute_force(n, k, sets):
    """Count all tuples of subsets."""
    shared, alone = np.zeros(k + 1), np.zeros(k + 1)
    for drawn in product(subsets(n, k), repeat=sets):
        shared[len(frozenset.intersection(*drawn))] += 1
        alone[len(drawn[0] - frozenset.union(*drawn[1:]))] += 1
    assert intersection_chances(n, k, sets) == pytest.approx(shared / shared.sum(), abs=1e-12)
    assert specific_chances(n, k, sets) == pytest.approx(alone / alone.sum(), abs=1e-12)


@pytest.mark.parametrize(("n", "k"), [(256, 100), (160, 100), (512, 30)])
def test_pairs_follow_the_hypergeometric_distribution(n, k):
    from scipy.stats import hypergeom

    assert intersection_chances(n, k, 2) == pytest.approx(hypergeom(n, k, k).pmf(np.arange(k + 1)), abs=1e-12)


def test_the_published_overlap_is_what_chance_gives():
    """14 of 100 channels out of 256 in common to three experts, against 15.3 ± 3.2."""
    one, two = np.arange(100), np.arange(61, 161)
    top = np.stack([one, two, np.r_[np.arange(61, 75), np.arange(161, 247)]])
    row = overlap_table(top, 256, ("a", "b", "c")).query("experts == 'a & b & c'").iloc[0]
    assert row["observed"] == 14 and overlap_claims(row.to_frame().T)[0].verdict == "does not survive"
    chances = intersection_chances(256, 100, 3)
    sizes = np.arange(101)
    mean = sizes @ chances
    assert mean == pytest.approx(100**3 / 256**2)
    assert (sizes**2 @ chances - mean**2) ** 0.5 == pytest.approx(3.2, abs=0.05)
    assert 0.6 < chances[14:].sum() < 0.75 and 0.3 < chances[:15].sum() < 0.5
    rng = np.random.default_rng(0)
    drawn = [[set(rng.choice(256, 100, replace=False).tolist()) for _ in range(3)] for _ in range(1000)]
    draws = [len(set.intersection(*three)) for three in drawn]
    assert np.mean(draws) == pytest.approx(mean, abs=0.4) and np.std(draws) == pytest.approx(3.2, abs=0.3)


def test_equal_and_disjoint_sets_are_told_from_chance():
    equal = overlap_table(np.array([np.arange(10), np.arange(10)]), 40, ("a", "b"))
    apart = overlap_table(np.array([np.arange(10), np.arange(10, 20)]), 40, ("a", "b"))
    assert equal.iloc[0]["p_more"] < 1e-6 and apart.iloc[0]["p_less"] < 0.1
    assert [claim.verdict for claim in overlap_claims(equal)] == ["survives", "does not survive", "does not survive"]
    whole = overlap_table(np.array([np.arange(4), np.arange(4)]), 4, ("a", "b"))
    assert overlap_claims(whole)[0].verdict == "cannot be told"


def test_overlaps_of_random_networks_look_random():
    """Experts with weights of their own have nothing in common: p-values are as often small as they should be."""
    low, high = [], []
    for seed in range(80):
        model = Random(channels=24, seed=seed)
        drawn = np.random.default_rng(seed).normal(size=(1, 1, 8, 8)).astype(np.float32)
        top = top_channels(gradient_importance(model, drawn)["gradient"][1], 10)
        row = overlap_table(top, 24, model.organelles).query("sets == 2 and experts == 'a & b'").iloc[0]
        low.append(row["p_less"])
        high.append(row["p_more"])
    chances = intersection_chances(24, 10, 2)
    size = chances[np.cumsum(chances[::-1])[::-1] <= 0.05].sum()  # what a discrete test reaches
    assert np.mean(np.array(high) <= 0.05) <= size + 3 * (size / 80) ** 0.5
    middle = (np.array(high) + 1 - np.array(low)) / 2  # mid-p is uniform in the mean
    assert middle.mean() == pytest.approx(0.5, abs=4 * 12**-0.5 / 80**0.5)
    assert 0.2 < middle.std() < 0.36


def test_top_channels_break_ties_by_index_and_name_the_largest_k():
    assert top_channels(np.array([[1.0, 1.0, 1.0]]), 2).tolist() == [[0, 1]]
    with pytest.raises(UserError, match=r"--top_k 9 is more than the 3 channels .*; the largest is 3"):
        top_channels(np.ones((1, 3)), 9)


def test_compare_counts_random_sets():
    random = np.arange(20.0)
    assert compare(100.0, random)["p"] == pytest.approx(1 / 21)
    assert compare(-1.0, random)["p"] == 1
    found = compare(random.mean() + 2 * random.std(ddof=1), random)
    assert found["z"] == pytest.approx(2)
    assert (found["random_low"], found["random_high"]) == pytest.approx((0.475, 18.525))


def test_random_orders_are_orders_and_do_not_change_with_their_number():
    few, many = random_orders(30, 3, 7), random_orders(30, 9, 7)
    assert (few == many[:3]).all() and (np.sort(many, axis=1) == np.arange(30)).all()
    assert not (random_orders(30, 3, 8) == few).all()


def test_areas_equal_a_computation_by_hand():
    assert area(np.array([0, 1, 4]), np.array([1.0, 0.6, 0.2])) == pytest.approx((0.8 * 1 + 0.4 * 3) / 4)
    curves = pd.DataFrame(
        [
            ("a", measure, direction, removed, dice)
            for measure, direction, dices in (
                ("random", "00", (1, 0.5, 0)),
                ("random", "01", (1, 0.7, 0)),
                ("gradient", "forward", (1, 0.1, 0)),
                ("gradient", "reversed", (1, 0.9, 0)),
            )
            for removed, dice in zip((0, 2, 4), dices, strict=True)
        ],
        columns="expert measure direction removed dice".split(),
    )
    (row,) = deletion_areas(curves).to_dict("records")
    assert (row["area"], row["area_reversed"], row["random_mean"]) == pytest.approx((0.3, 0.7, 0.55))
    assert row["p"] == pytest.approx(1 / 3) and row["z"] == pytest.approx(-0.25 / (0.1 / 2**0.5))
    assert row["random_low"] < row["random_mean"] < row["random_high"]


def test_deletion_follows_the_order_of_importance():
    """With few channels that matter the right order fails at once, its reverse as late as can be."""
    weights = np.zeros((1, 8))
    weights[0, 5] = 1.0
    model = HandBuilt(weights.tolist(), organelles=("a",), bias=-0.5)
    probe = Probe(model, sample(model))
    curves = deletion_curves(probe, {"gradient": np.abs(weights)}, random_orders(8, 20, 0), deletion_steps(8, 9))
    by = {d: rows["dice"].tolist() for d, rows in curves[curves["measure"] == "gradient"].groupby("direction")}
    assert by["forward"] == [1.0] + [0.0] * 8
    assert by["reversed"] == [1.0] * 8 + [0.0]
    areas = deletion_areas(curves)
    assert areas["area"].item() == pytest.approx(0.5 / 8) and areas["area_reversed"].item() == pytest.approx(7.5 / 8)
    (claim,) = deletion_claims(areas, {"a": 1.0})
    assert claim.verdict == ("survives" if areas["p"].item() <= 0.05 else "does not survive")
    assert deletion_claims(areas, {"a": 0.01})[0].verdict == "cannot be told"


def test_spearman_shares_ranks_and_tells_constants():
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 5, 40).astype(float), rng.normal(size=40)
    ranks = [pd.Series(v).rank().to_numpy() for v in (a, b)]
    assert spearman(a, b)[0] == pytest.approx(np.corrcoef(*ranks)[0, 1])
    assert np.isnan(spearman(np.ones(5), np.arange(5.0))).all()


def test_agreement_judges_measures_against_ablation():
    exact = np.arange(20.0)[None]
    measures = {"gradient": exact**2, "gradient_x_activation": -exact, "ablation": exact, "ablation_dice": exact}
    table = agreement_table(measures, 2, ("a",))
    assert len(table) == 6 and (table["between"] == "measures").all()
    claims = measure_claims(table)
    assert [(c.text.split(" ranks")[0], c.verdict) for c in claims] == [
        ("gradient", "survives"),
        ("gradient × activation", "does not survive"),
    ]


@pytest.mark.parametrize(
    ("noise", "verdict"), [(0.5, "survives"), (2.0, "does not survive"), (50.0, "does not survive")]
)
def test_a_weak_correlation_is_no_stand_in(noise, verdict):
    """With many channels a rank correlation far below 1 is surely not chance, and still no measure to go by."""
    rng = np.random.default_rng(0)
    exact = rng.normal(size=200)
    table = agreement_table(
        {"gradient": (exact + noise * rng.normal(size=200))[None], "ablation": exact[None]}, 2, ("a",)
    )
    (claim,) = measure_claims(table)
    assert claim.verdict == verdict
    assert ("related, but a stand-in asks for ρ of 0.7" in claim.evidence) == (noise == 2.0)


class FakeSections:
    """What `sample_patches` needs of sections."""

    def __init__(self, masks, organelles=("common", "rare")):
        self._masks, self.organelles = masks, organelles
        self.names = tuple(f"{i:02d}" for i in range(len(masks)))

    def __len__(self):
        return len(self._masks)

    def shape(self, i):
        return self._masks[i].shape[1:]

    def image(self, i):
        return np.full(self.shape(i), 10 * i, np.uint8)

    def masks(self, i):
        return self._masks[i]


def test_patches_do_not_overlap_and_show_rare_organelles():
    masks = np.zeros((3, 2, 64, 64), np.uint8)
    masks[:, 0] = 1
    masks[1, 1, :40, 5] = 1  # in three patches of 16 px of 48
    drawn = sample_patches(FakeSections(masks), Normalisation(), count=6, size=16, seed=0)
    assert drawn.images.shape == (6, 1, 16, 16) and drawn.holding == {"common": 6, "rare": 3}
    assert len(set(drawn.places)) == 6 and list(drawn.places) == sorted(drawn.places)
    for (name, y, x), image, mask in zip(drawn.places, drawn.images, drawn.masks, strict=True):
        assert y % 16 == x % 16 == 0 and (image == np.float32(int(name) * 10 / 255)).all()
        assert (mask == masks[int(name), :, y : y + 16, x : x + 16]).all()
    again = sample_patches(FakeSections(masks), Normalisation(), count=6, size=16, seed=0)
    other = sample_patches(FakeSections(masks), Normalisation(), count=6, size=16, seed=1)
    assert again.places == drawn.places != other.places


def test_patches_shrink_to_small_sections():
    masks = np.ones((1, 2, 40, 70), np.uint8)
    drawn = sample_patches(FakeSections(masks), Normalisation(), count=50)
    assert drawn.images.shape == (2, 1, 32, 32)
    with pytest.raises(UserError, match=r"patches of 10 pixels are too small, the least is 16"):
        sample_patches(FakeSections(masks[:, :, :10]), Normalisation())


def patches_of(places, shows, side=16):
    """Patches that show what they are told to, each in one pixel."""
    masks = np.zeros((len(places), len(shows[0]), side, side), np.uint8)
    masks[:, :, 3, 4] = shows
    names = ("common", "rare")[: len(shows[0])]
    return Sample(np.zeros((len(places), 1, side, side), np.float32), masks, tuple(places), names)


def test_halves_are_of_different_sections_where_that_is_fair():
    places = [(f"{z:02d}", 0, x) for z in (0, 1, 2) for x in (0, 16)]
    found = split_patches(patches_of(places, [(1, 1)] * 6))
    ranked, judged = ({name for name, *_ in half.places} for half in (found.ranking, found.judging))
    assert ranked == {"00", "02"} and judged == {"01"} and found.apart
    assert found.note == (
        "Channels are ranked on 4 patches (sections 00, 02); everything is judged on 2 patches (section 01), of other "
        "sections."
    )


@pytest.mark.parametrize(
    ("places", "shows"),
    [
        ([("00", 0, 16 * x) for x in range(7)], [(1, 0)] * 5 + [(1, 1)] * 2),  # one section
        ([("00", 0, 0), ("00", 0, 16), ("00", 0, 32), ("01", 0, 0)], [(1, 1)] * 2 + [(1, 0)] * 2),  # rare in one
        ([("00", 0, 16 * x) for x in range(5)] + [("01", 0, 0)], [(1, 1)] * 6),  # one section has nearly all
    ],
)
def test_else_halves_are_of_different_patches_that_show_the_same(places, shows):
    found = split_patches(patches_of(places, shows))
    assert sorted(found.ranking.places + found.judging.places) == sorted(places)
    assert abs(len(found.ranking.places) - len(found.judging.places)) <= 1
    for half in (found.ranking, found.judging):
        assert half.shows.any(axis=0).all() and (half.masks.sum(axis=(1, 2, 3)) > 0).all()
    assert "of the same sections, as whole ones cannot be shared out evenly" in found.note


def test_one_patch_is_both_halves():
    found = split_patches(patches_of([("00", 0, 0)], [(1, 1)]))
    assert found.ranking is found.judging and not found.apart and "which flatters" in found.note


def test_channels_are_ranked_on_one_half_and_judged_on_the_other(monkeypatch):
    """On the patches of the ranking channel 0 does everything, on the others channel 5: a top set of the first is
    worthless on the second, and would look perfect on the patches that chose it."""
    weights = np.zeros((1, 8))
    weights[0, [0, 5]] = 1.0
    model = HandBuilt(weights.tolist(), organelles=("a",), bias=-0.5)
    cat = torch.cat

    def only(channel):
        x = np.random.default_rng(channel).random((4, 1, 16, 16)).astype(np.float32)
        masks = (x >= 0.5).astype(np.uint8)
        return Sample(x + 10 * channel, masks, tuple(("00", channel, 16 * i) for i in range(4)), ("a",))

    def encode(x, edit=None):
        """Channel 0 carries images below 5, channel 5 those above, less their offset of 50."""
        edit = edit or (lambda level, t: t)
        high = (x > 20).float()
        planes = [x * (1 - high), *[torch.zeros_like(x)] * 4, (x - 50) * high, *[torch.zeros_like(x)] * 2]
        return [edit(0, x), edit(1, cat(planes, dim=1))]

    monkeypatch.setattr(model, "encode", encode)
    settings = AnalysisSettings(top_k=1, rank_by="ablation", random_sets=20, orders=3, points=3)
    found = analyse(model, Halves(only(0), only(5), "told"), settings)
    assert found.dice == {"a": pytest.approx(1.0)}
    assert found.sets[0].channels == (0,)
    drop = found.effects.query("quantity == 'drop' and ablation == 'zero'")["value"].item()
    assert drop == 0
    (top,) = [claim for claim in found.claims if claim.topic == "top"]
    assert top.verdict == "does not survive"
    flattered = analyse(model, Halves(only(0), only(0), "told", apart=False), settings)
    assert flattered.effects.query("quantity == 'drop' and ablation == 'zero'")["value"].item() == pytest.approx(1.0)
    table = found.importance.set_index("channel")
    assert table.query("level == 2")["ablation"].idxmax() == 0
    assert table.query("level == 2")["ablation_held_out"].idxmax() == 5
    assert flattered.importance["ablation_held_out"].isna().all()


def test_unannotated_pixels_are_not_judged():
    model = HandBuilt(TRUTH, bias=-0.5)
    drawn = sample(model, patches=2)
    known = np.random.default_rng(5).random(drawn.masks.shape) > 0.4
    wrong = np.where(known, drawn.masks, 255).astype(np.uint8)
    spoilt = Sample(drawn.images, wrong, drawn.places, drawn.organelles)
    assert Probe(model, spoilt).baseline.dice == pytest.approx([1, 1])
    found = Probe(model, spoilt).without([0])
    images = torch.from_numpy(drawn.images)
    logits = model.decode(model.encode(images, lambda at, t: t * (torch.arange(12) != 0)[:, None, None] if at else t))
    for e in range(2):
        here = known[:, e]
        counts = pixel_counts(drawn.masks[:, e][here] == 1, logits[:, e].numpy()[here] >= 0)
        assert found.dice[e] == pytest.approx(pixel_scores(counts)["dice"])
    assert Sample(drawn.images, np.full_like(wrong, 255), drawn.places, drawn.organelles).holding == {"a": 0, "b": 0}


def test_some_experts_of_a_network():
    model = Random(experts=3)
    chosen, image = ChosenExperts(model, ("c", "a")), torch.zeros(1, 1, 16, 16)
    every = model.decode(model.encode(image))
    assert chosen.organelles == ("c", "a") and chosen.level_channels == model.level_channels
    assert torch.equal(chosen.decode(chosen.encode(image)), every[:, [2, 0]])
    assert torch.equal(chosen.decode(chosen.encode(image), experts=[1]), every[:, [0]])
    drawn = sample(chosen)
    whole = gradient_importance(model, drawn.images)["gradient"][1]
    assert gradient_importance(chosen, drawn.images)["gradient"][1] == pytest.approx(whole[[2, 0]])


def test_patches_of_some_organelles_in_an_order_of_ones_own():
    masks = np.zeros((2, 2, 32, 32), np.uint8)
    masks[0, 0, :16], masks[1, 1, 16:] = 1, 255
    drawn = sample_patches(FakeSections(masks), Normalisation(), count=8, size=16, organelles=["rare", "common"])
    assert drawn.organelles == ("rare", "common") and drawn.holding == {"rare": 0, "common": 2}
    assert (drawn.masks[:2, 1] == 1).all() and (drawn.masks[6:, 0] == 255).all()


@pytest.mark.parametrize("size", [1, 3])
def test_claims_speak_of_one_channel_and_of_several(size):
    model = HandBuilt(TRUTH, bias=-0.5)
    sets = [
        ChannelSet(kind, of, tuple(range(size))) for kind, of in (("top", "a"), ("shared", "all"), ("specific", "a"))
    ]
    effects, _ = ablate_sets(Probe(model, sample(model)), sets, random_orders(12, 20, 0))
    texts = [claim.text for claim in set_claims(effects, {"a": 1.0, "b": 1.0}, ("a", "b"))]
    expected = {
        1: [
            "The top channel of a matters to it more than random ones",
            "The shared channel matters to a more than random ones",
            "The shared channel matters to b more than random ones",
            "The channel that only a ranks high matters to it more than random ones",
            "The channel that only a ranks high matters to it more than to the others",
        ],
        3: [
            "The top 3 channels of a matter to it more than random ones",
            "The 3 shared channels matter to a more than random ones",
            "The 3 shared channels matter to b more than random ones",
            "The 3 channels that only a ranks high matter to it more than random ones",
            "The 3 channels that only a ranks high matter to it more than to the others",
        ],
    }
    assert texts == expected[size]


def test_the_summary_counts_what_it_lists():
    claims = [
        Claim("sharing", "one", "survives", "x"),
        Claim("top", "two", "depends on the ablation", "x", tests=2),
        Claim("deletion", "three", "cannot be told", "x"),
        Claim("top", "four", "cannot be told", "x", tests=2),
    ]
    text = " ".join(summary_text("T", ["S"], claims, 20, 1).split())
    assert "Of 4 claims 1 survives the controls and 0 do not; 1 depends on what" in text and "2 cannot be told." in text
    assert (
        "The 2 claims that can be told rest on 3 tests, two for a set and one for all else; about 0.2 of them" in text
    )
    assert "20 random sets of the same size and 1 random order, so" in text
    assert "Of 1 claim 1 survives" in summary_text("T", ["S"], claims[:1], 20, 20)
    assert "The 1 claim that can be told rests on 1 test," in " ".join(
        summary_text("T", [], claims[:1], 20, 20).split()
    )


def test_overlap_of_one_channel_is_singular():
    claims = overlap_claims(overlap_table(np.array([[0, 1], [1, 2]]), 12, ("a", "b")))
    assert [claim.evidence.split(";")[0] for claim in claims] == [
        "1 of 2 in common",
        *["1 of its 2 is in no other expert's top set"] * 2,
    ]


def test_ablation_of_other_patches_is_the_reference_where_there_is_one():
    exact = np.arange(20.0)[None]
    measures = {"gradient": exact, "ablation": exact[:, ::-1], "ablation_dice": exact, "ablation_held_out": exact}
    claims = measure_claims(agreement_table(measures, 2, ("a",)), "ablation_held_out")
    assert [(claim.text, claim.verdict) for claim in claims] == [
        ("gradient ranks the channels of a as their exact ablation on other patches does", "survives"),
        ("exact ablation ranks the channels of a as their exact ablation on other patches does", "does not survive"),
    ]


def test_a_balanced_choice_takes_all_when_there_are_few():
    assert sorted(balanced_choice(np.ones((3, 2), bool), 10)) == [0, 1, 2]


@pytest.mark.parametrize("experts", [1, 2, 3, 5])
def test_the_overlap_figure_keeps_its_words_on_the_page(experts):
    names = ["membranes", "mitochondria", "synapses", "vesicles", "nuclei"][:experts]
    top = np.stack([np.random.default_rng(e).permutation(60)[:25] for e in range(experts)])
    tops = {name: frozenset(row.tolist()) for name, row in zip(names, top, strict=True)}
    figure = overlap_figure(tops, overlap_table(top, 60, names))
    figure.canvas.draw()
    words = [t for t in figure.findobj(Text) if t.get_text() and t.get_visible()]
    assert {"membranes", "as chance"} <= {t.get_text() for t in words} or experts == 1
    for text in words:
        box = text.get_window_extent()
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= figure.bbox.width and box.y1 <= figure.bbox.height, text
