"""What all commands have in common: their parser, their exit codes, and the process they run in.

Options come from the rows of `config`. A command is a function that takes arguments and returns an
exit code; `execute` prepares the process for it and turns what it raises into one line.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import errno
import functools
import io
import os
import re
import resource
import signal
import sys
import tempfile
import threading
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, TextIO

from search.config import OPTIONS, PRESETS, RunConfig, flag, nearest, number, unknown
from search.errors import ConfigurationError, SearchError
from search.records import Reporter
from search.scoring.formats import FORMATS

Command = Callable[[Sequence[str] | None], int]


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, with the nearest name for what was mistyped."""

    def __init__(self, **options: Any) -> None:
        options.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(allow_abbrev=False, **options)

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse, and name the nearest option for one that does not exist."""
        found, rest = self.parse_known_args(args, namespace)
        if rest:
            typed = rest[0].partition("=")[0]
            known = [name for action in self._actions for name in action.option_strings]
            self.error(f"{typed}: there is no such option{nearest(typed, known)}")
        return found

    def error(self, message: str) -> NoReturn:
        """Print one line and exit with code 2."""
        message = re.sub(r"^argument ([^:]*):", r"\1:", message)
        self.exit(2, f"error: {message} (--help lists the options)\n")


def add_options(parser: argparse.ArgumentParser, names: Iterable[str] = OPTIONS) -> None:
    """Add options to a parser, under their headings; `read_options` takes what it gives."""
    hints = _hints()
    groups: dict[str, Any] = {}
    for name in names:
        row = OPTIONS[name]
        if row.group not in groups:
            groups[row.group] = parser.add_argument_group(row.group)
        group = groups[row.group]
        about = f"{row.help} ({_shown(name)})".replace("%", "%%")
        if hints[name] is bool:
            group.add_argument(flag(name), action="store_true", default=None, help=row.help)
        else:
            # What is typed is read by `read_options`, for one kind of message.
            action = "append" if row.repeated else "store"
            choices = ",".join(_choices(name))
            metavar = row.metavar or (f"{{{choices}}}" if choices else "N")
            group.add_argument(flag(name), action=action, metavar=metavar, help=about)


def read_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the fields of RunConfig that were given on the command line.

    Raises:
        ConfigurationError: A value cannot be read; names option, value and what is allowed.
    """
    typed = {name: getattr(arguments, name, None) for name in OPTIONS}
    return {name: _read(name, text) for name, text in typed.items() if text is not None}


def options_from_python(options: dict[str, Any]) -> dict[str, Any]:
    """Return fields of RunConfig from keyword arguments: text is read as on the command line.

    Raises:
        ConfigurationError: There is no such option, or a value cannot be read.
    """
    found = {}
    for name, value in options.items():
        if name not in OPTIONS:
            raise ConfigurationError(f"{name}: there is no such option{nearest(name, OPTIONS)}")
        if isinstance(value, str):
            value = _read(name, [value] if OPTIONS[name].repeated else value)
        elif isinstance(value, list):
            value = tuple(value)
        found[name] = str(value) if isinstance(value, Path) else value
    return found


@functools.cache
def _hints() -> dict[str, Any]:
    return typing.get_type_hints(RunConfig)


def _choices(name: str) -> tuple[str, ...]:
    """Return the words allowed for an option, () for any."""
    kind = _hints()[name]
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        return tuple(item.value for item in kind)
    return tuple(known for known in OPTIONS[name].known if known)


def _read(name: str, text: Any) -> Any:
    """Make the value of what was typed."""
    row, kind = OPTIONS[name], _hints()[name]
    if row.read is not None:
        return row.read(text)
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        kind = next(part for part in typing.get_args(kind) if part is not types.NoneType)
    if typing.get_origin(kind) is tuple:
        return tuple(part.strip() for part in text.split(",") if part.strip())
    if kind in (int, float):
        return number(flag(name), text, kind)
    if issubclass(kind, StrEnum):
        if text not in _choices(name):
            raise unknown(flag(name), text, _choices(name))
        return kind(text)
    return text


def _text(value: Any, *, between: str = ",") -> str:
    """Return a value as it is typed, with what stands between several."""
    if isinstance(value, dict):
        pairs = (f"{name}={_text(item, between=':')}" for name, item in value.items())
        return " ".join(pairs) or "none"
    if isinstance(value, tuple):
        return between.join(_text(item) for item in value) or "none"
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _shown(name: str) -> str:
    """Return an option's default for the help."""
    part = next(part for part in dataclasses.fields(RunConfig) if part.name == name)
    default = {} if part.default is dataclasses.MISSING else part.default
    return OPTIONS[name].shown or _text(default) or "none"


def preset_table() -> str:
    """Return what each preset sets, one line each."""
    lines = []
    for preset, values in PRESETS.items():
        options = [
            f"{flag(name)} {text}"
            for name, value in values.items()
            for text in (_text(value).split() if isinstance(value, dict) else [_text(value)])
        ]
        lines.append(f"  {preset:10}{' '.join(options) or 'the defaults above'}")
    return "\n".join(lines)


