"""How many epochs do searches need for the same result? Ours, KerasTuner's, Optuna's, one epoch.

The design, fixed before the first result, is in README.md beside this file. From the checkout:

    python results/studies/tuners/study.py run --data demo --seeds 10
    python results/studies/tuners/study.py run --data ../shared/chest_xray --seeds 3
    python results/studies/tuners/study.py table

`run` goes on where it was stopped: every finished search is a line of searches.jsonl beside this
file. Two searches run at a time, one thread each. Needs `pip install -e '.[bench]'`.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

SIZE, MAX_EPOCHS, FACTOR = 64, 9, 3
HELD = {"separable": True, "base_filters": 16, "activation": "relu"}
OUT = Path(__file__).parent
FOUND = OUT / "searches.jsonl"
REFERENCE = "keras_tuner.Hyperband"


class Search:
    """One search: what all contenders share, and the epochs that were trained.

    Attributes:
        rows: (trial, epoch, objective) of every finished epoch, in order.
        budget: Epochs after which a search without a schedule starts no further trial.
    """

    def __init__(self, data: str, seed: int, directory: Path) -> None:
        """Load the images and declare the space."""
        import keras_tuner as kt

        from hypermodels import DocumentedCNN
        from search.config import direction, with_preset
        from search.data.prepare import prepare
        from search.data.sources import find_source
        from search.tuning import space as spaces
        from search.tuning.model import Setting
        from search.tuning.schedule import hyperband

        # The demo's preset brings its views; schedule and budget are this study's own.
        preset = "demo" if data == "demo" else ""
        config = with_preset(preset, {"data": data, "image_size": SIZE})
        self.dataset, _ = prepare(config, find_source(config))
        self.objective = config.objective
        self.direction = direction(self.objective)
        self.hypermodel = DocumentedCNN(
            image_size=SIZE, train_size=len(self.dataset.train), epochs=MAX_EPOCHS
        )
        declared = kt.HyperParameters()
        self.hypermodel.declare(declared)
        self.space = spaces.narrow(declared, fix=HELD, vary=())
        self.setting = Setting(
            dataset=self.dataset,
            hypermodel=self.hypermodel,
            objective=self.objective,
            prevalence=self.dataset.prevalence,
        )
        self.schedule = hyperband(max_epochs=MAX_EPOCHS, factor=FACTOR)
        self.budget = self.schedule.epochs
        self.seed = seed
        self.directory = directory
        self.rows: list[tuple[str, int, float]] = []

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the training images and labels, as `Model.fit` takes them."""
        train = self.dataset.train
        return train.open_array()[train.rows], train.labels.astype(np.float32)[:, None]


def ours(search: Search, *, prior: bool) -> None:
    """Our Hyperband, one trial after another in this process."""
    from search.run_directory import RunDirectory
    from search.tuning import space as spaces
    from search.tuning.executors import InProcessExecutor
    from search.tuning.loop import SearchLoop
    from search.tuning.oracle import ScheduleOracle
    from search.tuning.proposals import PriorSource, UniformSource
    from search.tuning.space import Belief

    run = RunDirectory(search.directory / "run")
    run.create()
    queue = [spaces.defaults(search.space)]
    source = UniformSource(search.space, queue=queue, seed=search.seed)
    if prior:
        known = {n: Belief(value=v, spread=s) for n, (v, s) in search.hypermodel.prior.items()}
        source = PriorSource(
            search.space,
            prior=known,
            queue=[*queue, spaces.centre(search.space, known)],
            seed=search.seed,
            levels=search.schedule.levels,
            factor=FACTOR,
            max_epochs=MAX_EPOCHS,
        )

    def listen(event: dict[str, Any]) -> None:
        if event["event"] == "epoch":
            row = (event["trial_id"], event["epoch"], event["metrics"][search.objective])
            search.rows.append(row)

    SearchLoop(
        oracle=ScheduleOracle(
            schedule=search.schedule,
            source=source,
            space=search.space,
            objective=search.objective,
            direction=search.direction,
            directory=run.tuner_dir,
        ),
        executor=InProcessExecutor(search.setting, should_stop=lambda: False),
        run=run,
        seed=search.seed,
        listener=listen,
    ).search()


