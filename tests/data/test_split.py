import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search.data.split import merge_patients, nearest_subset, notebook_split, patient_split

FRACTIONS = st.floats(0.05, 0.5)

CHILDREN = st.lists(st.tuples(st.integers(0, 1), st.integers(1, 6)), min_size=1, max_size=60)
"""(class, number of films) of each child."""


def expand(children):
    patients, labels = [], []
    for number, (label, films) in enumerate(children):
        patients += [f"child{number}"] * films
        labels += [label] * films
    return patients, labels


@given(st.integers(0, 6000), FRACTIONS)
def test_notebook_split_is_the_notebooks(count, fraction):
    names = [f"{i}.jpeg" for i in range(count)]
    random.seed(8)
    random.shuffle(names)
    size = int(count * (1 - fraction))
    train, val = notebook_split(count, fraction)
    assert [f"{i}.jpeg" for i in train] == names[:size]
    assert [f"{i}.jpeg" for i in val] == names[size:]


def test_notebook_split_has_the_notebooks_counts():
    assert [len(side) for side in notebook_split(5232, 0.2)] == [4185, 1047]
    assert [len(side) for side in notebook_split(5216, 0.2)] == [4172, 1044]


def test_notebook_split_leaves_the_global_generator_alone():
    random.seed(1)
    state = random.getstate()
    notebook_split(100, 0.2)
    assert random.getstate() == state


@given(CHILDREN, FRACTIONS, st.integers(0, 5))
def test_patient_split_keeps_every_child_on_one_side(children, fraction, seed):
    patients, labels = expand(children)
    train, val = patient_split(patients, labels, val_fraction=fraction, seed=seed)
    assert sorted(train + val) == list(range(len(patients)))
    assert not {patients[i] for i in train} & {patients[i] for i in val}


@given(CHILDREN, FRACTIONS, st.integers(0, 5))
def test_patient_split_meets_the_fraction_of_each_class_as_nearly_as_it_can(
    children, fraction, seed
):
    patients, labels = expand(children)
    _, val = patient_split(patients, labels, val_fraction=fraction, seed=seed)
    for label in (0, 1):
        total = labels.count(label)
        single = any(c == (label, 1) for c in children)
        validated = sum(labels[i] == label for i in val)
        # With single-film children among them every number of films can be reached.
        slack = 0.5 if single and len(children) > 40 else max([n for _, n in children])
        assert abs(validated - fraction * total) <= max(slack, 1)


@given(st.integers(0, 5), FRACTIONS)
@settings(max_examples=25)
def test_patient_split_is_within_one_point_on_a_set_like_the_real_one(seed, fraction):
    rng = random.Random(seed)
    children = [(1, min(30, int(rng.paretovariate(1.2)))) for _ in range(800)]
    children += [(0, rng.choice([1, 1, 1, 2, 4])) for _ in range(400)]
    patients, labels = expand(children)
    _, val = patient_split(patients, labels, val_fraction=fraction, seed=seed)
    for label in (0, 1):
        share = sum(labels[i] == label for i in val) / labels.count(label)
        assert abs(share - fraction) < 0.01


@given(CHILDREN, st.randoms(use_true_random=False), st.integers(0, 5))
def test_patient_split_does_not_depend_on_order(children, shuffler, seed):
    patients, labels = expand(children)
    films = list(zip(patients, labels, range(len(labels)), strict=True))
    mixed = shuffler.sample(films, len(films))
    _, val = patient_split(patients, labels, val_fraction=0.2, seed=seed)
    _, again = patient_split(
        [p for p, _, _ in mixed], [c for _, c, _ in mixed], val_fraction=0.2, seed=seed
    )
    assert set(val) == {mixed[i][2] for i in again}


def test_patient_split_keeps_both_classes_on_both_sides():
    patients, labels = expand([(0, 30), (0, 1), (1, 9), (1, 9)])
    train, val = patient_split(patients, labels, val_fraction=0.05, seed=0)
    for side in (train, val):
        assert {labels[i] for i in side} == {0, 1}


def test_patient_with_films_of_both_classes_stays_together():
    patients = ["both"] * 4 + [f"n{i}" for i in range(20)] + [f"p{i}" for i in range(20)]
    labels = [0, 0, 1, 1] + [0] * 20 + [1] * 20
    for seed in range(10):
        _, val = patient_split(patients, labels, val_fraction=0.2, seed=seed)
        assert len({i in val for i in range(4)}) == 1
        assert abs(sum(labels[i] for i in val) - 0.2 * 22) <= 1


def test_another_seed_gives_another_split_and_zero_is_a_seed():
    patients, labels = expand([(i % 2, 1) for i in range(100)])
    sides = [patient_split(patients, labels, val_fraction=0.2, seed=s)[1] for s in (0, 1, 2)]
    assert len(set(map(tuple, sides))) == 3


def test_adding_a_child_moves_few_others():
    patients, labels = expand([(i % 2, 1) for i in range(400)])
    _, before = patient_split(patients, labels, val_fraction=0.2, seed=8)
    _, after = patient_split([*patients, "new"], [*labels, 1], val_fraction=0.2, seed=8)
    assert len(set(before) ^ set(after)) <= 4


@given(st.lists(st.integers(1, 9), min_size=1, max_size=10), st.floats(0, 60), st.booleans())
def test_nearest_subset_is_no_further_than_any_other(sizes, wanted, proper):
    chosen = nearest_subset(sizes, wanted, proper=proper)
    sums = {0}
    for size in sizes:
        sums |= {value + size for value in sums}
    if proper:
        sums = (sums - {0, sum(sizes)}) or {0}
    assert len(set(chosen)) == len(chosen)
    reached = sum(sizes[i] for i in chosen)
    assert reached in sums
    assert abs(reached - wanted) <= min(abs(value - wanted) for value in sums) + 1e-9


@pytest.mark.parametrize(
    ("contents", "merged"),
    [("wxyz", "abcd"), ("wxyw", "abca"), ("wxwx", "abab"), ("wwww", "aaaa"), ("wwxx", "aacc")],
)
def test_children_who_share_a_file_count_as_one(contents, merged):
    assert merge_patients(list("abcd"), list(contents)) == list(merged)


def test_merging_is_transitive():
    merged = merge_patients(["a", "b", "b", "c", "d"], ["x", "x", "y", "y", "z"])
    assert merged == ["a", "a", "a", "a", "d"]