def option_table() -> str:
    """Return the table of options in `search/README.md`."""
    lines = [
        "| option | default | what it does | range | may change on --resume |",
        "|" + "---|" * 5,
    ]
    for name, row in OPTIONS.items():
        allowed = ", ".join(_choices(name)) if len(_choices(name)) <= 6 else "see `--help`"
        if row.between is not None:
            allowed = f"{row.between[0]:g} – {row.between[1]:.10g}"
        lines.append(
            f"| `{flag(name)}` | {_shown(name)} | {row.help} | {allowed} | {row.on_resume.value} |"
        )
    return "\n".join(lines)


def add_results_dir(parser: argparse.ArgumentParser) -> None:
    """Add the option that says where a run that is named is looked up."""
    parser.add_argument(
        "--results-dir",
        type=Path,
        default=Path("results"),
        metavar="DIR",
        help="where a run's bare name is looked up (%(default)s)",
    )


def add_model(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that say which trained model is used."""
    parser.add_argument(
        "model", metavar="RUN_OR_MODEL", help="a run directory, its name, or an exported model"
    )
    parser.add_argument(
        "--format", choices=FORMATS, default="keras", help="of a run's exports (keras)"
    )


def plain(command: Command) -> Command:
    """Have a command print a line on standard error for what the user can mend, and for Ctrl-C."""

    @functools.wraps(command)
    def run(arguments: Sequence[str] | None = None) -> int:
        try:
            return command(arguments)
        except SearchError as error:
            message, code = str(error), error.exit_code
        except KeyboardInterrupt:
            message, code = "stopped", 130
        print(f"error: {message}", file=sys.stderr)
        return code

    return run


def execute(command: Command, arguments: Sequence[str] | None = None) -> int:
    """Run a command in a process of its own and return the exit code.

    Codes: what the command returns; 2 for what the user can mend, with one line on standard error;
    130 for Ctrl-C and its kin.
    """
    try:
        _prepare_process()
        with stopping(_interrupt):
            return command(arguments)
    except SearchError as error:
        message, code = str(error), error.exit_code
    except KeyboardInterrupt:
        message, code = "stopped", 130
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE):
            message = f"too many open files; raise the limit with ulimit -n {FILES}"
        elif error.filename is not None:
            message = f"{os.fsdecode(error.filename)}: {error.strerror}"
        else:
            raise
        code = 2
    print(f"error: {message}", file=sys.stderr)
    return code


STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""What asks a command to stop: Ctrl-C, `kill`, and a terminal that is closed."""


@contextlib.contextmanager
def stopping(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Let a function hear the signals that stop a command, then give them back.

    A signal that is ignored, as `nohup` arranges it, stays ignored. Outside of the main thread
    nothing is changed.
    """
    before = {}
    try:
        for one in STOPPING:
            if signal.getsignal(one) is not signal.SIG_IGN:
                # Python knows signals in the main thread only.
                with contextlib.suppress(ValueError):
                    before[one] = signal.signal(one, handler)
        yield
    finally:
        for one, old in before.items():
            signal.signal(one, old)


@contextlib.contextmanager
def interruptible(reporter: Reporter) -> Iterator[Callable[[], bool]]:
    """Yield a function that says whether to stop: after Ctrl-C, SIGTERM or SIGHUP.

    The first asks to stop after the epochs being trained, the second stops at once. The handlers
    that were there before come back in the end.
    """
    asked: list[int] = []
    said = "stopping after this epoch; press Ctrl-C again to stop at once"
    # A signal may come while this very thread writes a line, which cannot be done twice at once.
    tell = threading.Thread(target=reporter.warn, args=(said,), daemon=True)

    def on_signal(number: int, _frame: FrameType | None) -> None:
        asked.append(number)
        if len(asked) > 1:
            raise KeyboardInterrupt
        tell.start()

    try:
        with stopping(on_signal):
            yield lambda: bool(asked)
    finally:
        if tell.is_alive():
            tell.join(timeout=1)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


FILES = 256
"""Open files that a run with some workers may need."""


def _prepare_process() -> None:
    """Make streams, environment and limits such that nothing else needs care."""
    # What is opened next must not become standard output, which libraries write to.
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)
    sys.stdout, sys.stderr = _lasting(sys.stdout, 1), _lasting(sys.stderr, 2)
    # A notebook's kernel passes on its own, which other processes cannot load; we draw to files.
    os.environ["MPLBACKEND"] = "agg"
    if os.path.expanduser("~") == "~":  # noqa: PTH111 (Path.home raises)
        os.environ["HOME"] = tempfile.gettempdir()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < FILES:
        if hard != resource.RLIM_INFINITY and hard < FILES:
            raise ConfigurationError(
                f"at most {hard} files may be open, {FILES} are needed; raise the limit with "
                f"ulimit -n {FILES}"
            )
        resource.setrlimit(resource.RLIMIT_NOFILE, (FILES, hard))


class _LastingOutput(io.FileIO):
    """Standard output that never fails: what cannot be written any more is dropped."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data) or 0
        except OSError:  # no reader, no space, no terminal
            # Also for what libraries and worker processes write.
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)
            return len(data)


def _lasting(stream: TextIO | None, descriptor: int) -> TextIO:
    """Return a stream that takes any character and outlives its reader."""
    encoding = (stream.encoding if stream is not None else None) or "utf-8"
    if stream is not None:
        with contextlib.suppress(OSError):
            stream.flush()
    raw = _LastingOutput(descriptor, "w", closefd=False)
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=encoding,
        errors="replace",
        # A pipe gets each line at once too: logs are followed.
        line_buffering=True,
    )
