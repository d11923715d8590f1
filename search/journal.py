"""The run directory: paths, the append-only journal, atomic JSON, the lock, the manifest.

The journal is the truth. An event is one line of JSON, flushed and fsynced before the caller goes
on; a line cut short by a kill is dropped when the journal is read. Everything else in the run
directory can be rebuilt from it or is written once, to a temporary name, then renamed.

Knows no Keras and no KerasTuner.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import socket
import time
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Any, TextIO

from search.errors import RunDirectoryError, StorageError
from search.records import to_json

RESULTS_DIR = "--results-dir"
"""The option that moves everything a run writes."""

KEPT_WEIGHTS = "best.weights.h5"
"""The checkpoint of the epoch that a retraining keeps, in its folder under `refit/`."""

NO_LOCKS = frozenset({errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP})
"""What a file system without locks answers to `flock`."""

LEFTOVER = re.compile(r"\.lock|\.probe-\d+|\..+\.\d+\.tmp")
"""Names of the files that a run writes for a moment, and leaves when it is killed just then."""

ONE_FILE = ("--json", "--share", "--light")
"""Options that name what is made from a finished run; nothing is to be resumed."""


class EventKind(StrEnum):
    """The kinds of journal event; each line has "event" and "time" (Unix seconds) besides.

    Listeners (the terminal, the plain log) receive the same dictionaries.
    """

    RUN_STARTED = "run_started"
    """A process took the run: pid, host, resumed, versions, backend (Keras'), device."""
    PLAN = "plan"
    """The schedule, see `tuning/schedule.py`: tuner, brackets [{iteration, bracket, rungs
    [{count, initial_epoch, epochs}]}], configurations, trials, epochs, seconds_per_epoch,
    seconds_per_trial, estimated_seconds (both None while unmeasured), refit_epochs (of all
    retrainings together, at most), workers, notes [str]."""
    TRIAL_CREATED = "trial_created"
    """trial_id, configuration, iteration, bracket, rung, parent, values, initial_epoch,
    target_epochs, seed, oracle (what the oracle needs to be rebuilt)."""
    EPOCH = "epoch"
    """A finished epoch, written after its checkpoint: trial_id, epoch, metrics, seconds."""
    TRIAL_STARTED = "trial_started"
    """A worker took the trial, anew or after another one was lost: trial_id, worker, pid,
    device."""
    WORKER_LOST = "worker_lost"
    """A worker died, hung or took too long: trial_id, worker, pid, reason, retry (whether the
    trial goes on elsewhere)."""
    TRIAL_ENDED = "trial_ended"
    """trial_id, status, score, epochs (count, parents included), parameters, seconds, costs,
    failure {kind, message, traceback} or None, notes [str]."""
    RUNG_CLOSED = "rung_closed"
    """iteration, bracket, rung, ranked (trial ids, best first), promoted (trial ids)."""
    SEARCH_ENDED = "search_ended"
    """trials, failed, epochs, seconds, oracle_seconds (asking and telling the oracle, its files
    and the journal's lines about whole trials, in this process of the run)."""
    REFIT_STARTED = "refit_started"
    """A worker took a retraining, anew or after another one was lost: role ("documented",
    "finalist_1", …; "winner_train+val" for the winner's second one), seed (repetition 0, 1, …),
    epochs, values, folder (under `refit/`; two trainings that differ in anything have two), worker,
    pid, all_epochs (of all retrainings together)."""
    REFIT_EPOCH = "refit_epoch"
    """role, seed, epoch, metrics, seconds."""
    REFIT_ENDED = "refit_ended"
    """role, seed, folder, kept_epoch, epochs, parameters, seconds, failure."""
    TEST_SCORED = "test_scored"
    """The test set was opened: scorings [{role, seed (None for an ensemble), accuracy, auc}]; asked
    and answers (checksums of what was asked and of the file of the answers, see `opening`)."""
    STAGE = "stage"
    """name, seconds: a stage of the run ended."""
    STOPPED = "stopped"
    """The process ended early, in order: reason."""


class RunDirectory:
    """Paths and durable writes of one run.

    Attributes:
        root: `results/<name>`.
    """

    def __init__(self, root: Path) -> None:
        """Refer to a run directory, existing or not; touches nothing."""
        self.root = root

    def __repr__(self) -> str:
        return f"RunDirectory({self.root.as_posix()!r})"

    @property
    def name(self) -> str:
        """Return the run's name."""
        return self.root.name

    @property
    def journal_file(self) -> Path:
        """Return the path of the journal."""
        return self.root / "journal.jsonl"

    @property
    def tuner_dir(self) -> Path:
        """Return KerasTuner's project directory."""
        return self.root / "tuner"

    @property
    def refit_dir(self) -> Path:
        """Return the directory of the retrained candidates' checkpoints."""
        return self.root / "refit"

    @property
    def logs_dir(self) -> Path:
        """Return the directory of what worker processes printed."""
        return self.root / "logs"

    @property
    def plots_dir(self) -> Path:
        """Return the directory of the plots."""
        return self.root / "plots"

    @property
    def exists(self) -> bool:
        """Return whether a run was ever started here."""
        return self.journal_file.exists() or (self.root / "config.json").exists()

    @property
    def complete(self) -> bool:
        """Return whether the run ended: the manifest is written last."""
        return (self.root / "manifest.json").exists()

    def create(self) -> None:
        """Make the directory.

        Raises:
            RunDirectoryError: It cannot be made or written, with the reason.
        """
        with storage_errors(self.root):
            self.root.mkdir(parents=True, exist_ok=True)
            probe = self.root / f".probe-{os.getpid()}"
            probe.write_text("")
            probe.unlink()

    def strangers(self) -> list[Path]:
        """Return what lies where no run was ever started, leftovers of a kill aside."""
        if not self.root.is_dir():
            return []
        return [entry for entry in self.root.iterdir() if not LEFTOVER.fullmatch(entry.name)]

    def clear(self) -> None:
        """Remove everything in the directory (`--overwrite`); call it with the lock held.

        Wherever a kill falls, the name stays usable: the directory is known for a run's until
        `config.json` is removed, the last, and without its journal, removed before anything that
        belongs to it, nobody goes on with half of a run.
        """
        order = {"manifest.json": 0, self.journal_file.name: 1, "config.json": 3}
        with storage_errors(self.root):
            entries = sorted(self.root.iterdir(), key=lambda entry: order.get(entry.name, 2))
            for entry in entries:
                if entry.name == ".lock":
                    continue
                if entry.is_dir() and not entry.is_symlink():
                    shutil.rmtree(entry)
                else:
                    entry.unlink()

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the run for this process; the kernel releases it however the process ends.

        Raises:
            RunDirectoryError: Another process holds it; the message says which. Or the file system
                has no locks.
        """
        with storage_errors(self.root):
            handle = open(self.root / ".lock", "a+")  # noqa: SIM115 (held for the whole block)
        with handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise self._in_use(_holder(handle)) from None
            except OSError as error:
                if error.errno not in NO_LOCKS:
                    raise
                raise RunDirectoryError(
                    f"{self.root}: this file system has no locks ({error.strerror}), without which "
                    f"two processes could write to one run; choose another {RESULTS_DIR}"
                ) from error
            handle.seek(0)
            handle.truncate()
            handle.write(f"process {os.getpid()} on {socket.gethostname()}")
            handle.flush()
            yield

    def holder(self) -> str | None:
        """Return which process of this machine holds the run, None if none does; makes nothing.

        The lock is asked for in the shared mode, without waiting, and given back at once. A process
        that holds it does not notice; one that wants it in that very instant, because it resumes a
        run that nobody held, would be refused and could be started again.
        """
        with contextlib.suppress(OSError), open(self.root / ".lock", encoding="utf-8") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return _holder(handle)
            fcntl.flock(handle, fcntl.LOCK_UN)
        return None

    def refuse_held(self) -> None:
        """Look whether another process holds the run, without taking it.

        Raises:
            RunDirectoryError: One does; the message says which.
        """
        holder = self.holder()
        if holder is not None:
            raise self._in_use(holder)

    def _in_use(self, holder: str) -> RunDirectoryError:
        return RunDirectoryError(
            f"{self.root}: in use by {holder}; wait for it, stop it, or give this run another "
            "--name"
        )

    def append(self, event: EventKind, **fields: Any) -> None:
        """Write one event, durable on return.

        Raises:
            StorageError: The disk is full or read-only; the run can be resumed later.
        """
        line = json.dumps({"event": event.value, "time": time.time(), **to_json(fields)})
        with storage_errors(self.journal_file):
            # A kill in the middle of a line must not swallow the next one.
            begin = "\n" if cut_short(self.journal_file) else ""
            with open(self.journal_file, "a", encoding="utf-8") as handle:
                handle.write(begin + line + "\n")
                handle.flush()
                os.fsync(handle.fileno())

    def events(self) -> list[dict[str, Any]]:
        """Read the journal, oldest first; a line cut short by a kill is left out."""
        if not self.journal_file.exists():
            return []
        found = []
        with open(self.journal_file, encoding="utf-8") as handle:
            for line in handle:
                with contextlib.suppress(json.JSONDecodeError):
                    found.append(json.loads(line))
        return found

    def write_json(self, name: str, value: Any) -> Path:
        """Write a JSON file under the run directory, atomically.

        Raises:
            StorageError: The disk is full or read-only.
        """
        return write_json(self.root / name, value)

    def read_json(self, name: str) -> Any:
        """Read a JSON file of the run.

        Raises:
            RunDirectoryError: It is missing or damaged; the message says what that means.
        """
        path = self.root / name
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            state = "the run has not got that far" if self.exists else "there is no run here"
            raise RunDirectoryError(f"{path}: no such file; {state}") from None
        except json.JSONDecodeError as error:
            raise RunDirectoryError(f"{path}: damaged JSON ({error})") from None

    def write_manifest(self, content: dict[str, Any]) -> None:
        """Write `manifest.json` with the list of files and their SHA-256; the last write of a run.

        Files under `tuner/`, `refit/` and `logs/` are working state and are not listed, except for
        the weights that a retraining keeps, which an ablation uses again. Nor are those under
        `plots/local/`, which show radiographs and may be taken out, and those of `ablation/`: an
        ablation is made, and may be made anew, after the run has ended.
        """
        files = {}
        for path in sorted(self.root.rglob("*")):
            inside = path.relative_to(self.root)
            if inside.parts[0] in ("tuner", "logs", "manifest.json", ".lock"):
                continue
            if inside.parts[0] == "refit" and inside.name != KEPT_WEIGHTS:
                continue
            if inside.parts[:2] == ("plots", "local"):
                continue
            if inside.parts[0] == "ablation":
                continue
            if path.is_file():
                files[inside.as_posix()] = {
                    "bytes": path.stat().st_size,
                    "sha256": file_sha256(path),
                }
        self.write_json("manifest.json", {**content, "files": files})


def _holder(lock_file: TextIO) -> str:
    """Return who wrote its name into a lock file."""
    lock_file.seek(0)
    return lock_file.read().strip() or "another process"


def cut_short(path: Path) -> bool:
    """Return whether the last line of a file has no end, because of a kill or a full disk."""
    if not path.exists():
        return False
    with open(path, "rb") as handle:
        if not handle.seek(0, os.SEEK_END):
            return False
        handle.seek(-1, os.SEEK_END)
        return handle.read(1) != b"\n"


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's content as hexadecimal digits."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def write_json(path: Path, value: Any, *, option: str = RESULTS_DIR) -> Path:
    """Write JSON to a temporary name, fsync, rename; `option` as for `storage_errors`.

    Raises:
        StorageError: The disk is full or read-only.
    """
    return write_text(path, json.dumps(to_json(value), indent=2) + "\n", option=option)


def write_text(path: Path, text: str, *, option: str = RESULTS_DIR) -> Path:
    """Write text to a temporary name, fsync, rename; the parent folder is made.

    Args:
        path: The file.
        text: Its content.
        option: As for `storage_errors`.

    Raises:
        StorageError: The disk is full or read-only.
    """
    with storage_errors(path, option=option):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            with open(temporary, "w", encoding="utf-8") as handle:
                handle.write(text)
                handle.flush()
                os.fsync(handle.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    return path


@contextlib.contextmanager
def storage_errors(place: Path, *, option: str = RESULTS_DIR) -> Iterator[None]:
    """Turn the operating system's refusals to write into StorageError, with the remedy.

    Args:
        place: What was to be written.
        option: The option that moves it elsewhere.

    Raises:
        StorageError: No space, read-only, no permission, or a file where a folder should be.
    """
    reasons = {
        errno.ENOSPC: "no space left on the disk; free some",
        errno.EDQUOT: "the disk quota is used up; free some space",
        errno.EROFS: "the file system is read-only",
        errno.EACCES: "no permission to write",
        errno.EPERM: "no permission to write",
        errno.ENOTDIR: "a file is where a folder should be",
        errno.EEXIST: "a file is where a folder should be",
        errno.EISDIR: "a folder is where a file should be",
        errno.ENOENT: "it cannot be made there",
        errno.ENAMETOOLONG: "the name is too long",
    }
    try:
        yield
    except OSError as error:
        reason = reasons.get(error.errno or 0)
        if reason is None:
            raise
        way = ", or choose another" if ";" in reason else "; choose another"
        kept = ". What is finished is kept; run the same command with --resume to go on"
        told = "" if option in ONE_FILE else kept
        raise StorageError(f"{place}: {reason}{way} {option}{told}") from error
