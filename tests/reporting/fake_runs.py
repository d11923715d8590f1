"""Small made-up runs: the events, records and evaluations that reports are tested with."""

import heapq
import random

import numpy as np

from search.journal import EventKind
from search.records import (
    SYNTHETIC_NOTICE,
    Estimate,
    Evaluation,
    Failure,
    FailureKind,
    Split,
    Threshold,
    TrialRecord,
    TrialStatus,
    to_json,
)
from search.tuning.halving import Halving
from search.tuning.schedule import hyperband

DOCUMENTED = {
    "base_filters": 16,
    "separable": True,
    "activation": "relu",
    "batch_norm": True,
    "conv_dropout": 0.2,
    "head": "flatten",
    "dense_layers": 3,
    "crop_min_area": 1.0,
    "tone_jitter": 0.0,
    "flip": False,
    "learning_rate": 1e-3,
    "schedule": "constant",
    "batch_size": 16,
}
NASTY = 'a [bold]b[/bold] <script>alert("x")</script> & 影'


def trial(trial_id="0000", **changes):
    """A completed trial, with what a test wants different."""
    fields = {
        "trial_id": trial_id,
        "configuration": int(trial_id),
        "status": TrialStatus.COMPLETED,
        "values": DOCUMENTED,
        "epochs": 1,
        "target_epochs": 1,
        "seconds": 3.2,
        "score": 0.3,
        "metrics": {"loss": 0.2, "val_auc": 0.99, "stress_auc": 0.95, "robust_loss": 0.3},
        "parameters": 3_496_801,
    }
    return TrialRecord(**{**fields, **changes})


def failed(trial_id, message="no memory", kind=FailureKind.OUT_OF_MEMORY, **changes):
    return trial(
        trial_id,
        status=TrialStatus.FAILED,
        score=None,
        metrics={},
        failure=Failure(kind=kind, message=message, traceback="Traceback …"),
        **changes,
    )


def values(rng):
    return {
        "base_filters": rng.choice([8, 16, 24, 32]),
        "separable": rng.random() < 0.5,
        "activation": rng.choice(["relu", "gelu", "silu"]),
        "batch_norm": rng.random() < 0.5,
        "conv_dropout": rng.choice([0.0, 0.1, 0.3]),
        "head": rng.choice(["flatten", "global_average"]),
        "dense_layers": rng.choice([1, 2, 3]),
        "crop_min_area": rng.choice([0.3, 0.5, 1.0]),
        "tone_jitter": rng.choice([0.0, 0.2, 0.4]),
        "flip": rng.random() < 0.5,
        "learning_rate": 10 ** rng.uniform(-4, -2.5),
        "schedule": rng.choice(["constant", "cosine"]),
        "batch_size": rng.choice([16, 32, 64]),
    }


