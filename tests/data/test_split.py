import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.data.split import merge_patients, notebook_split, patient_split

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


@pytest.mark.parametrize(
    ("children", "contents", "merged"),
    [
        *(("abcd", "wxyz", "abcd"), ("abcd", "wxyw", "abca"), ("abcd", "wxwx", "abab")),
        *(("abcd", "wwww", "aaaa"), ("abcd", "wwxx", "aacc"), ("abbcd", "xxyyz", "aaaad")),
    ],
)
def test_children_who_share_a_file_count_as_one(children, contents, merged):
    assert merge_patients(list(children), list(contents)) == list(merged)
