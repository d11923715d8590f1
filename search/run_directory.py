"""The run directory: paths, atomic writes, the lock, the manifest.

Everything in it can be rebuilt from the journal or is written once, to a temporary name, then
renamed. Knows no Keras and no KerasTuner.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import itertools
import json
import os
import re
import shutil
import socket
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, TextIO, TypeVar

from search import journal
from search.errors import RESULTS_DIR, RunDirectoryError, read_errors, storage_errors
from search.journal import Event, EventKind, trial_records
from search.records import TrialRecord, from_json, to_json

KEPT_WEIGHTS = "best.weights.h5"
"""The checkpoint of the epoch that a retraining keeps, in its folder under `refit/`."""

NO_LOCKS = frozenset({errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP})
"""What a file system without locks answers to `flock`."""

LEFTOVER = re.compile(r"\.lock|\.probe-\d+|\.\d+\.tmp\..+")
"""Names of the files that a run writes for a moment, and leaves when it is killed just then."""

T = TypeVar("T")


class RunDirectory:
    """Paths and durable writes of one run.

    Attributes:
        root: `results/<name>`.
        name: Of the run.
        journal_file: The journal.
        tuner_dir: KerasTuner's project.
        refit_dir: The retrained candidates' checkpoints.
        logs_dir: What worker processes printed.
        plots_dir: The plots.
    """

    def __init__(self, root: Path) -> None:
        """Refer to a run directory, existing or not; touches nothing."""
        self.root = root
        self.name = root.name
        self.journal_file = root / "journal.jsonl"
        self.tuner_dir = root / "tuner"
        self.refit_dir = root / "refit"
        self.logs_dir = root / "logs"
        self.plots_dir = root / "plots"

    def __repr__(self) -> str:
        return f"RunDirectory({self.root.as_posix()!r})"

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

    def append(self, kind: EventKind, **fields: Any) -> Event:
        """Write one event to the journal and return it, see `journal.append`."""
        return journal.append(self.journal_file, kind, **fields)

    def events(self) -> list[Event]:
        """Read the journal, see `journal.read`."""
        return journal.read(self.journal_file)

    def trials(self) -> list[TrialRecord]:
        """Return the trials of the journal, see `journal.trial_records`."""
        return trial_records(self.events(), where=str(self.journal_file))

    def write_json(self, name: str, value: Any) -> Path:
        """Write a JSON file under the run directory, atomically.

        Raises:
            StorageError: The disk is full or read-only.
        """
        return write_json(self.root / name, value)

    def read(self, kind: type[T], name: str) -> T:
        """Read a JSON file of the run back as the record it was written from.

        Raises:
            RunDirectoryError: It is missing or damaged; the message names the field.
        """
        return from_json(kind, self.read_json(name), where=str(self.root / name))

    def read_json(self, name: str) -> Any:
        """Read a JSON file of the run.

        Raises:
            RunDirectoryError: It is missing or damaged; the message says what that means.
        """
        path = self.root / name
        try:
            with read_errors(path):
                if not path.exists() and not path.is_symlink():
                    state = (
                        "the run has not got that far" if self.exists else "there is no run here"
                    )
                    raise RunDirectoryError(f"{path}: no such file; {state}")
                return json.loads(path.read_text(encoding="utf-8"))
        except (UnicodeDecodeError, json.JSONDecodeError) as error:
            raise RunDirectoryError(f"{path}: damaged ({error}); {journal.REMEDY}") from None

    def write_manifest(self, content: dict[str, Any]) -> None:
        """Write `manifest.json` with the list of files and their SHA-256; the last write of a run.

        Files under `tuner/`, `refit/` and `logs/` are working state and are not listed, except for
        the weights that a retraining keeps, which an ablation uses again. Nor are those under
        `plots/local/`, which show radiographs and may be taken out, and those of `ablation/`: an
        ablation is made, and may be made again, after the run has ended.
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


def new_run(results_dir: Path) -> RunDirectory:
    """Make a run directory whose name is the time; of two in one second the later gets a number.

    Raises:
        RunDirectoryError: It cannot be made, with the reason.
    """
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    with storage_errors(results_dir):
        results_dir.mkdir(parents=True, exist_ok=True)
    for number in itertools.count(1):
        root = results_dir / (stamp if number == 1 else f"{stamp}-{number}")
        with storage_errors(root), contextlib.suppress(FileExistsError):
            root.mkdir()
            break
    return RunDirectory(root)


def locate(name: str, results_dir: Path = Path("results")) -> RunDirectory:
    """Find a run by its path, or by its name.

    Args:
        name: A path, or a name.
        results_dir: Where a name is looked for.

    Raises:
        RunDirectoryError: There is none; the message says where was looked.
    """
    places = [Path(name)]
    if Path(name).name == name:
        places.append(results_dir / name)
    for place in places:
        run = RunDirectory(place)
        with read_errors(place):
            if place.is_dir() and run.exists:
                return run
    looked = " and ".join(place.as_posix() for place in places)
    reason = "a folder without a run" if any(place.is_dir() for place in places) else "no such run"
    raise RunDirectoryError(
        f"{name}: {reason} (looked in {looked}); name a run directory, such as results/first"
    )


def _holder(lock_file: TextIO) -> str:
    """Return who wrote its name into a lock file."""
    lock_file.seek(0)
    return lock_file.read().strip() or "another process"


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's content as hexadecimal digits."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


@contextlib.contextmanager
def atomic(path: Path, *, option: str = RESULTS_DIR) -> Iterator[Path]:
    """Make a file or a folder whole or not at all: a temporary name, fsync, then rename.

    Args:
        path: What is to be made; its parent folder is made too. What was there is replaced.
        option: The option that moves it elsewhere, for messages.

    Yields:
        The temporary path, in the same folder and with the same suffix.

    Raises:
        StorageError: The disk is full or read-only.
    """
    temporary = path.with_name(f".{os.getpid()}.tmp.{path.name}")
    with storage_errors(path, option=option):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            if temporary.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                with open(temporary, "rb+") as handle:
                    os.fsync(handle.fileno())
            os.replace(temporary, path)
        finally:
            if temporary.is_dir():
                shutil.rmtree(temporary, ignore_errors=True)
            temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any, *, option: str = RESULTS_DIR) -> Path:
    """Write JSON, see `atomic`."""
    return write_text(path, json.dumps(to_json(value), indent=2) + "\n", option=option)


def write_text(path: Path, text: str, *, option: str = RESULTS_DIR) -> Path:
    """Write text in UTF-8, see `atomic`."""
    with atomic(path, option=option) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path
