"""What only a GPU can show, on whichever backend it has.

`results/studies/speed/gpu_session.py` runs it.

With XRAY_SEARCH_REHEARSAL=1 they run on a CPU too, so that they are known to work before a GPU is
lent; what they say of the device is then not asserted.
"""

import math
import os
import subprocess
import sys
from contextlib import closing

import keras
import numpy as np
import pytest

from hypermodels import DocumentedCNN
from search import backend
from search.tuning import checkpoint
from search.tuning.devices import find_gpus, worker_environments
from search.tuning.executors import TrialStarted
from search.tuning.model import Setting
from search.tuning.pool import WorkerPool
from search.tuning.trial import train_trial
from tests.tuning.fakes import setting_of, spec

REHEARSAL = os.environ.get("XRAY_SEARCH_REHEARSAL") == "1"

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not (find_gpus() or REHEARSAL), reason="no GPU here"),
]

# Little of everything that is random on the device: each layer more is compiled seven times here.
VALUES = {
    **{"base_filters": 8, "dense_layers": 1, "dense_units_1": 32, "batch_size": 12},
    **{"crop_min_area": 0.5, "head": "global_average"},
}


@pytest.fixture
def setting(tiny_dataset) -> Setting:
    return setting_of(tiny_dataset, DocumentedCNN(image_size=32, train_size=36, epochs=2))


def test_the_backend_sees_the_gpu():
    assert REHEARSAL or "gpu" in backend.device()


def test_a_promoted_trial_ends_where_one_without_a_pause_does(setting, tmp_path):
    train_trial(spec(tmp_path, "first", values=VALUES, epochs=1), setting)
    parent = tmp_path / "first" / checkpoint.LAST
    child = spec(tmp_path, "child", values=VALUES, initial_epoch=1, parent_checkpoint=parent)
    paused = train_trial(child, setting)
    whole = train_trial(spec(tmp_path, "whole", values=VALUES), setting)
    assert paused.failure is None
    assert whole.failure is None
    # Sums on a GPU have no fixed order, and a few steps amplify that.
    assert paused.epochs[-1].metrics["robust_loss"] == pytest.approx(
        whole.epochs[-1].metrics["robust_loss"], rel=0.02
    )


def test_mixed_precision_trains(setting, tmp_path):
    mixed = spec(tmp_path, "mixed", values=VALUES, epochs=1, precision="mixed_bfloat16")
    result = train_trial(mixed, setting)
    assert result.failure is None
    assert math.isfinite(result.epochs[-1].metrics["robust_loss"])
    assert keras.config.dtype_policy().name == "float32"


def test_workers_share_a_gpu(setting, tmp_path):
    messages = []
    pool = WorkerPool(
        setting,
        environments=worker_environments(2, gpus=find_gpus()[:1]),
        log_dir=tmp_path / "logs",
        should_stop=lambda: False,
    )
    with closing(pool):
        for name in ("a", "b", "c"):
            pool.submit(spec(tmp_path, name, values=VALUES, epochs=1))
        results = [pool.wait(messages.append) for _ in range(3)]
    assert [result.failure for result in results] == [None] * 3
    losses = [result.epochs[-1].metrics["robust_loss"] for result in results]
    assert np.ptp(losses) < 0.02 * max(losses)
    started = [message for message in messages if isinstance(message, TrialStarted)]
    assert {message.worker for message in started} == {0, 1}
    assert REHEARSAL or all("gpu" in message.device for message in started)


@pytest.mark.skipif(
    keras.backend.backend() != "jax" or REHEARSAL, reason="only JAX takes its share beforehand"
)
def test_two_processes_get_the_shares_they_were_given():
    program = (
        "from search import backend; backend.load()\n"
        "import jax; print(jax.local_devices()[0].memory_stats()['bytes_limit'])"
    )
    shares = []
    for environment in worker_environments(2, gpus=find_gpus()[:1]):
        done = subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
        shares.append(int(done.stdout.split()[-1]) / 2**20)
    memory = find_gpus()[0].memory_mb
    assert all(0.35 * memory < share < 0.5 * memory for share in shares)
