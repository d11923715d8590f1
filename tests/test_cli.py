"""The command line: what is typed becomes options, mistakes one line, signals and streams tamed."""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from search import cli
from search.__main__ import COMMANDS
from search.__main__ import main as commands
from search.config import PRESETS, Channels, ExportFormat, RunConfig, SplitKind, TunerKind
from search.errors import ConfigurationError
from search.run import parser

ROOT = Path(__file__).parents[1]


def read(*arguments):
    return cli.read_options(parser().parse_args(arguments))


TYPED = {
    "--tuner random": {"tuner": TunerKind.RANDOM},
    "--split notebook": {"split": SplitKind.NOTEBOOK},
    "--image-size 96": {"image_size": 96},
    "--val-fraction 0.3": {"val_fraction": 0.3},
    "--channels 1": {"channels": Channels.ONE},
    "--workers auto": {"workers": None},
    "--workers 2": {"workers": 2},
    "--prevalence 0.3": {"prevalence": 0.3},
    "--views crop,tone": {"views": ("crop", "tone")},
    "--search flip, --seed 0": {"search": ("flip",), "seed": 0},
    "--fix flip=false --fix head=flatten": {"fix": {"flip": "false", "head": "flatten"}},
    "--view-strength shift=0.1": {"view_strength": {"shift": 0.1}},
    "--view-strength crop_area=0.6:0.9": {"view_strength": {"crop_area": (0.6, 0.9)}},
    "--export onnx,keras": {"export": (ExportFormat.KERAS, ExportFormat.ONNX)},
    "--ensemble --tensorboard": {"ensemble": True, "tensorboard": True},
    "": {},
}


@pytest.mark.parametrize(("typed", "options"), TYPED.items())
def test_what_is_typed_becomes_options(typed, options):
    assert read(*typed.split()) == options


MISTAKES = {
    "--tuner hyperbnd": "--tuner hyperbnd: choose one of hyperband, .*did you mean hyperband",
    "--image-size big": "--image-size big: must be a whole number",
    "--image-size 1e3": "--image-size 1e3: must be a whole number",
    "--image-size 9999": "--image-size 9999: must be between 32 and 512",
    "--prevalence nan": "--prevalence nan: must be a number",
    "--val-fraction inf": "--val-fraction inf: must be a number",
    "--objective robust_los": "--objective robust_los: .*did you mean robust_loss",
    "--preset quik": "--preset quik: .*did you mean quick",
    "--export onx": "--export onx: .*did you mean onnx",
    "--fix flip": "--fix flip: write NAME=VALUE",
    "--view-strength shift=far": "--view-strength shift=far: write a number",
    "--workers many": "--workers many: must be a whole number",
    "--channels 2": "--channels 2: choose one of 1, 3",
    f"--name {'x' * 250}": "--name .*up to 200",
    "--results-dir a\udcffb": "--results-dir .*cannot be printed",
}


@pytest.mark.parametrize(("typed", "message"), MISTAKES.items())
def test_a_wrong_value_is_one_line_with_value_and_remedy(typed, message):
    with pytest.raises(ConfigurationError, match=message) as raised:
        RunConfig(**read(*typed.split()))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("--image-sise", "--image-size"), ("--tunr=grid", "--tuner"), ("--resum", "--resume")],
)
def test_a_mistyped_option_gets_one_line_with_the_nearest_name(capsys, typed, meant):
    with pytest.raises(SystemExit) as raised:
        parser().parse_args([typed, "1"])
    assert raised.value.code == 2
    said = capsys.readouterr().err
    assert f"there is no such option; did you mean {meant}?" in said
    assert said.count("\n") == 1


