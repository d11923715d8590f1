import json
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from search.data.cache import load_gray
from search.errors import DataError, ModelError, RunDirectoryError
from search.journal import RunDirectory
from search.predict import main
from search.records import SYNTHETIC_NOTICE
from search.scoring.predict import find_images, find_model, predict_files

SUFFIXES = frozenset({".jpeg", ".png"})


def say(capsys, *arguments):
    code = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_a_run_its_name_and_its_model_are_the_same_model(run_dir, monkeypatch):
    wanted = run_dir / "model.keras"
    assert find_model(run_dir) == wanted
    assert find_model(wanted) == wanted
    monkeypatch.chdir(run_dir.parent.parent)
    assert find_model(type(run_dir)("tiny")).samefile(wanted)


def test_a_missing_run_is_named(tmp_path):
    with pytest.raises(RunDirectoryError, match="nowhere: no such run or file"):
        find_model(tmp_path / "nowhere")


def test_an_unfinished_run_says_how_to_finish_it(run_dir):
    (run_dir / "model.keras").unlink()
    with pytest.raises(RunDirectoryError, match=r"unfinished.*--name tiny --resume"):
        find_model(run_dir)


def test_a_folder_that_is_no_run_is_told_apart(tmp_path):
    with pytest.raises(RunDirectoryError, match="not a run directory"):
        find_model(tmp_path)


def test_a_model_changed_after_the_run_is_refused(run_dir):
    RunDirectory(run_dir).write_manifest({})
    assert find_model(run_dir)
    with open(run_dir / "model.keras", "ab") as handle:
        handle.write(b"x")
    with pytest.raises(ModelError, match="checksum"):
        find_model(run_dir)


def test_a_damaged_manifest_is_told(run_dir):
    (run_dir / "manifest.json").write_text("{")
    with pytest.raises(RunDirectoryError, match="damaged"):
        find_model(run_dir)


def test_files_folders_and_globs_are_expanded_in_order_and_once(tmp_path):
    for name in ("b/2.jpeg", "b/1.png", "b/.hidden.png", "b/__MACOSX/3.png", "b/c/4.png", "a.jpeg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "b" / "notes.txt").write_text("")
    (tmp_path / "odd[1].png").write_bytes(b"")
    arguments = [
        tmp_path / "a.jpeg",
        tmp_path / "b",
        tmp_path / "b" / "*.png",
        tmp_path / "odd[1].png",
    ]
    found = find_images([str(a) for a in arguments], suffixes=SUFFIXES)
    names = [file.relative_to(tmp_path).as_posix() for file in found]
    assert names == ["a.jpeg", "b/1.png", "b/2.jpeg", "b/c/4.png", "odd[1].png"]


def test_a_folder_without_images_is_refused(tmp_path):
    with pytest.raises(DataError, match="no images"):
        find_images([str(tmp_path)], suffixes=SUFFIXES)


def test_a_bad_file_costs_its_own_answer_only(loaded, films):
    files = sorted(films.rglob("*.jpeg"))
    files[3].write_bytes(b"not a picture")
    files.insert(5, films / "missing.jpeg")
    answers = list(predict_files(loaded, files, decode=load_gray, batch_size=3))
    assert [answer.file for answer in answers] == [file.as_posix() for file in files]
    assert [i for i, answer in enumerate(answers) if answer.error] == [3, 5]
    assert answers[3].probability is None
    good = [i for i in range(9) if i not in (3, 5)]
    alone = [next(predict_files(loaded, [files[i]], decode=load_gray)) for i in good]
    assert [answers[i].probability for i in good] == pytest.approx(
        [answer.probability for answer in alone], abs=1e-6
    )


def test_the_answer_is_the_one_that_was_scored(network, loaded, films):
    file = films / "test" / "NORMAL" / "IM-0000-0000.jpeg"
    (answer,) = predict_files(loaded, [file], decode=load_gray)
    pixels = load_gray(file, loaded.image_size)[np.newaxis, ..., np.newaxis]
    wanted = float(network.predict_on_batch(pixels)[0, 0])
    assert answer.probability == pytest.approx(wanted, abs=1e-6)
    assert answer.verdict == ("NORMAL", "PNEUMONIA")[wanted >= loaded.threshold.value]


def test_the_command_prints_a_table_with_verdicts_and_notice(capsys, run_dir, films):
    code, out, err = say(capsys, run_dir, films)
    assert (code, err) == (0, "")
    assert "P(PNEUMONIA)" in out
    assert "0.400" in out
    assert SYNTHETIC_NOTICE in out.replace("\n", " ")
    assert "not for diagnosis" in out.replace("\n", " ")


def test_json_is_an_array_with_errors_among_the_answers(capsys, run_dir, films, tmp_path):
    bad = tmp_path / "bad [x].jpeg"
    bad.write_bytes(b"")
    good = films / "test" / "NORMAL" / "IM-0001-0003.jpeg"
    code, out, err = say(capsys, run_dir, bad, good, "--json")
    assert code == 2
    first, second = json.loads(out)
    assert "empty file" in first["error"]
    assert first["probability"] is None
    assert second.keys() == {"file", "probability", "verdict", "error", "threshold", "notice"}
    assert 0 <= second["probability"] <= 1
    assert second["notice"] == SYNTHETIC_NOTICE
    assert SYNTHETIC_NOTICE in err.replace("\n", " ")


def test_a_bad_file_has_its_row_in_the_table_too(capsys, run_dir, tmp_path):
    Image.new("L", (40, 40)).save(tmp_path / "ok.png")
    code, out, _ = say(capsys, run_dir, tmp_path / "ok.png", tmp_path / "gone.png")
    assert code == 2
    assert "error: cannot be read" in " ".join(out.split())


def test_csv_is_written_beside_the_table(capsys, run_dir, films, tmp_path):
    code, *_ = say(capsys, run_dir, films, "--csv", tmp_path / "out" / "rows.csv")
    assert code == 0
    lines = (tmp_path / "out" / "rows.csv").read_text().splitlines()
    assert lines[0] == "file,probability,verdict,error,threshold,notice"
    assert len(lines) == 9


@pytest.mark.parametrize("what", ["missing", "unfinished", "damaged"])
def test_a_model_that_cannot_be_used_is_one_line_and_code_2(capsys, run_dir, films, what):
    if what == "missing":
        run_dir = run_dir.parent / "other"
    elif what == "unfinished":
        (run_dir / "model.keras").unlink()
    else:
        (run_dir / "model.keras").write_bytes(b"PK")
    code, out, err = say(capsys, run_dir, films)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1


def test_ctrl_c_is_130_without_a_traceback(capsys, run_dir, films, monkeypatch):
    def interrupt(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("search.predict.predict_files", interrupt)
    code, out, err = say(capsys, run_dir, films)
    assert (code, out, err) == (130, "", "interrupted\n")


@pytest.mark.parametrize("command", ["search.predict", "search.evaluate"])
def test_help_does_not_wait_for_keras(command):
    script = (
        f"import sys\nfrom {command} import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "sys.exit(any(m in sys.modules for m in ('keras', 'tensorflow', 'sklearn', 'scipy')))"
    )
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "RUN_OR_MODEL" in done.stdout
    assert time.perf_counter() - start < 5  # about 0.5 on an idle machine