class FakeRun:
    """Plays a Hyperband search and its retraining as journal events."""

    def __init__(self, max_epochs=9, seed=1, seeds=1, start=1.79e9, failing=(5, 11)):
        self.rng = random.Random(seed)
        self.schedule = hyperband(max_epochs=max_epochs, factor=3)
        self.plan = self.schedule.plan(2.0)
        self.seeds = seeds
        self.time = start
        self.failing = failing

    def event(self, kind, passed=0.0, **fields):
        self.time += passed
        return {"event": kind.value, "time": self.time, **to_json(fields)}

    def events(self):
        yield self.event(
            EventKind.RUN_STARTED,
            pid=1,
            host="here",
            resumed=False,
            versions={},
            device="CPU, 2 cores",
        )
        yield self.event(EventKind.PLAN, 1.0, **self.plan)
        yield from self.search()
        yield from self.refit()

    def search(self):
        number, configuration = 0, 0
        for bracket in self.schedule.brackets:
            chosen = None
            for i, rung in enumerate(bracket.rungs):
                ended = []
                for j in range(rung.count):
                    trial_id = f"{number:04d}"
                    if chosen is None:
                        parent, mine = None, configuration
                        tried = DOCUMENTED if configuration == 0 else values(self.rng)
                        configuration += 1
                    else:
                        parent, mine, tried = chosen[j]
                    number += 1
                    yield self.event(
                        EventKind.TRIAL_CREATED,
                        0.3,
                        trial_id=trial_id,
                        configuration=mine,
                        iteration=0,
                        bracket=bracket.bracket,
                        rung=i,
                        parent=parent,
                        values=tried,
                        initial_epoch=rung.initial_epoch,
                        target_epochs=rung.epochs,
                        seed=1,
                        oracle={},
                    )
                    score = None
                    fails = number - 1 in self.failing and parent is None
                    for epoch in range(rung.initial_epoch + 1, rung.epochs + 1):
                        if fails:
                            break
                        # Better with epochs, and differently so for every configuration.
                        score = (0.2 + 0.05 * (mine % 7)) + 0.5 / epoch + self.rng.uniform(0, 0.05)
                        yield self.event(
                            EventKind.EPOCH,
                            2.0,
                            trial_id=trial_id,
                            epoch=epoch,
                            metrics=epoch_metrics(score),
                            seconds=2.0,
                        )
                    yield self.event(
                        EventKind.TRIAL_ENDED,
                        0.1,
                        trial_id=trial_id,
                        status="failed" if fails else "completed",
                        score=score,
                        epochs=rung.initial_epoch if fails else rung.epochs,
                        parameters=0 if fails else 200_000 + 1000 * mine,
                        seconds=2.0 * (rung.epochs - rung.initial_epoch),
                        costs={},
                        failure={"kind": "error", "message": NASTY, "traceback": ""}
                        if fails
                        else None,
                        notes=[],
                    )
                    if not fails:
                        ended.append((score, trial_id, mine, tried))
                ended.sort(key=lambda e: e[0])
                chosen = [(t, c, v) for _, t, c, v in ended]
                following = bracket.rungs[i + 1].count if i + 1 < len(bracket.rungs) else 0
                yield self.event(
                    EventKind.RUNG_CLOSED,
                    iteration=0,
                    bracket=bracket.bracket,
                    rung=i,
                    ranked=[t for t, _, _ in chosen],
                    promoted=[t for t, _, _ in chosen[:following]],
                )
        yield self.event(
            EventKind.SEARCH_ENDED,
            trials=number,
            failed=len(self.failing),
            epochs=self.plan["epochs"],
            seconds=300.0,
        )

    def refit(self):
        for role in ("documented", "winner"):
            for seed in range(self.seeds):
                yield self.event(
                    EventKind.REFIT_STARTED, role=role, seed=seed, epochs=6, values=DOCUMENTED
                )
                for epoch in range(1, 7):
                    score = (0.4 if role == "documented" else 0.2) + 0.3 / epoch + 0.01 * seed
                    yield self.event(
                        EventKind.REFIT_EPOCH,
                        2.0,
                        role=role,
                        seed=seed,
                        epoch=epoch,
                        metrics=epoch_metrics(score),
                        seconds=2.0,
                    )
                yield self.event(
                    EventKind.REFIT_ENDED,
                    role=role,
                    seed=seed,
                    kept_epoch=6,
                    epochs=6,
                    parameters=200_000,
                    seconds=12.0,
                    failure=None,
                )
        yield self.event(
            EventKind.TEST_SCORED,
            scorings=[{"role": "winner", "seed": 0, "accuracy": 0.912, "auc": 0.972}],
        )


