"""Where configurations come from: a queue of known ones first, then drawn, listed or advised.

A source maps the number of a configuration to its values. Uniform draws and grids depend on the
number alone, so neither the order of asking nor the number of workers nor the length of the
schedule matters; the other sources learn from the results there are when they are asked. Every
source gives all configurations of a finite space before it has no more.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Protocol

import keras_tuner as kt
from threadpoolctl import threadpool_limits

from search.errors import ConfigurationError
from search.records import Values
from search.tuning import space as spaces
from search.tuning.space import Belief, Prior, Space

MAX_DRAWS = 200
"""Draws of one configuration before what is left of the space is listed."""


Accepts = Callable[[Values], bool]


def everything(values: Values) -> bool:
    """Accept every configuration."""
    return True


class ConfigurationSource(Protocol):
    """Gives the values of a configuration by its number."""

    def values(self, configuration: int) -> Values | None:
        """Return the values, or None when there are no more."""

    def restore(self, configuration: int, values: Values) -> None:
        """Take values that an earlier process was given."""

    def observe(
        self, configuration: int, values: Values, score: float | None, *, epochs: int
    ) -> None:
        """Learn from a result: the score (smaller is better) after some epochs, None without."""


class UniformSource:
    """Random configurations without repetition, after a queue of given ones.

    Where draws find nothing new any more, the rest of a finite space follows as it is listed.
    """

    def __init__(
        self, space: Space, *, queue: list[Values], seed: int, accepts: Accepts = everything
    ) -> None:
        """Draw from a space; what is not accepted is drawn again."""
        self.space = space
        self.seed = seed
        self._accepts = accepts
        self._known: list[Values] = []
        self._keys: set[str] = set()
        self._listing = spaces.configurations(space)
        for values in queue:
            self._add(values)

    def values(self, configuration: int) -> Values | None:
        """Return the values of a configuration; draws those before it too."""
        while len(self._known) <= configuration:
            drawn = self._draw(len(self._known))
            if drawn is None:
                return None
            self._add(drawn)
        return self._known[configuration]

    def restore(self, configuration: int, values: Values) -> None:
        """Check that a configuration of the journal is the one this source gives.

        Raises:
            ValueError: It is another one: the space or its sampling changed since.
        """
        if self.values(configuration) != values:
            raise ValueError(f"configuration {configuration} of the journal is not reproduced")

    def observe(
        self, configuration: int, values: Values, score: float | None, *, epochs: int
    ) -> None:
        """Uniform draws learn nothing."""

    def _draw(self, number: int) -> Values | None:
        for attempt in range(MAX_DRAWS):
            values = spaces.sample(self.space, seed=f"{self.seed}/{number}/{attempt}")
            if spaces.key(values) not in self._keys and self._accepts(values):
                return values
        return self._next_listed()

    def _next_listed(self) -> Values | None:
        fresh = (values for values in self._listing if spaces.key(values) not in self._keys)
        return next(filter(self._accepts, itertools.islice(fresh, MAX_DRAWS)), None)

    def _add(self, values: Values) -> None:
        if spaces.key(values) not in self._keys:
            self._keys.add(spaces.key(values))
            self._known.append(values)


class GridSource(UniformSource):
    """Every configuration of a finite space in order, after a queue of given ones."""

    def __init__(self, space: Space, *, queue: list[Values], accepts: Accepts = everything) -> None:
        """List a space; the queue comes first and is not repeated."""
        super().__init__(space, queue=queue, seed=0, accepts=accepts)

    def _draw(self, number: int) -> Values | None:
        return self._next_listed()


class PriorSource(UniformSource):
    """Draws around what is known: PriorBand's mixture, for the brackets of Hyperband.

    Mallik et al., "PriorBand: Practical Hyperparameter Optimization in the Age of Deep Learning",
    NeurIPS 2023, section 5. A configuration that starts r rungs above the lowest is drawn uniformly
    with probability 1 / (1 + η^r), else around the prior. As soon as a configuration was trained to
    the full budget, these draws are shared with mutations of the best one, the incumbent, in
    proportion to how likely the best configurations are under either density.

    What is proposed depends on what has ended by then, so on the number of workers too.
    """

    def __init__(
        self,
        space: Space,
        *,
        prior: Prior,
        queue: list[Values],
        seed: int,
        levels: Sequence[int],
        factor: int,
        max_epochs: int,
        accepts: Accepts = everything,
    ) -> None:
        """Draw from a space.

        Args:
            space: The (narrowed) space.
            prior: What is known of it; hyperparameters without a belief are drawn uniformly.
            queue: Configurations that come first.
            seed: The run's seed.
            levels: By configuration, how many rungs above the lowest it starts (the paper's r).
            factor: Hyperband's η.
            max_epochs: Hyperband's R.
            accepts: Says whether a configuration may be proposed.
        """
        super().__init__(space, queue=queue, seed=seed, accepts=accepts)
        self.prior = {name: belief for name, belief in prior.items() if name in space}
        self.levels = levels
        self.factor = factor
        self.max_epochs = max_epochs
        self._results: dict[int, dict[int, tuple[float, Values]]] = {}

    def restore(self, configuration: int, values: Values) -> None:
        """Take a configuration of the journal, as it was proposed with the results of then.

        Raises:
            ValueError: It has other hyperparameters than the space.
        """
        try:
            whole = spaces.complete(self.space, values)
        except ConfigurationError as error:
            raise ValueError(str(error)) from None
        if whole != values:
            raise ValueError(f"configuration {configuration} of the journal is not in the space")
        if configuration == len(self._known):
            self._add(values)
        if self.values(configuration) != values:
            raise ValueError(f"configuration {configuration} of the journal is not reproduced")

    def observe(
        self, configuration: int, values: Values, score: float | None, *, epochs: int
    ) -> None:
        """Learn a result."""
        if score is not None:
            # KerasTuner's own entries, such as "tuner/epochs", are not hyperparameters.
            known = self.values(configuration) or values
            self._results.setdefault(epochs, {})[configuration] = (score, known)

    @property
    def incumbent(self) -> Values | None:
        """Return the best configuration of those trained to the full budget, if any was."""
        finished = self._results.get(self.max_epochs)
        return min(finished.values(), key=lambda result: result[0])[1] if finished else None

    def _draw(self, number: int) -> Values | None:
        for attempt in range(MAX_DRAWS):
            seed = f"{self.seed}/{number}/{attempt}"
            drawn = random.Random(f"prior/{seed}")
            belief = self._belief(number, drawn.random())
            values = (
                spaces.sample(self.space, seed=seed)
                if belief is None
                else spaces.sample_around(self.space, belief, drawn)
            )
            if spaces.key(values) not in self._keys and self._accepts(values):
                return values
        return self._next_listed()

    def _belief(self, number: int, chance: float) -> Prior | None:
        """Return what to draw a configuration around, None for a uniform draw."""
        level = self.levels[number] if number < len(self.levels) else 0
        uniform = 1 / (1 + self.factor**level)
        if chance < uniform:
            return None
        incumbent = self.incumbent
        if incumbent is None:
            return self.prior
        around = {name: Belief(value=value) for name, value in incumbent.items()}
        share = self._weight(around) / (self._weight(around) + self._weight(self.prior))
        if chance < uniform + (1 - uniform) * share:
            mutated = random.Random(f"mutation/{self.seed}/{number}/{chance}")
            # Every hyperparameter moves with probability one half, as in the paper.
            return {
                name: belief if mutated.random() < 0.5 else replace(belief, spread=0.0)
                for name, belief in around.items()
            }
        return self.prior

    def _weight(self, belief: Prior) -> float:
        """Return how likely the best configurations are under a belief, the best counting most."""
        rung = max(
            (epochs for epochs, known in self._results.items() if len(known) >= self.factor),
            default=self.max_epochs,
        )
        ranked = sorted(self._results[rung].values(), key=lambda result: result[0])
        best = ranked[: max(1, len(ranked) // self.factor)]
        return sum(
            (len(best) - place) * spaces.likelihood(self.space, belief, values)
            for place, (_, values) in enumerate(best)
        )


class BayesianSource:
    """KerasTuner's Bayesian optimization: a Gaussian process proposes after a random start."""

    def __init__(
        self,
        space: Space,
        *,
        queue: list[Values],
        seed: int,
        trials: int,
        accepts: Accepts = everything,
    ) -> None:
        """Advise on a space; a third of the trials are random, at least 5."""
        self._drawn = UniformSource(space, queue=queue, seed=seed, accepts=accepts)
        self._accepts = accepts
        self._random = max(5, len(queue), trials // 3)
        self._known: dict[int, Values] = {}
        self._trials: dict[int, Any] = {}
        self._running: set[int] = set()
        self._oracle = kt.oracles.BayesianOptimizationOracle(
            objective=kt.Objective("score", "min"),
            hyperparameters=space.copy(),
            num_initial_points=1,
            # KerasTuner takes 0 for "no seed".
            seed=seed + 1,
        )
        self._space = space

    def values(self, configuration: int) -> Values | None:
        """Return the values of a configuration, asking the Gaussian process for a new one."""
        if configuration not in self._known:
            completed = sum(t.status == "COMPLETED" for t in self._trials.values())
            if configuration < self._random or completed < 2:
                advised = self._drawn.values(configuration)
            else:
                advised = self._advise(configuration)
            known = {spaces.key(values) for values in self._known.values()}
            if advised is None or spaces.key(advised) in known or not self._accepts(advised):
                advised = self._fresh(known)
            if advised is None:
                return None
            self.restore(configuration, advised)
        return self._known[configuration]

    def restore(self, configuration: int, values: Values) -> None:
        """Note a configuration as asked for, and as running until its result is observed."""
        self._known[configuration] = values
        hyperparameters = self._space.copy()
        # The process can place listed values only; the trial keeps its own.
        hyperparameters.values = spaces.nearest(self._space, values)
        self._trials[configuration] = kt.engine.trial.Trial(
            hyperparameters=hyperparameters, trial_id=str(configuration)
        )
        self._running.add(configuration)

    def observe(
        self, configuration: int, values: Values, score: float | None, *, epochs: int
    ) -> None:
        """Let the Gaussian process learn a result."""
        trial = self._trials[configuration]
        trial.score = score
        trial.status = "FAILED" if score is None else "COMPLETED"
        self._running.discard(configuration)

    def _advise(self, configuration: int) -> Values | None:
        """Return what the process proposes, which may be known."""
        # Seeded by number: the proposal after a resume is the one without it.
        self._oracle._random_state.seed(self._oracle.seed + configuration)
        everything = {str(number): trial for number, trial in sorted(self._trials.items())}
        ongoing = {str(number): self._trials[number] for number in sorted(self._running)}
        self._oracle.ongoing_trials = {}
        # Of matrices this small a second thread only takes the cores from the workers: beside two
        # of them a proposal took ten times as long.
        with threadpool_limits(limits=1):
            if ongoing:
                # KerasTuner guesses scores of running trials by its last fit, which may be none.
                self._oracle.trials = {n: t for n, t in everything.items() if n not in ongoing}
                self._oracle.gpr.fit(*self._oracle._vectorize_trials())
            self._oracle.trials, self._oracle.ongoing_trials = everything, ongoing
            proposed: Values | None = self._oracle.populate_space(str(configuration))["values"]
        return proposed

    def _fresh(self, known: set[str]) -> Values | None:
        """Return a random configuration in place of one that was proposed a second time."""
        drawn = map(self._drawn.values, itertools.count())
        return next((v for v in drawn if v is None or spaces.key(v) not in known), None)


def full_listing(space: Space, queue: list[Values]) -> int | None:
    """Return how many configurations a listing gives, queue included, or None if infinite."""
    count = spaces.size(space)
    if count is None:
        return None
    outside = [values for values in queue if not spaces.contains(space, values)]
    return count + len({spaces.key(values) for values in outside})
