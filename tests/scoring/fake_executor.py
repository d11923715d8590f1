from collections import deque

from search.errors import StopRequestedError
from search.records import EpochRecord, Failure, FailureKind, TrialResult
from search.tuning import checkpoint
from search.tuning.executors import TrialStarted

OBJECTIVE = "robust_loss"


class FakeExecutor:
    """Trains nothing: the loss is smaller for larger sizes and best in the second epoch."""

    def __init__(
        self, workers=1, *, fail=(), dead=(), stop_after=None, size=lambda values: values["size"]
    ):
        self.workers, self.fail, self.dead, self.left = workers, fail, dead, stop_after
        self.size = size
        self.queue, self.specs = deque(), []

    @property
    def free(self):
        return self.workers - len(self.queue)

    def submit(self, spec):
        assert self.free > 0
        self.queue.append(spec)

    def wait(self, on_message):
        # The last submitted first: results come in another order than they were asked for.
        spec = self.queue.pop()
        self.specs.append(spec)
        on_message(TrialStarted(trial_id=spec.trial_id, worker=0, pid=1, device="fake"))
        epochs = []
        for number in range(1, spec.epochs + 1):
            if self.left == 0:
                raise StopRequestedError("as asked")
            self.left = None if self.left is None else self.left - 1
            loss = 1 / self.size(spec.values) + 0.1 * abs(number - 2) + (spec.seed % 7) / 100
            metrics = {OBJECTIVE: loss}
            epochs.append(
                EpochRecord(trial_id=spec.trial_id, epoch=number, metrics=metrics, seconds=0.0)
            )
            on_message(epochs[-1])
        spec.directory.mkdir(parents=True, exist_ok=True)
        (spec.directory / checkpoint.BEST).touch()
        failure = None
        if spec.trial_id in self.fail:
            failure = Failure(kind=FailureKind.ERROR, message="injected")
        return TrialResult(
            trial_id=spec.trial_id,
            epochs=tuple(epochs),
            parameters=int(10 * self.size(spec.values)),
            seconds=0.0,
            best_epoch=min(2, spec.epochs),
            failure=failure,
            learned=spec.trial_id not in self.dead,
        )