def one_epoch(search: Search) -> None:
    """Train all configurations for one epoch and the best one on (Egele et al., 2023).

    As many configurations as the budget leaves beside the R - 1 epochs of the best.
    """
    from search.records import TrialSpec
    from search.tuning import checkpoint
    from search.tuning import space as spaces
    from search.tuning.trial import train_trial

    sign = 1 if search.direction == "max" else -1
    scores = {}
    for number in range(search.budget - MAX_EPOCHS + 1):
        values = spaces.sample(search.space, seed=f"{search.seed}/{number}")
        spec = TrialSpec(
            trial_id=str(number),
            values=values,
            seed=spaces.trial_seed(search.seed, values),
            epochs=1,
            directory=search.directory / str(number),
        )
        result = train_trial(spec, search.setting)
        value = result.epochs[-1].metrics[search.objective] if result.epochs else np.nan
        search.rows.append((spec.trial_id, 1, value))
        scores[number] = (sign * value if np.isfinite(value) else -np.inf, spec)
    _, best = max(scores.values(), key=lambda scored: scored[0])
    import dataclasses

    longer = dataclasses.replace(best, epochs=MAX_EPOCHS)
    assert checkpoint.saved_epoch(best.directory / checkpoint.LAST) == 1
    for record in train_trial(longer, search.setting).epochs[1:]:
        search.rows.append((best.trial_id, record.epoch, record.metrics[search.objective]))


def plain_hypermodel(search: Search) -> Any:
    """Return the HyperModel whose trainings log our objective: how users add a metric."""
    import keras
    import keras_tuner as kt

    from search.tuning.model import averaged
    from search.tuning.normalization import StatisticsImages, reestimated
    from search.tuning.validation import Validator

    images = StatisticsImages(search.dataset.train)
    validator = Validator(search.dataset, prevalence=search.dataset.prevalence)

    class Validated(keras.callbacks.Callback):
        def __init__(self, name: str) -> None:
            super().__init__()
            self.name = name

        def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
            assert logs is not None
            with averaged(self.model), reestimated(self.model, images):
                logs.update(validator.metrics(self.model))
            search.rows.append((self.name, epoch + 1, float(logs[search.objective])))

    class Plain(kt.HyperModel):
        trials = 0

        def build(self, hp: kt.HyperParameters) -> Any:
            return search.hypermodel.build(hp)

        def fit(self, hp: kt.HyperParameters, model: Any, *args: Any, **kwargs: Any) -> Any:
            name, Plain.trials = f"{Plain.trials:03d}", Plain.trials + 1
            callbacks = [Validated(name), *kwargs.pop("callbacks", ())]
            return search.hypermodel.fit(hp, model, *args, callbacks=callbacks, **kwargs)

    return Plain()


