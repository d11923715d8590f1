"""Ray: a search on two nodes, one of which is stopped in the middle; and what is refused."""

import contextlib
import os
import pickle
import re
import secrets
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from search.errors import WorkerError
from search.run_directory import RunDirectory
from search.tuning.ray import RayCluster
from search.tuning.worker import Broken, RemoteWorker, rooted
from tests.tuning.fakes import spec
from tests.tuning.killable import ROOT, start
from tests.tuning.on_ray import SCHEDULE
from tests.tuning.replay import assert_same


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def in_session(leader: int) -> list[int]:
    """Return the processes that a session leader's descendants are, dead ones left out."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            # pid (name) state ppid pgrp session …; a name may hold spaces.
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except (OSError, NotADirectoryError):
            continue
        if int(fields[3]) == leader and fields[0] not in "ZX":
            found.append(int(entry.name))
    return found


def kill_session(leader: int) -> None:
    for pid in in_session(leader):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


class Cluster:
    """Two nodes on this machine, each with one CPU for Ray and a session of processes."""

    def __init__(self, folder: Path) -> None:
        self.address = f"127.0.0.1:{free_port()}"
        self.environment = {
            **os.environ,
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
        }
        self._folder = folder
        head = ["--head", f"--port={self.address.partition(':')[2]}", "--include-dashboard=false"]
        self.nodes = [self._start("head", *head)]
        self.nodes.append(self._start("other", f"--address={self.address}"))

    def _start(self, name: str, *arguments: str) -> subprocess.Popen:
        log = self._folder / f"{name}.log"
        command = [str(Path(sys.executable).with_name("ray")), "start", *arguments]
        command += ["--num-cpus=1", "--object-store-memory=80000000", "--block"]
        with log.open("w") as output:
            process = subprocess.Popen(
                command,
                cwd=self._folder,  # not the checkout: nodes get the code from the search
                env={**self.environment, "PYTHONPATH": ""},
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        deadline = time.monotonic() + 120
        while "This command will now block" not in log.read_text():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        return process

    def close(self) -> None:
        for node in self.nodes:
            kill_session(node.pid)
            node.wait()


@pytest.fixture
def cluster(tmp_path):
    pytest.importorskip("ray")
    made = Cluster(tmp_path)
    try:
        yield made
    finally:
        made.close()


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_search_on_two_nodes_survives_the_loss_of_one(tmp_path, cluster):
    alone, shared = RunDirectory(tmp_path / "alone"), RunDirectory(tmp_path / "shared")
    assert start("on_ray", alone.root, tmp_path).wait(timeout=200) == 0
    search = start(
        "on_ray", shared.root, tmp_path, cluster.address, environment=cluster.environment
    )
    try:
        lost = stop_the_other_node_in_the_middle_of_a_trial(shared, cluster, search)
        assert search.wait(timeout=300) == 0
    finally:
        search.kill()
        search.wait()
    (loss,) = [e for e in shared.events() if e["event"] == "worker_lost"]
    assert (loss["trial_id"], loss["pid"], loss["retry"]) == (*lost, True)
    assert loss["reason"] in ("its node was lost", "neither its process nor its node answers")
    # What the lost worker had finished was not trained again.
    assert_same(alone.root, shared.root, SCHEDULE)
    # The search has left nothing running on the node that is still there.
    deadline = time.monotonic() + 30
    while workers_on(cluster.nodes[0].pid):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert not in_session(cluster.nodes[1].pid)


def stop_the_other_node_in_the_middle_of_a_trial(
    run: RunDirectory, cluster: Cluster, search: subprocess.Popen
) -> tuple[str, int]:
    """Kill every process of the node after an epoch that is not its trial's last."""
    deadline = time.monotonic() + 400
    while time.monotonic() < deadline:
        assert search.poll() is None
        running: dict[str, dict] = {}
        for event in run.events():
            if event["event"] == "trial_started":
                running[event["trial_id"]] = {**event, "epochs": 0}
            elif event["event"] == "epoch":
                running[event["trial_id"]]["epochs"] += 1
            elif event["event"] == "trial_ended":
                del running[event["trial_id"]]
        there = in_session(cluster.nodes[1].pid)
        for trial_id, started in running.items():
            if started["pid"] in there and started["epochs"]:
                kill_session(cluster.nodes[1].pid)
                cluster.nodes[1].wait()
                return trial_id, started["pid"]
        time.sleep(0.05)
    raise AssertionError("no trial had an epoch behind it on the second node")