class PooledRun(FakeRun):
    """Plays a search by several workers: their events interleave, and some workers are lost."""

    def __init__(self, workers=2, losing=(), **options):
        """`losing` has the numbers of the epochs, counted over the run, that end a worker."""
        super().__init__(**options)
        self.workers = workers
        self.losing = set(losing)
        self.plan = {**self.plan, "workers": workers, "refit_epochs": 12}
        self.halving = Halving(self.schedule)
        self.tried = {}

    def search(self):
        free, busy, queue, ids, epochs, closed = list(range(self.workers)), [], [], {}, 0, set()
        while True:
            while len(busy) + len(queue) < self.workers:
                slot = self.halving.next_slot()
                if slot is None:
                    break
                self.halving.start(slot)
                bracket = self.schedule.brackets[slot.bracket_index]
                rung = bracket.rungs[slot.rung]
                trial_id = f"{slot.configuration:04d}-{rung.epochs:03d}"
                parent = ids.get((slot.configuration, slot.rung - 1))
                ids[slot.configuration, slot.rung] = trial_id
                drawn = DOCUMENTED if slot.configuration == 0 else values(self.rng)
                tried = self.tried.setdefault(slot.configuration, drawn)
                yield self.event(
                    EventKind.TRIAL_CREATED,
                    0.01,
                    trial_id=trial_id,
                    configuration=slot.configuration,
                    iteration=bracket.iteration,
                    bracket=bracket.bracket,
                    rung=slot.rung,
                    parent=parent,
                    values=tried,
                    initial_epoch=rung.initial_epoch,
                    target_epochs=rung.epochs,
                    seed=1,
                )
                queue.append([slot, trial_id, rung.initial_epoch, rung.epochs])
            while queue and free:
                worker, job = free.pop(0), queue.pop(0)
                yield self.event(
                    EventKind.TRIAL_STARTED,
                    0.01,
                    trial_id=job[1],
                    worker=worker,
                    pid=1000 + worker,
                    device="CPU, 2 cores (tensorflow)",
                )
                heapq.heappush(busy, (self.time + self.rng.uniform(1.5, 2.5), worker, job))
            if not busy:
                break
            time, worker, job = heapq.heappop(busy)
            self.time, epochs = max(self.time, time), epochs + 1
            slot, trial_id, done, target = job
            if epochs in self.losing:
                yield self.event(
                    EventKind.WORKER_LOST,
                    trial_id=trial_id,
                    worker=worker,
                    pid=1000 + worker,
                    reason="killed by SIGKILL",
                    retry=True,
                )
                queue.insert(0, job)
                free.append(worker)
                continue
            job[2] = done = done + 1
            score = 0.2 + 0.05 * (slot.configuration % 7) + 0.5 / done + self.rng.uniform(0, 0.05)
            yield self.event(
                EventKind.EPOCH,
                trial_id=trial_id,
                epoch=done,
                metrics=epoch_metrics(score),
                seconds=2.0,
            )
            if done < target:
                heapq.heappush(busy, (self.time + self.rng.uniform(1.5, 2.5), worker, job))
                continue
            yield self.event(
                EventKind.TRIAL_ENDED,
                0.1,
                trial_id=trial_id,
                status="completed",
                score=score,
                epochs=target,
                parameters=200_000,
                seconds=2.0 * target,
                costs={},
                failure=None,
                notes=[],
            )
            self.halving.complete(slot, score=score, parameters=1)
            free.append(worker)
            for index, bracket in enumerate(self.schedule.brackets):
                for rung in range(len(bracket.rungs)):
                    if self.halving.closed(index, rung) and (index, rung) not in closed:
                        closed.add((index, rung))
                        yield self.event(
                            EventKind.RUNG_CLOSED,
                            iteration=bracket.iteration,
                            bracket=bracket.bracket,
                            rung=rung,
                            ranked=[ids[c, rung] for c in self.halving.ranked(index, rung)],
                            promoted=[ids[c, rung] for c in self.halving.promoted(index, rung)],
                        )
        yield self.event(
            EventKind.SEARCH_ENDED,
            trials=self.schedule.trials,
            failed=0,
            epochs=self.schedule.epochs,
            seconds=300.0,
        )


def epoch_metrics(score):
    return {
        "loss": score * 0.5,
        "accuracy": 0.95,
        "val_loss": score * 0.4,
        "val_auc": 1 - score * 0.02,
        "stress_loss": score * 0.8,
        "stress_auc": 1 - score * 0.08,
        "robust_loss": score,
        "robust_auc": 1 - score * 0.1,
    }


def dataset(synthetic=False):
    return {
        "source": {
            "kind": "folder",
            "root": "/data/chest_xray",
            "origin": "--data",
            "synthetic": synthetic,
        },
        "split": "patient",
        "seed": 8,
        "counts": {
            "train": {"NORMAL": 1079, "PNEUMONIA": 3106},
            "val": {"NORMAL": 270, "PNEUMONIA": 777},
            "test": {"NORMAL": 117, "PNEUMONIA": 214},
        },
        "patients": {
            "train": {"NORMAL": 960, "PNEUMONIA": 1955, "total": 2915},
            "val": {"NORMAL": 251, "PNEUMONIA": 488, "total": 739},
            "test": {"NORMAL": 112, "PNEUMONIA": 101, "total": 213},
        },
        "rejected": [{"path": f"train/NORMAL/{NASTY}.jpeg", "reason": "empty file"}],
        "leakage": {
            "val_images_sharing_a_patient_with_train": 0,
            "val_images": 1047,
            "test_patients_in_train": 0,
            "test_patients_in_train_ids": [],
        },
        "class_weights": {"NORMAL": 1.939, "PNEUMONIA": 0.674},
        "prevalence": 0.742,
        "cache": {"dir": "/root/.cache/xray-search", "files": [], "bytes": 53_000_000},
        "notes": [],
        "alarms": ["1 file(s) are left out, see the list of reasons"],
    }