def keras_tuner_search(search: Search, *, kind: str) -> None:
    """KerasTuner's own Hyperband, on its schedule for R and η, or random search."""
    import keras
    import keras_tuner as kt

    class NoTensorBoard:
        """KerasTuner imports tensorboard in every trial; TensorFlow no longer brings it."""

        def _configure_tensorboard_dir(
            self, callbacks: Any, trial: Any, execution: int = 0
        ) -> None:
            pass

    keras.utils.set_random_seed(search.seed)
    common = {
        "objective": kt.Objective(search.objective, search.direction),
        "hyperparameters": search.space.copy(),
        "seed": search.seed,
        "directory": search.directory,
        "project_name": kind,
    }
    x, y = search.arrays()
    fit: dict[str, Any] = {"class_weight": search.dataset.class_weights, "verbose": 0}
    if kind == "hyperband":
        base = type("Plain", (NoTensorBoard, kt.Hyperband), {})
        tuner = base(plain_hypermodel(search), max_epochs=MAX_EPOCHS, factor=FACTOR, **common)
    else:
        base = type("Plain", (NoTensorBoard, kt.RandomSearch), {})
        trials = -(-search.budget // MAX_EPOCHS)
        tuner = base(plain_hypermodel(search), max_trials=trials, **common)
        fit["epochs"] = MAX_EPOCHS
    tuner.search(x, y, **fit)


def optuna_search(search: Search) -> None:
    """Optuna: TPE with its Hyperband pruner, which hears of every epoch."""
    import keras
    import keras_tuner as kt
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    keras.utils.set_random_seed(search.seed)
    hypermodel = plain_hypermodel(search)
    x, y = search.arrays()

    def objective(trial: Any) -> float:
        hp = kt.HyperParameters()
        hp.values = suggested(trial, search.space)
        keras.utils.clear_session()

        def report(epoch: int, logs: dict[str, Any]) -> None:
            trial.report(float(logs[search.objective]), step=epoch + 1)
            if epoch + 1 < MAX_EPOCHS and trial.should_prune():
                raise optuna.TrialPruned

        hypermodel.fit(
            hp,
            hypermodel.build(hp),
            x,
            y,
            class_weight=search.dataset.class_weights,
            epochs=MAX_EPOCHS,
            verbose=0,
            callbacks=[keras.callbacks.LambdaCallback(on_epoch_end=report)],
        )
        return search.rows[-1][2]

    def stop_at_budget(study: Any, _trial: Any) -> None:
        if len(search.rows) >= search.budget:
            study.stop()

    study = optuna.create_study(
        direction="maximize" if search.direction == "max" else "minimize",
        study_name=f"seed {search.seed}",  # decides on the bracket of a trial
        sampler=optuna.samplers.TPESampler(seed=search.seed),
        pruner=optuna.pruners.HyperbandPruner(
            min_resource=1, max_resource=MAX_EPOCHS, reduction_factor=FACTOR
        ),
    )
    study.optimize(objective, catch=(Exception,), callbacks=[stop_at_budget])


def suggested(trial: Any, space: Any) -> dict[str, Any]:
    """Ask an Optuna trial for the active hyperparameters; numbers by place, to keep their order."""
    import keras_tuner as kt

    walked = kt.HyperParameters()
    for hp in space.space:
        walked.merge([hp])
        if not walked.is_active(hp):
            continue
        values = list(hp.values)
        if isinstance(hp, kt.engine.hyperparameters.Float) and hp.step is None:
            log = hp.sampling == "log"
            value = trial.suggest_float(hp.name, hp.min_value, hp.max_value, log=log)
        elif len(values) == 1:
            value = values[0]
        elif isinstance(values[0], bool | str):
            value = trial.suggest_categorical(hp.name, values)
        else:
            value = values[trial.suggest_int(f"{hp.name} (place)", 0, len(values) - 1)]
        walked.values[hp.name] = value
    return dict(walked.values)


CONTENDERS: dict[str, Callable[[Search], None]] = {
    "ours, prior": lambda search: ours(search, prior=True),
    "ours, uniform": lambda search: ours(search, prior=False),
    REFERENCE: lambda search: keras_tuner_search(search, kind="hyperband"),
    "keras_tuner.RandomSearch": lambda search: keras_tuner_search(search, kind="random"),
    "Optuna TPE + HyperbandPruner": optuna_search,
    "one epoch, then the best": one_epoch,
}


def work(job: dict[str, Any]) -> dict[str, Any]:
    """Do one search in a process of its own, and return its epochs."""
    from search import backend

    backend.load()
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        search = Search(job["data"], job["seed"], Path(folder))
        CONTENDERS[job["contender"]](search)
    return {
        **job,
        "objective": search.objective,
        "direction": search.direction,
        "budget": search.budget,
        "seconds": round(time.perf_counter() - begin, 1),
        "rows": [(trial, epoch, round(value, 5)) for trial, epoch, value in search.rows],
    }


def found() -> list[dict[str, Any]]:
    """Return the searches that ended."""
    return [json.loads(line) for line in FOUND.open()] if FOUND.exists() else []


def run(options: argparse.Namespace) -> None:
    """Do the searches that are missing, two at a time, all contenders of a seed together."""
    os.environ.update(TF_NUM_INTRAOP_THREADS="1", TF_NUM_INTEROP_THREADS="1", OMP_NUM_THREADS="1")
    data = Path(options.data).name
    jobs = [
        {
            "name": f"{data}-{seed}-{place}",
            "set": data,
            "data": options.data,
            "seed": seed,
            "contender": contender,
        }
        for seed in range(1, options.seeds + 1)
        for place, contender in enumerate(CONTENDERS)
    ]
    done = {search["name"] for search in found()}
    missing = [job for job in jobs if job["name"] not in done]
    with get_context("spawn").Pool(2, maxtasksperchild=1) as pool, FOUND.open("a") as file:
        for count, one in enumerate(pool.imap_unordered(work, missing), 1):
            file.write(json.dumps(one) + "\n")
            file.flush()
            epochs, seconds = len(one["rows"]), one["seconds"]
            print(f"{count}/{len(missing)} {one['name']}: {epochs} epochs in {seconds:.0f} s")


def best_so_far(job: dict[str, Any]) -> np.ndarray:
    """Return the best objective after 1, 2, … epochs, larger is better, to the budget."""
    sign = 1 if job["direction"] == "max" else -1
    values = np.array([sign * row[2] if row[2] is not None else np.nan for row in job["rows"]])
    best = np.fmax.accumulate(np.where(np.isfinite(values), values, -np.inf))[: job["budget"]]
    return np.concatenate([best, np.full(job["budget"] - len(best), best[-1])])


def table() -> None:
    """Write table.csv and tuners.png: epochs to reach the reference's final result, and results."""
    jobs = found()
    rows = []
    for data in sorted({job["set"] for job in jobs}):
        mine = {(j["contender"], j["seed"]): best_so_far(j) for j in jobs if j["set"] == data}
        seeds = sorted(seed for contender, seed in mine if contender == REFERENCE)
        for contender in CONTENDERS:
            shared = [seed for seed in seeds if (contender, seed) in mine]
            if not shared:
                continue
            curves = np.array([mine[contender, seed] for seed in shared])
            goals = np.array([mine[REFERENCE, seed][-1] for seed in shared])
            reached = curves >= goals[:, None]
            budget = curves.shape[1]
            # A search that does not get there counts as having needed its whole budget.
            needed = np.where(reached.any(1), reached.argmax(1) + 1, budget)
            reference = np.array(
                [(mine[REFERENCE, seed] >= goals[i]).argmax() + 1 for i, seed in enumerate(shared)]
            )
            low, high = geometric_interval(reference / needed)
            rows.append(
                {
                    "data": data,
                    "search": contender,
                    "seeds": len(shared),
                    "reached": int(reached.any(1).sum()),
                    "epochs needed, median": float(np.median(needed)),
                    "times fewer": float(np.exp(np.mean(np.log(reference / needed)))),
                    "low": low,
                    "high": high,
                    "final, mean": float(np.mean(curves[:, -1])),
                    "final minus reference": float(np.mean(curves[:, -1] - goals)),
                }
            )
    with open(OUT / "table.csv", "w", newline="") as handle:
        writer = csv.DictWriter(handle, list(rows[0]))
        writer.writeheader()
        for row in rows:
            cells = {k: f"{v:.3f}" if isinstance(v, float) else v for k, v in row.items()}
            writer.writerow(cells)
            print(cells)
    draw(jobs)


def geometric_interval(ratios: np.ndarray) -> tuple[float, float]:
    """Return the 95% percentile bootstrap interval of the geometric mean over seeds."""
    drawn = np.random.default_rng(0).integers(0, len(ratios), (5000, len(ratios)))
    low, high = np.percentile(np.exp(np.log(ratios)[drawn].mean(axis=1)), [2.5, 97.5])
    return float(low), float(high)


def draw(jobs: list[dict[str, Any]]) -> None:
    """Draw the mean best so far against epochs, by data set."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    sets = sorted({job["set"] for job in jobs})
    figure = Figure(figsize=(6 * len(sets), 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    for axis, data in zip(figure.subplots(1, len(sets), squeeze=False)[0], sets, strict=True):
        for contender in CONTENDERS:
            curves = [
                best_so_far(j) for j in jobs if j["set"] == data and j["contender"] == contender
            ]
            if curves:
                mean = np.mean(curves, axis=0)
                axis.plot(np.arange(1, len(mean) + 1), mean, label=f"{contender} ({len(curves)})")
        axis.set_title(data)
        axis.set_xlabel("epochs trained, all trials together")
        axis.set_ylabel(f"best {jobs[0]['objective']} so far, mean over seeds")
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    figure.savefig(OUT / "tuners.png", dpi=110)


def main() -> int:
    """Run searches, or make the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("stage", choices=["run", "table"])
    parser.add_argument("--data", default="demo")
    parser.add_argument("--seeds", type=int, default=10)
    options = parser.parse_args()
    run(options) if options.stage == "run" else table()
    return 0


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[3]))
    sys.exit(main())