def workers_on(leader: int) -> list[int]:
    found = []
    for pid in in_session(leader):
        with contextlib.suppress(OSError):
            if b"RemoteWorker" in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(pid)
    return found


def test_a_cluster_that_does_not_answer_is_named_with_the_remedy():
    pytest.importorskip("ray")
    address = f"127.0.0.1:{free_port()}"
    with pytest.raises(WorkerError, match=rf"--address {address}.*RAY\.md"):
        RayCluster(address=address, hypermodel=object())


@pytest.mark.parametrize(
    ("shared", "versions", "words"),
    [
        ("missing.npy", {}, r"missing\.npy is not there on .*every node mounts"),
        (".", {"keras": "0.1"}, r"has keras .*, the search 0\.1; install the same"),
    ],
)
def test_a_node_that_cannot_work_says_why(tmp_path, shared, versions, words):
    options = {
        "environment": {},
        "gpus": 0.5,
        "log_file": tmp_path / "worker-0.log",
        "shared": (tmp_path / shared,),
        "versions": versions,
    }
    code = (
        "import pickle, sys\n"
        "from search.tuning.worker import RemoteWorker\n"
        "worker = RemoteWorker(b'', **pickle.load(sys.stdin.buffer))\n"
        "heard = []\n"
        "while True:\n"
        "    messages, _, ended = worker.receive()\n"
        "    heard += messages\n"
        "    if ended: break\n"
        "sys.__stdout__.flush()\n"
        "open(sys.argv[1], 'wb').write(pickle.dumps(heard))\n"
    )
    # In a process of its own: a worker sends what it prints to its log.
    subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "heard")],
        cwd=ROOT,
        input=pickle.dumps(options),
        check=True,
        stderr=subprocess.DEVNULL,
    )
    (broken,) = pickle.loads((tmp_path / "heard").read_bytes())
    assert isinstance(broken, Broken)
    assert re.search(words, broken.message)


@pytest.mark.parametrize(
    ("cpus", "gpus", "places"),
    [(1, 0.0, 20), (4, 0.0, 5), (4, 0.2, 4), (1, 0.2, 5), (1, 0.25, 4), (1, 1.0, 1), (32, 0.0, 0)],
)
def test_as_many_workers_as_nodes_have_room_for(cpus, gpus, places):
    class FakeRay:
        @staticmethod
        def nodes():
            return [
                {"Alive": True, "Resources": {"CPU": 16.0, "GPU": 1.0}},
                {"Alive": True, "Resources": {"CPU": 4.0}},
                {"Alive": True, "Resources": {}},
                {"Alive": False, "Resources": {"CPU": 64.0, "GPU": 8.0}},
            ]

    cluster = object.__new__(RayCluster)
    cluster.ray, cluster.cpus, cluster.gpus = FakeRay, cpus, gpus
    assert cluster.places == places
    assert cluster.nodes == 3


def test_a_node_gets_absolute_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    parent = Path("results/b/checkpoint.weights.h5")
    found = rooted(spec(Path("results"), "a", parent_checkpoint=parent))
    assert found.directory == tmp_path / "results" / "a"
    assert found.parent_checkpoint == tmp_path / parent
    assert rooted(found) == found
    assert RemoteWorker.__module__ == "search.tuning.worker"
