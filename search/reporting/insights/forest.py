"""A random forest over the trials of a search, and what it says of every hyperparameter.

Trials of different rungs were trained for different numbers of epochs, so their scores cannot be
compared as they are. The number of epochs is therefore a feature of the forest beside the
hyperparameters, every completed trial is an observation, and all that is said holds for the largest
number of epochs: the forest is only asked about that. (The alternative, one score of every
configuration at the epochs all have reached, would use the first epoch alone in Hyperband's widest
bracket, which tells fast starters from slow ones rather than good ones from bad.)

Importance is that of functional ANOVA (Hooker, JCGS 16, 2007; for hyperparameters Hutter, Hoos &
Leyton-Brown, ICML 2014): the variance that a hyperparameter explains alone, i.e. that of its
marginal effect, the other ones averaged over. Two things differ from Hutter et al. They average
over the boxes of the space; here it is over the configurations that were tried, which a random
search draws from that space. So the space need not be known, and hyperparameters that are inactive
fall out by themselves: the marginal of a conditional one is taken over the configurations in which
it is active, and its variance counts as often as it is. And they give shares of the variance that
the forest predicts, which add up to 1 however little that is; here it is the share of the variance
that the scores have at equal epochs, so that what the forest cannot explain is attributed to
nothing. Losses are taken as logarithms, so that a few diverged trials do not make all the variance.
A forest draws effects towards the mean, the more so the fewer the trials, so that importances are
rather too small than too large.

Uncertainty is that of the configurations drawn: each of `RESAMPLES` forests is grown on
configurations resampled with replacement, all rungs of one together. What chance alone would give
is measured as well (Altmann et al., Bioinformatics 26, 2010): hyperparameters are dealt out anew
among the configurations, `DEALS` times, and the largest importance of any is noted each time.
Interactions are not listed; with noise, they are what the shares leave of 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from search.config import direction
from search.records import TrialRecord, TrialStatus, Values
from search.reporting.wording import is_number

TREES = 16
SHARE_OF_FEATURES = 0.7
"""Hyperparameters that every split of a tree may choose from. With all of them, importance is the
least understated, but what chance alone gives rises faster than what is found."""

RESAMPLES = 100
DEALS = 60
MAX_BACKGROUND = 64
"""Configurations averaged over."""

MAX_LEVELS = 16
"""Values at which the marginal of a continuous hyperparameter is taken."""

MIN_CONFIGURATIONS = 6
"""Fewer say nothing at all."""

FOLDS = 5

ROUNDING = 1e-18
"""Variance that is none."""


@dataclass(frozen=True, kw_only=True)
class Effect:
    """What the forest says of one hyperparameter.

    Attributes:
        name: The hyperparameter.
        levels: k values, ascending, or categories.
        numeric: Whether the levels are numbers.
        expected: Expected score at each level at the largest budget, all else averaged over.
        low: Lower 95% limits of that.
        high: Upper 95% limits.
        importance: Share of the variance of the scores at equal epochs.
        importance_low: Lower 95% limit of that.
        importance_high: Upper 95% limit.
        active: Share of configurations in which it is active.
    """

    name: str
    levels: tuple[Any, ...]
    numeric: bool
    expected: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    importance: float
    importance_low: float
    importance_high: float
    active: float


@dataclass(frozen=True, kw_only=True)
class Effects:
    """What the forest says of all hyperparameters.

    Attributes:
        effects: The most important first.
        configurations: How many different ones were completed.
        trials: How many trials of theirs.
        epochs: The budget that everything holds for.
        chance: What the largest importance reaches by chance in 1 search of 20.
        skill: Share of the variance, beyond that of the number of epochs, which the forest
            predicts of configurations it has not seen; below 0 it is worse than knowing nothing.
    """

    effects: tuple[Effect, ...]
    configurations: int
    trials: int
    epochs: int
    chance: float
    skill: float


def effects(records: Sequence[TrialRecord], *, objective: str, seed: int = 0) -> Effects | None:
    """Return what a forest over the completed trials says.

    Args:
        records: All trials.
        objective: Name of the score.
        seed: Seed of the forests and the resampling.

    Returns:
        None for fewer than `MIN_CONFIGURATIONS` configurations, if no hyperparameter varied, or if
        all scores are the same.
    """
    trials = _Trials(records, logarithmic=direction(objective) == "min")
    if trials.count < MIN_CONFIGURATIONS or not trials.columns or trials.variance < ROUNDING:
        return None
    rng = np.random.default_rng(seed)
    everyone = np.arange(trials.count)
    plain = trials.decompose(everyone, everyone, rng)
    resampled = [
        trials.decompose(rng.integers(0, trials.count, trials.count), everyone, rng)
        for _ in range(RESAMPLES)
    ]
    dealt = [trials.decompose(everyone, rng.permutation(trials.count), rng) for _ in range(DEALS)]
    found = []
    for j, column in enumerate(trials.columns):
        low, high = _limits([marginals[j] for _, marginals in resampled], plain[1][j])
        share_low, share_high = _limits([shares[j] for shares, _ in resampled], plain[0][j])
        found.append(
            Effect(
                name=column.name,
                levels=column.levels,
                numeric=column.numeric,
                expected=trials.natural(plain[1][j]),
                low=trials.natural(low),
                high=trials.natural(high),
                importance=float(plain[0][j]),
                importance_low=float(share_low),
                importance_high=float(share_high),
                active=float(column.active.mean()),
            )
        )
    return Effects(
        effects=tuple(sorted(found, key=lambda effect: -effect.importance)),
        configurations=trials.count,
        trials=len(trials.scores),
        epochs=trials.largest,
        chance=float(np.percentile([shares.max() for shares, _ in dealt], 95)),
        skill=trials.skill(rng),
    )


@dataclass(frozen=True, kw_only=True)
class _Column:
    """One hyperparameter over the configurations.

    Attributes:
        name: Its name.
        codes: (c,) numbers for the forest; of configurations where it is inactive, the median of
            the others, which says nothing.
        active: `bool` (c,).
        levels: k values at which the marginal is taken.
        level_codes: (k,) their numbers.
        weights: (k,) how often they occur, summing to 1.
        numeric: Whether the values are numbers.
    """

    name: str
    codes: np.ndarray
    active: np.ndarray
    levels: tuple[Any, ...]
    level_codes: np.ndarray
    weights: np.ndarray
    numeric: bool


class _Trials:
    """The completed trials as arrays, and forests over them.

    Attributes:
        count: Number c of configurations.
        columns: The hyperparameters that vary, in the order of the space.
        scores: (t,) what the forest learns.
        variance: Of the scores about the mean of their number of epochs.
        largest: Most epochs of any trial.
    """

    def __init__(self, records: Sequence[TrialRecord], *, logarithmic: bool) -> None:
        done = [r for r in records if r.status is TrialStatus.COMPLETED and is_number(r.score)]
        numbers: dict[tuple[int, int], int] = {}
        self._of = np.array(
            [numbers.setdefault((r.iteration, r.configuration), len(numbers)) for r in done]
        )
        self.count = len(numbers)
        raw = np.array([float(r.score or 0.0) for r in done])
        self._logarithmic = logarithmic and bool((raw > 0).all())
        self.scores = np.log(raw) if self._logarithmic else raw
        self.largest = max((r.epochs for r in done), default=0)
        values: list[Values] = [{} for _ in numbers]
        for record, number in zip(done, self._of, strict=True):
            values[number] = record.values
        names = dict.fromkeys(name for mine in values for name in mine)
        columns = (_column(name, values) for name in names)
        self.columns = [column for column in columns if column is not None]
        self._budgets = np.log(np.array([max(1, r.epochs) for r in done], dtype=np.float64))
        means = {b: self.scores[self._budgets == b].mean() for b in np.unique(self._budgets)}
        about = self.scores - np.array([means[b] for b in self._budgets])
        self.variance = float(np.mean(about**2)) if done else 0.0
        self._tried = (
            np.column_stack([column.codes for column in self.columns])
            if self.columns
            else np.zeros((self.count, 0))
        )
        self._members = [np.flatnonzero(self._of == i) for i in range(self.count)]
        self._probe: np.ndarray = np.zeros((0, 1))
        self._parts: list[slice] = []
        if self.columns:
            self._probe, self._parts = self._questions()

    def natural(self, values: np.ndarray) -> tuple[float, ...]:
        """Return values of the forest in the unit of the score."""
        return tuple((np.exp(values) if self._logarithmic else values).tolist())

    def decompose(
        self, chosen: np.ndarray, dealt: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, list[np.ndarray]]:
        """Grow a forest and return every column's importance and marginal.

        Args:
            chosen: Configurations it learns from, with repetitions.
            dealt: (c,) whose hyperparameters each configuration is given.
            rng: Seeds the forest.
        """
        rows = np.concatenate([self._members[i] for i in chosen])
        features = np.column_stack([self._tried[dealt[self._of[rows]]], self._budgets[rows]])
        answers = _Forest(features, self.scores[rows], rng).predict(self._probe)
        shares, marginals = [], []
        for column, part in zip(self.columns, self._parts, strict=True):
            marginal = answers[part].reshape(len(column.levels), -1).mean(axis=1)
            mean = column.weights @ marginal
            alone = column.weights @ (marginal - mean) ** 2 * column.active.mean()
            shares.append(min(1.0, alone / self.variance))
            marginals.append(marginal)
        return np.array(shares), marginals

    def skill(self, rng: np.random.Generator) -> float:
        """Return how well unseen configurations are predicted, beyond their number of epochs."""
        folds = rng.permutation(self.count) % min(FOLDS, self.count)
        wrong, naive = 0.0, 0.0
        features = np.column_stack([self._tried[self._of], self._budgets])
        for fold in range(folds.max() + 1):
            test = folds[self._of] == fold
            known, asked = features[~test], features[test]
            forest = _Forest(known, self.scores[~test], rng)
            wrong += float(np.sum((forest.predict(asked) - self.scores[test]) ** 2))
            for budget in np.unique(self._budgets[test]):
                same = self._budgets == budget
                learnt = self.scores[same & ~test]
                mean = learnt.mean() if learnt.size else self.scores[~test].mean()
                naive += float(np.sum((self.scores[same & test] - mean) ** 2))
        return 1 - wrong / naive if naive > 0 else float("nan")

    def _questions(self) -> tuple[np.ndarray, list[slice]]:
        """Return what every forest is asked: each column's levels, at the largest budget.

        A level is set in every configuration of the background in which the column is active.
        """
        step = math.ceil(self.count / MAX_BACKGROUND)
        parts, slices, start = [], [], 0
        for j, column in enumerate(self.columns):
            background = self._tried[np.flatnonzero(column.active)[::step]]
            asked = np.repeat(background[None], len(column.levels), axis=0)
            asked[:, :, j] = column.level_codes[:, None]
            parts.append(asked.reshape(-1, self._tried.shape[1]))
            slices.append(slice(start, start + len(parts[-1])))
            start += len(parts[-1])
        tried = np.concatenate(parts)
        return np.column_stack([tried, np.full(len(tried), np.log(self.largest))]), slices


def _column(name: str, values: Sequence[Values]) -> _Column | None:
    """Return a hyperparameter as numbers; None where it has one value."""
    active = np.array([mine.get(name) is not None for mine in values])
    present = [mine[name] for mine in values if mine.get(name) is not None]
    numeric = all(is_number(value) for value in present)
    order = sorted(set(present)) if numeric else sorted(set(present), key=str)
    if len(order) < 2:
        return None
    numbers = {value: float(value) if numeric else float(i) for i, value in enumerate(order)}
    codes = np.array(
        [numbers[mine[name]] if on else np.nan for mine, on in zip(values, active, strict=True)]
    )
    known = np.sort(codes[active])
    if len(order) > MAX_LEVELS:
        # Equally likely ones, as the search drew them.
        places = (np.arange(MAX_LEVELS) + 0.5) / MAX_LEVELS * len(known)
        level_codes = np.unique(known[places.astype(int)])
        levels: tuple[Any, ...] = tuple(level_codes.tolist())
    else:
        levels, level_codes = tuple(order), np.array([numbers[value] for value in order])
    weights = np.array([np.sum(known == code) for code in level_codes], dtype=np.float64)
    return _Column(
        name=name,
        codes=np.where(active, codes, np.median(known)),
        active=active,
        levels=levels,
        level_codes=level_codes,
        weights=weights / weights.sum(),
        numeric=numeric,
    )


class _Forest:
    """A random forest of `TREES` regression trees (Breiman, Machine Learning 45, 2001).

    That of scikit-learn from its own trees: grown by the thousand on a few dozen rows, its
    bookkeeping takes several times as long as the trees themselves.
    """

    def __init__(self, features: np.ndarray, answers: np.ndarray, rng: np.random.Generator) -> None:
        # Takes a second to import, which printing a report should not cost.
        from sklearn.tree import DecisionTreeRegressor

        rows, count = features.astype(np.float32), len(features)
        self._trees = []
        for _ in range(TREES):
            tree = DecisionTreeRegressor(
                min_samples_leaf=2,
                max_features=SHARE_OF_FEATURES,
                random_state=int(rng.integers(2**31)),
            )
            drawn = np.bincount(rng.integers(0, count, count), minlength=count)
            tree.fit(rows, answers, sample_weight=drawn.astype(np.float64), check_input=False)
            self._trees.append(tree)

    def predict(self, features: np.ndarray) -> np.ndarray:
        """Return, (n,), the mean of what the trees say of (n, f) features."""
        rows = features.astype(np.float32)
        return np.asarray(
            np.mean([tree.predict(rows, check_input=False) for tree in self._trees], axis=0)
        )


def _limits(resampled: Sequence[Any], plain: Any) -> tuple[Any, Any]:
    """Return the 95% limits of an estimate, which they enclose."""
    low, high = np.percentile(np.array(resampled), (2.5, 97.5), axis=0)
    return np.minimum(low, plain), np.maximum(high, plain)
