"""The state of successive halving: which trial may start next, and which are decided.

Pure bookkeeping over a Schedule: it is told which trials started and how they ended, and knows no
KerasTuner, no Keras and no files, so that a journal can be replayed through it.

A trial is promoted as soon as it is certain to be among the best, whatever the unfinished trials
of its rung will give; so asking early or late, with one worker or many, promotes the same trials.
A failed trial ranks last. When a promoted trial fails, the next in rank is promoted in its place,
as long as there is one. Only out of the first rung, by far the largest, there are no more such
replacements than the rung above has trials, or two: the other checkpoints are removed by then.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from search.records import Bracket, Rung
from search.tuning.schedule import Schedule

FEWEST_SPARES = 2
"""The first rung has at least so many replacements: a rung of one trial must stand failures."""


@dataclass(frozen=True, kw_only=True)
class Slot:
    """A trial to start."""

    bracket_index: int  # Position of the bracket in the schedule
    rung: int  # Its rung
    configuration: int  # Number of the configuration


@dataclass
class RungState:
    """What happened in one rung so far."""

    running: set[int] = field(default_factory=set)  # Configurations being trained
    # Rank key by completed configuration; smaller is better
    scores: dict[int, tuple[float, int, int]] = field(default_factory=dict)
    failed: set[int] = field(default_factory=set)  # Configurations that failed here

    @property
    def started(self) -> set[int]:
        """Return every configuration that was started here."""
        return self.running | set(self.scores) | self.failed

    def ranked(self) -> list[int]:
        """Return the completed configurations, best first."""
        return sorted(self.scores, key=lambda configuration: self.scores[configuration])


class Halving:
    """Successive halving over all brackets of a schedule.

    Configurations are numbered over the whole search, in the order in which the brackets' first
    rungs list them, so a number means the same configuration whatever was asked for first.
    """

    def __init__(self, schedule: Schedule) -> None:
        """Start with nothing trained."""
        self.schedule = schedule
        self._state = [[RungState() for _ in bracket.rungs] for bracket in schedule.brackets]
        self._first = [0]
        for bracket in schedule.brackets:
            self._first.append(self._first[-1] + bracket.rungs[0].count)

    def bracket(self, slot: Slot) -> Bracket:
        """Return the bracket of a trial."""
        return self.schedule.brackets[slot.bracket_index]

    def rung(self, slot: Slot) -> Rung:
        """Return the rung of a trial."""
        return self.bracket(slot).rungs[slot.rung]

    def next_slot(self) -> Slot | None:
        """Return the next trial that may start, or None while all depends on running ones.

        Earlier brackets come first, and within a bracket the higher rungs, so that results that
        decide something arrive early.
        """
        for index, bracket in enumerate(self.schedule.brackets):
            for rung in range(len(bracket.rungs) - 1, 0, -1):
                for configuration in self._promotable(index, rung - 1):
                    return Slot(bracket_index=index, rung=rung, configuration=configuration)
            state = self._state[index][0]
            if len(state.started) < bracket.rungs[0].count:
                first = self._first[index]
                configuration = min(
                    set(range(first, first + bracket.rungs[0].count)) - state.started
                )
                return Slot(bracket_index=index, rung=0, configuration=configuration)
        return None

    def start(self, slot: Slot) -> None:
        """Note that a trial started."""
        self._state[slot.bracket_index][slot.rung].running.add(slot.configuration)

    def complete(self, slot: Slot, *, score: float, parameters: int) -> None:
        """Note a trial's result: a smaller score is better, of equal ones the simpler model."""
        state = self._state[slot.bracket_index][slot.rung]
        state.running.discard(slot.configuration)
        state.scores[slot.configuration] = (score, parameters, slot.configuration)

    def fail(self, slot: Slot) -> None:
        """Note that a trial failed."""
        state = self._state[slot.bracket_index][slot.rung]
        state.running.discard(slot.configuration)
        state.failed.add(slot.configuration)

    def closed(self, bracket_index: int, rung: int) -> bool:
        """Return whether no trial of the rung is running or can still start."""
        return self._open(bracket_index, rung) == 0

    @property
    def finished(self) -> bool:
        """Return whether every rung of every bracket is closed."""
        return all(
            self.closed(index, rung)
            for index, bracket in enumerate(self.schedule.brackets)
            for rung in range(len(bracket.rungs))
        )

    def ranked(self, bracket_index: int, rung: int) -> list[int]:
        """Return the completed configurations of a rung, best first."""
        return self._state[bracket_index][rung].ranked()

    def promoted(self, bracket_index: int, rung: int) -> list[int]:
        """Return the configurations of a rung that were or can now be started one rung up."""
        bracket = self.schedule.brackets[bracket_index]
        if rung + 1 >= len(bracket.rungs):
            return []
        above = self._state[bracket_index][rung + 1].started
        waiting = self._promotable(bracket_index, rung)
        return [c for c in self.ranked(bracket_index, rung) if c in above or c in waiting]

    def disposable(self, bracket_index: int, rung: int) -> list[int]:
        """Return the configurations of a rung whose checkpoints no trial can need any more.

        Of a last rung these are all but the best, as soon as they ended; of another one, once it
        is closed, those that can never be promoted.
        """
        bracket = self.schedule.brackets[bracket_index]
        state = self._state[bracket_index][rung]
        if rung + 1 >= len(bracket.rungs):
            return sorted(state.failed | set(state.ranked()[1:]))
        if not self.closed(bracket_index, rung):
            return []
        above = self._state[bracket_index][rung + 1]
        if self.closed(bracket_index, rung + 1):
            kept: list[int] = []
        else:
            # Promoted ones are needed until their child has its own checkpoint, the next ones
            # in rank in case a promoted one fails.
            finished = set(above.scores) | above.failed
            most = self._most(bracket, rung)
            kept = [c for c in state.ranked()[:most] if c not in finished]
        return sorted(state.started - set(kept))

    def _most(self, bracket: Bracket, rung: int) -> int:
        """Return how many of a rung may be promoted whatever fails: the checkpoints to keep."""
        if rung > 0:
            return bracket.rungs[rung].count
        count = bracket.rungs[rung + 1].count
        return count + max(count, FEWEST_SPARES)

    def _limit(self, bracket: Bracket, rung: int, failed_above: int) -> int:
        """Return how many of a rung may be promoted by now, replacements included."""
        return min(bracket.rungs[rung + 1].count + failed_above, self._most(bracket, rung))

    def _promotable(self, index: int, rung: int) -> list[int]:
        """Return the configurations of a rung that are certain to be promoted and wait for it."""
        state, above = self._state[index][rung], self._state[index][rung + 1]
        limit = self._limit(self.schedule.brackets[index], rung, len(above.failed))
        certain = max(0, limit - self._open(index, rung))
        return [c for c in state.ranked()[:certain] if c not in above.started]

    def _open(self, index: int, rung: int) -> int:
        """Return the largest number of trials of a rung that have yet to end."""
        bracket, state = self.schedule.brackets[index], self._state[index][rung]
        if rung == 0:
            return bracket.rungs[0].count - len(state.scores) - len(state.failed)
        below = self._state[index][rung - 1]
        limit = self._limit(bracket, rung - 1, len(state.failed))
        candidates = len(below.scores) + self._open(index, rung - 1)
        wanted = min(limit, candidates) - len(state.started)
        return len(state.running) + max(0, wanted)
