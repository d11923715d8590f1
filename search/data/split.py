"""Divides train + val into training and validation: by patient, or as the notebook does.

Both are pure functions of names, labels and a seed: neither listing order nor file system matters.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections import defaultdict
from collections.abc import Sequence

NOTEBOOK_SEED = 8
"""The notebook's `random.seed(8)`; the run's own seed does not touch that split."""


Sides = tuple[list[int], list[int]]
"""Positions of the training images, and of the validation images."""


def notebook_split(count: int, val_fraction: float) -> Sides:
    """Divide `count` files, in the order of the sorted glob, exactly as the notebook does.

    The notebook shuffles the list of paths; which element goes where depends on the list's length
    alone, so shuffling positions is the same. Both sides keep the shuffled order.

    Args:
        count: Number of files of train, then val.
        val_fraction: The notebook's is 0.2.
    """
    positions = list(range(count))
    random.Random(NOTEBOOK_SEED).shuffle(positions)
    train_size = math.floor(count * (1 - val_fraction))
    return positions[:train_size], positions[train_size:]


def patient_split(
    patients: Sequence[str], labels: Sequence[int], *, val_fraction: float, seed: int
) -> Sides:
    """Divide images so that no patient is on both sides, stratified by class.

    Patients are ranked by a hash of seed and identifier, so that adding or removing a child moves
    few others. Within each class the validation side gets the set of patients, low ranks first,
    whose number of images is as close as any set's to the fraction asked for.

    Args:
        patients: Identifier of each image's patient.
        labels: 0 or 1 of each image.
        val_fraction: Share of the images of each class to validate on.
        seed: Any integer.

    Returns:
        Positions in ascending order. A side may lack a class that has a single patient.
    """
    members: dict[str, list[int]] = defaultdict(list)
    for position, patient in enumerate(patients):
        members[patient].append(position)
    ranked = sorted(members, key=lambda patient: (_rank(seed, patient), patient))
    strata: dict[frozenset[int], list[str]] = defaultdict(list)
    for patient in ranked:
        strata[frozenset(labels[position] for position in members[patient])].append(patient)

    chosen: set[str] = set()
    # Patients with images of both classes come first: the classes then make up for their share.
    for classes in sorted(strata, key=lambda classes: (-len(classes), sorted(classes))):
        group = strata[classes]
        if len(classes) > 1:
            wanted = val_fraction * sum(len(members[patient]) for patient in group)
        else:
            (label,) = classes
            total = sum(1 for value in labels if value == label)
            had = sum(labels[p] == label for patient in chosen for p in members[patient])
            wanted = val_fraction * total - had
        sizes = [len(members[patient]) for patient in group]
        alone = len(strata) == len(set(labels))
        chosen.update(group[i] for i in nearest_subset(sizes, wanted, proper=alone))
    val = sorted(position for patient in chosen for position in members[patient])
    train = sorted(set(range(len(patients))) - set(val))
    return train, val


def merge_patients(patients: Sequence[str], contents: Sequence[str]) -> list[str]:
    """Give patients that share a byte-identical image one identifier, the first of theirs.

    The same image under two children's names would otherwise be trained on and validated on.

    Args:
        patients: Identifier of each image's patient.
        contents: Content hash of each image.
    """
    parent = {patient: patient for patient in patients}

    def find(patient: str) -> str:
        while parent[patient] != patient:
            patient = parent[patient]
        return patient

    holder: dict[str, str] = {}
    for patient, content in zip(patients, contents, strict=True):
        first, second = sorted((find(patient), find(holder.setdefault(content, patient))))
        parent[second] = first
    return [find(patient) for patient in patients]


def nearest_subset(sizes: Sequence[int], wanted: float, *, proper: bool) -> list[int]:
    """Return indices whose sizes add up as close to `wanted` as any set's can.

    Exact subset sums by dynamic programming on the bits of an integer; among the best sets it
    takes one that keeps to the front of the list.

    Args:
        sizes: Positive sizes, in order of preference.
        wanted: The sum aimed at.
        proper: Whether neither nothing nor everything may be chosen, given two sizes or more;
            a single size is then never chosen.
    """
    total = sum(sizes)
    # No better sum lies further above than one patient; the mask bounds memory on large sets.
    limit = min(total, math.ceil(max(wanted, 0)) + max(sizes))
    mask = (1 << limit + 1) - 1
    reach = [1]
    for size in sizes:
        reach.append((reach[-1] | reach[-1] << size) & mask)
    sums = [value for value in range(limit + 1) if reach[-1] >> value & 1]
    if proper:
        sums = [value for value in sums if 0 < value < total] or [0]
    rest = min(sums, key=lambda value: (abs(value - wanted), value))
    chosen = []
    for index in range(len(sizes) - 1, -1, -1):
        if not reach[index] >> rest & 1:
            chosen.append(index)
            rest -= sizes[index]
    return chosen[::-1]


def _rank(seed: int, patient: str) -> bytes:
    return hashlib.blake2b(f"{seed}:{patient}".encode(), digest_size=8).digest()