def evaluation(seeds=1, synthetic=False, difference=None, same=False):
    """The content of `evaluation.json`."""
    won = DOCUMENTED if same else {**DOCUMENTED, "head": "global_average", "crop_min_area": 0.3}
    if difference is None:
        difference = {
            "accuracy": Estimate(value=0.136, low=0.09, high=0.18),
            "auc": Estimate(value=0.048, low=0.02, high=0.075),
            "loss": Estimate(value=-0.54, low=-0.7, high=-0.4),
        }
    return to_json(
        {
            "synthetic": synthetic,
            "notice": SYNTHETIC_NOTICE if synthetic else "",
            "objective": "robust_loss",
            "winner": {
                "values": won,
                "parameters": 176_000,
                "exported_seed": seeds - 1,
                "test": [scored("winner", s, 0.9) for s in range(seeds)],
                "validation": [],
            },
            "documented": {
                "values": DOCUMENTED,
                "parameters": 3_496_801,
                "test": [scored("documented", s, 0.76) for s in range(seeds)],
                "validation": [],
            },
            "difference": difference,
            "mcnemar": {"only_winner_right": 52, "only_documented_right": 9, "p_value": 0.0004},
        }
    )


def ablation():
    """The content of `ablation.json`: flips, from both bases."""
    effect = {"value": -0.01, "low": -0.03, "high": 0.01}
    flips = {
        "base": "documented",
        "factor": "flip",
        "question": "flip",
        "before": "off",
        "after": "on",
        "failed": None,
        "validation": {
            "difference": {"value": 0.012, "low": -0.02, "high": 0.04},
            "answer": "can't be told apart",
        },
        "test": {
            "answer": "can't be told apart",
            "metrics": {"loss": {"over_patients": effect, "over_seeds": {"value": -0.01}}},
        },
    }
    failed = {**flips, "base": "winner", "failed": "no memory", "validation": None, "test": None}
    return {
        "objective": "robust_loss",
        "repeats": 3,
        "epochs": 12,
        "test_metrics": ["loss", "auc"],
        "test_openings": 1,
        "method": {"answer": "It helps where every interval says so."},
        "notes": ["A caution."],
        "bases": [
            {"base": "documented", "values": DOCUMENTED},
            {"base": "winner", "values": evaluation()["winner"]["values"]},
        ],
        "answers": [flips, failed, "damaged"],
        "questions": [
            {"name": "flip", "question": "Do flips help?", "sentence": "Nobody can tell."},
            {"name": "network", "question": "Never asked", "sentence": ""},
        ],
    }


EXPORTS = [
    {
        "format": "keras",
        "path": "model.keras",
        "status": "written",
        "reason": "",
        "bytes": 3_134_699,
        "images": 259,
        "max_difference": 7.9e-8,
        "runtime": "keras 3.15.1",
    },
    {"format": "onnx", "path": "model.onnx", "status": "failed", "reason": f"no {NASTY}"},
]
"""The content of `exports.json`."""


def scored(role, seed, level):
    def around(value):
        return Estimate(value=value, low=value - 0.03, high=min(1.0, value + 0.03))

    named = {
        name: around(level + 0.01 * i + 0.002 * seed)
        for i, name in enumerate(("accuracy", "recall", "specificity", "precision", "f1"))
    }
    counts = {"tn": 90, "fp": 27, "fn": 8, "tp": 206}
    return Evaluation(
        role=role,
        seed=seed,
        split=Split.TEST,
        count=331,
        ranking={"auc": around(level + 0.05), "loss": around(1 - level)},
        at_half=named,
        at_threshold=named,
        threshold=Threshold(
            value=0.312,
            rule="sensitivity=0.95",
            chosen_on="stressed validation (n = 2094)",
            reached=0.951,
        ),
        confusion_at_half=counts,
        confusion_at_threshold={**counts, "tn": 101, "fp": 16},
    )


def predictions(level, seed=3):
    rng = np.random.default_rng(seed)
    labels = (np.arange(331) >= 117).astype(np.int8)
    logits = rng.normal(size=331) + level * (2 * labels - 1)
    return labels, 1 / (1 + np.exp(-logits))
