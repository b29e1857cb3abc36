"""Which sections to correct: against all choices there are, and the promises of the table."""

from itertools import combinations

import numpy as np
import pytest
from proofread_run import write_run

from emlib.errors import UserError
from emlib.proofread import Session
from emlib.proofread.representative import REPRESENTS, UNSURE, _medoids, choose_slices, describe_sections

SIZE = (40.0, 8.0, 8.0)


def stack(depth=12, seed=0):
    """Sections of two kinds, dark and noisy or bright and smooth, with a boundary probability."""
    rng = np.random.default_rng(seed)
    em = np.stack(
        [0.3 + 0.3 * rng.random((40, 40)) if z % 3 else 0.8 + 0.02 * rng.random((40, 40)) for z in range(depth)]
    )
    return em.astype(np.float32), rng.random(em.shape).astype(np.float32) * 0.2


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("given", [0, 2])
def test_the_choice_is_nearly_the_best_there_is(seed, given):
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(14, 3))
    apart = np.linalg.norm(points[:, None] - points[None], axis=2)
    known = rng.choice(14, given, replace=False)

    def cost(chosen):
        return apart[:, [*known, *chosen]].min(axis=1).mean()

    free = [i for i in range(14) if i not in known]
    found = _medoids(apart, 3, known)
    costs = sorted(cost(chosen) for chosen in combinations(free, 3))
    assert len({*found, *known}) == 3 + given and cost(found) <= costs[len(costs) // 100] + 1e-12


def test_each_kind_of_section_is_represented():
    em, probability = stack()
    table = choose_slices(em, probability, 3, SIZE)
    first = table[table["reason"] == REPRESENTS]
    assert len(first) == 2 and sorted(first["z"] % 3 == 0) == [False, True]
    assert first["score"].sum() <= 1 and (first["score"] > 0.2).all()


def test_the_least_sure_section_is_chosen():
    em, probability = stack()
    probability[7] = 0.5
    table = choose_slices(em, probability, 3, SIZE)
    unsure = table[table["reason"] == UNSURE]
    assert 7 in set(table["z"]) and len(unsure) == 1
    if unsure["z"].tolist() == [7]:
        assert unsure["score"].tolist() == pytest.approx([1.0], abs=1e-6)


def test_corrected_and_damaged_sections_are_not_chosen():
    em, probability = stack()
    em[4] = 0.5
    table = choose_slices(em, probability, 99, SIZE, corrected=[0, 5])
    assert sorted(table["z"]) == [1, 2, 3, 6, 7, 8, 9, 10, 11]
    assert set(choose_slices(em, probability, 1, SIZE, corrected=[0])["z"] % 3) <= {1, 2}  # the other kind


def test_descriptions_count_groups_alike_and_can_be_compared():
    em, probability = stack()
    described = describe_sections(em, probability, SIZE)
    assert described.shape == (12, 17) and np.isfinite(described).all()
    assert described.mean(axis=0) == pytest.approx(np.zeros(17), abs=1e-6)
    assert (described**2).mean(axis=0)[:8].sum() == pytest.approx(1, abs=1e-5)
    assert not describe_sections(np.ones((3, 9, 9)), np.zeros((3, 9, 9)), SIZE).any()


@pytest.mark.parametrize(
    ("count", "corrected", "message"),
    [
        (0, (), "0 sections to correct are asked for"),
        (2, (12,), "there is no section 12; they are numbered 0 … 11"),
        (2, range(12), "no section is left to correct"),
    ],
)
def test_what_cannot_be_chosen_is_told(count, corrected, message):
    with pytest.raises(UserError, match=message):
        choose_slices(*stack(), count, SIZE, corrected)


def test_a_session_leaves_out_accepted_sections(tmp_path):
    write_run(tmp_path)
    with Session.open(tmp_path) as session:
        first = session.slices_to_correct(2)
        session.accept_section(int(first["z"][0]))
        again = session.slices_to_correct(9)
        assert first["z"][0] not in set(again["z"]) and len(again) == 5


def test_a_run_without_em_has_no_sections_to_choose(tmp_path):
    write_run(tmp_path, em=False)
    with Session.open(tmp_path) as session, pytest.raises(UserError, match="kept no EM"):
        session.slices_to_correct()