def test_a_mistyped_command_gets_the_nearest_one(capsys):
    assert commands(["rum"]) == 2
    assert "did you mean run?" in capsys.readouterr().err
    assert commands(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_a_help(name, capsys):
    with pytest.raises(SystemExit) as raised:
        commands([name, "--help"])
    assert raised.value.code == 0
    assert "usage:" in capsys.readouterr().out


def test_the_table_of_options_in_the_readme_is_current():
    text = (ROOT / "search" / "README.md").read_text()
    assert text.partition("<!-- options -->\n")[2].strip() == cli.option_table()


@pytest.mark.parametrize("row", cli.preset_table().splitlines())
def test_a_preset_typed_out_as_the_help_shows_it_is_that_preset(row):
    name, *typed = row.split()
    given, preset = read(*typed), {**PRESETS[name]}
    assert given.pop("fix", {}).keys() == preset.pop("fix", {}).keys()
    assert given == preset


QUEUES = {
    "a list": ('[{"values": {"flip": true}}, {"head": "flatten"}]', None),
    "one": ('{"flip": true}', None),
    "NaN": ('{"dense_dropout_1": NaN}', "holds NaN"),
    "infinite": ('[{"learning_rate": -Infinity}]', "holds -Infinity"),
    "huge": ('{"learning_rate": 1e300}', "learning_rate is 1e"),
    "larger than any number": ('{"learning_rate": 1e999}', "learning_rate is inf"),
    "deep": ("[" * 100_000, "cannot be read as JSON"),
    "nested": ('{"flip": [1]}', "flip is "),
    "no configurations": ("[]", "must hold configurations"),
    "a list of numbers": ("[1]", "must hold configurations"),
    "no JSON": ("flip", "cannot be read as JSON"),
    "no UTF-8": (b"\xff\xfe", "cannot be read as JSON"),
}


@pytest.mark.parametrize(("content", "message"), QUEUES.values(), ids=QUEUES)
def test_a_queue_is_read_or_refused_with_the_reason(tmp_path, content, message):
    path = tmp_path / "queue.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    if message is None:
        assert read("--enqueue", str(path))["enqueue"][0] == {"flip": True}
        return
    with pytest.raises(ConfigurationError, match=message):
        read("--enqueue", str(path))


NO_FILES = {
    "fifo": os.mkfifo,
    "device": lambda path: path.symlink_to("/dev/zero"),
    "folder": Path.mkdir,
    "sparse": lambda path: [path.touch(), os.truncate(path, 12 << 30)],
    "loop": lambda path: path.symlink_to(path),
    "missing": lambda path: None,
}


@pytest.mark.parametrize("kind", NO_FILES)
def test_a_queue_that_is_no_file_is_refused_at_once(tmp_path, kind):
    path = tmp_path / "queue.json"
    NO_FILES[kind](path)
    with pytest.raises(ConfigurationError, match=f"--enqueue {path}"):
        read("--enqueue", str(path))


def executed(code, *, shell="{}", **environment):
    """Run `cli.execute` on a command whose body is `code`, in a process of its own."""
    program = (
        "import sys\nfrom search import cli\nfrom search.errors import *\n"
        f"def command(arguments):\n    {code}\n    return 0\n"
        "sys.exit(cli.execute(command))"
    )
    line = shell.format('"$PYTHON" -c "$PROGRAM"')
    return subprocess.run(
        ["bash", "-c", line], cwd=ROOT, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHON": sys.executable, "PROGRAM": program, **environment},
    )  # fmt: skip


WRITES = "print('x' * 99999); sys.stdout.flush(); print('on', file=sys.stderr)"
HANGUP = "import os, signal; os.kill(os.getpid(), signal.SIGHUP)"
PLOTS = {"MPLBACKEND": "module://nowhere"}
ASCII = {"PYTHONIOENCODING": "ascii", "LC_ALL": "C"}
INHERITED = {
    "output closed": (WRITES, "{} >&-", {}),
    "output full": (WRITES, "{} >/dev/full", {}),
    "no reader": (WRITES, "set -o pipefail; {} | true", {}),
    "all closed": (WRITES, "{} <&- >&- 2>&-", {}),
    "hangups ignored": (HANGUP, "trap '' HUP; {}", {}),
    "a kernel's plots": ("import matplotlib.pyplot", "{}", PLOTS),
    "ASCII": ("print('· – ≥')", "{}", ASCII),
    "few files": ("files = [open('/dev/null') for _ in range(100)]", "ulimit -S -n 16; {}", {}),
}


@pytest.mark.parametrize(("code", "shell", "environment"), INHERITED.values(), ids=INHERITED)
def test_a_command_goes_on_with_what_it_inherits(code, shell, environment):
    done = executed(code, shell=shell, **environment)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    if code == WRITES and "2>" not in shell:
        assert done.stderr == "on\n"


def test_what_is_opened_when_standard_output_is_closed_is_not_written_to(tmp_path):
    code = f"handle = open({str(tmp_path / 'a')!r}, 'w'); import os; os.system('echo stray')"
    assert executed(code, shell="{} >&-").returncode == 0
    assert (tmp_path / "a").read_text() == ""


RAISED = {
    "raise DataError('no images')": (2, "error: no images"),
    "raise SearchFailedError('all failed')": (1, "error: all failed"),
    "raise KeyboardInterrupt": (130, "error: stopped"),
    "open('/nowhere/at/all')": (2, "error: /nowhere/at/all: No such file or directory"),
    "open('/' + 'x' * 300)": (2, "File name too long"),
    "import os, signal; os.kill(os.getpid(), signal.SIGTERM)": (130, "error: stopped"),
    HANGUP: (130, "error: stopped"),
}


@pytest.mark.parametrize(("code", "ends"), RAISED.items())
def test_what_the_user_can_mend_is_one_line_and_an_exit_code(code, ends):
    done = executed(code)
    assert (done.returncode, done.stderr.count("\n")) == (ends[0], 1)
    assert ends[1] in done.stderr


def test_mistakes_of_ours_keep_their_traceback():
    assert "ZeroDivisionError" in executed("1 / 0").stderr


def test_a_limit_of_files_that_cannot_be_raised_is_named_with_the_remedy():
    done = executed("print('hello')", shell="ulimit -n 16; {}")
    assert done.returncode == 2
    assert "ulimit -n 256" in done.stderr


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become an unknown user")
def test_without_a_home_there_is_one():
    code = (
        "import os; from pathlib import Path; from search import cli; del os.environ['HOME'];"
        "os.setuid(54321); sys = cli.sys;"
        "done = cli.execute(lambda _: int(not os.access(Path.home(), os.W_OK))); sys.exit(done)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False)
    assert done.returncode == 0


def test_the_handlers_of_a_program_come_back():
    before = {number: signal.getsignal(number) for number in cli.STOPPING}
    told: list[str] = []
    with cli.interruptible(SimpleNamespace(warn=told.append)) as should_stop:
        assert not should_stop()
        os.kill(os.getpid(), signal.SIGTERM)
        assert should_stop()
        with contextlib.suppress(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGHUP)
            pytest.fail("the second signal did not stop at once")
    assert before == {number: signal.getsignal(number) for number in cli.STOPPING}
    assert "stopping after this epoch" in told[0]
