import csv
import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from tiny import MANIFEST, SIZE, THRESHOLD

from search.data.decode import load_image
from search.errors import ModelError, RunDirectoryError, StorageError
from search.predict import main
from search.records import SYNTHETIC_NOTICE, ExportRecord, to_json
from search.run_directory import RunDirectory
from search.scoring.predict import find_model, predict_files, row_writer, unchecked_note


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
    RunDirectory(run_dir).write_manifest(MANIFEST)
    assert find_model(run_dir)
    with open(run_dir / "model.keras", "ab") as handle:
        handle.write(b"x")
    with pytest.raises(ModelError, match="checksum"):
        find_model(run_dir)


def test_a_damaged_manifest_is_told(run_dir):
    (run_dir / "manifest.json").write_text("{")
    with pytest.raises(RunDirectoryError, match="damaged"):
        find_model(run_dir)


def test_a_folder_without_images_costs_its_own_row_beside_others(capsys, run_dir, films, tmp_path):
    (tmp_path / "empty").mkdir()
    code, out, _ = say(capsys, run_dir, tmp_path / "empty", films, "--json")
    assert code == 2
    empty, *others = json.loads(out)
    assert "not a regular file" in empty["error"]
    assert len(others) == 8
    assert all(other["error"] is None for other in others)


def test_an_empty_name_is_not_the_working_directory(capsys, run_dir, films, monkeypatch):
    monkeypatch.chdir(films)
    for arguments, said in (((run_dir, ""), "IMAGE ''"), (("", films), "RUN_OR_MODEL ''")):
        code, out, err = say(capsys, *arguments)
        assert (code, out) == (2, "")
        assert f"error: {said}: an empty name; give a" in err


def test_a_run_that_cannot_be_looked_at_is_one_line(capsys, films):
    code, out, err = say(capsys, "r" * 300, films)
    assert (code, out) == (2, "")
    assert "cannot be read (File name too long)" in err
    assert err.count("\n") == 1


def test_what_cannot_be_read_costs_its_own_row(capsys, run_dir, films, tmp_path):
    bad = {"n" * 300 + ".png": "cannot be read (File name too long)", "/dev/zero": "not a regular"}
    out = tmp_path / "rows.json"
    code, _, err = say(capsys, run_dir, *bad, films, "--out", out)
    assert code == 2, err
    rows = json.loads(out.read_text())
    assert len(rows) == 8 + len(bad)
    for row in rows:
        assert bad.get(row["file"], "None") in str(row["error"])


def test_a_file_of_rows_speaks_of_its_own_refusals_only(tmp_path):
    with (
        pytest.raises(PermissionError, match="of another file"),
        row_writer(tmp_path / "rows.json", ("a",)),
    ):
        raise PermissionError("of another file")
    assert json.loads((tmp_path / "rows.json").read_text()) == []
    for suffix in ("csv", "json"):
        (tmp_path / f"full.{suffix}").symlink_to("/dev/full")
        with (
            pytest.raises(StorageError, match=r"full\.\w+: cannot be written \(No space left"),
            row_writer(tmp_path / f"full.{suffix}", ("a",)) as write,
        ):
            write({"a": 1})


def test_rows_that_nobody_reads_any_more_end_without_a_traceback(run_dir, films):
    shown = subprocess.run(
        f"{sys.executable} -m search.predict {run_dir} {films} --json | head -n 1",
        shell=True,
        capture_output=True,
        text=True,
        check=False,
    )
    assert shown.stdout == "[\n"
    assert "Traceback" not in shown.stderr
    assert "Error" not in shown.stderr


def test_a_bad_file_costs_its_own_answer_only(loaded, films):
    files = sorted(films.rglob("*.jpeg"))
    files[3].write_bytes(b"not a picture")
    files.insert(5, films / "missing.jpeg")
    answers = list(predict_files(loaded, files, batch_size=3))
    assert [answer.file for answer in answers] == [file.as_posix() for file in files]
    assert [i for i, answer in enumerate(answers) if answer.error] == [3, 5]
    assert answers[3].probability is None
    good = [i for i in range(9) if i not in (3, 5)]
    alone = [next(predict_files(loaded, [files[i]])) for i in good]
    assert [answers[i].probability for i in good] == pytest.approx(
        [answer.probability for answer in alone], abs=1e-6
    )


def test_the_answer_is_the_one_that_was_scored(network, loaded, films):
    file = films / "test" / "NORMAL" / "IM-0000-0000.jpeg"
    (answer,) = predict_files(loaded, [file])
    pixels = load_image(file, SIZE).pixels[np.newaxis]
    wanted = float(network.predict_on_batch(pixels)[0, 0])
    assert answer.probability == pytest.approx(wanted, abs=1e-6)
    assert answer.verdict == ("NORMAL", "PNEUMONIA")[wanted >= THRESHOLD.value]


def test_the_command_prints_a_table_with_verdicts_and_notice(capsys, run_dir, films):
    RunDirectory(run_dir).write_manifest(MANIFEST)
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


@pytest.mark.parametrize("kind", ["csv", "json"])
def test_out_holds_every_row_and_the_terminal_a_summary(capsys, run_dir, films, tmp_path, kind):
    (films / "test" / "NORMAL" / "bad.jpeg").write_bytes(b"")
    out = tmp_path / "new" / f"rows.{kind}"
    code, said, _ = say(capsys, run_dir, films, "--out", out)
    assert code == 2
    with open(out, newline="") as handle:
        rows = json.load(handle) if kind == "json" else list(csv.DictReader(handle))
    assert [*rows[0]] == ["file", "probability", "verdict", "error", "threshold", "notice"]
    assert len(rows) == 9
    (bad,) = [row for row in rows if row["error"]]
    assert bad["file"].endswith("bad.jpeg")
    assert bad["error"] == "empty file; give another file"
    shown = " ".join(said.split())
    called = sum(row["verdict"] == "PNEUMONIA" for row in rows)
    assert f"{called} PNEUMONIA, 1 without an answer" in shown
    assert "bad.jpeg: empty file" in shown
    assert "P(PNEUMONIA)" not in said


def test_rows_are_written_as_they_come_and_kept_when_it_is_interrupted(
    capsys, run_dir, films, tmp_path, monkeypatch
):
    seen = []

    def two_then_ctrl_c(loaded, files):
        for answer in predict_files(loaded, files[:2]):
            yield answer
            seen.append((tmp_path / "rows.json").read_text().count('"file"'))
        raise KeyboardInterrupt

    monkeypatch.setattr("search.predict.predict_files", two_then_ctrl_c)
    code, *_ = say(capsys, run_dir, films, "--out", tmp_path / "rows.json")
    assert code == 130
    assert seen == [1, 2]
    assert len(json.loads((tmp_path / "rows.json").read_text())) == 2


def test_an_out_file_of_another_kind_is_refused_before_anything(capsys, run_dir, films, tmp_path):
    code, out, err = say(capsys, run_dir / "nowhere", films, "--out", tmp_path / "rows.xls")
    assert (code, out) == (2, "")
    assert "rows.xls: the name must end in .csv or .json" in err


def test_an_out_file_that_cannot_be_written_is_one_line(capsys, run_dir, films, tmp_path):
    (tmp_path / "file").write_text("")
    code, out, err = say(capsys, run_dir, films, "--out", tmp_path / "file" / "rows.csv")
    assert (code, out) == (2, "")
    assert "cannot be written" in err
    assert "Traceback" not in err


def test_dicom_is_read_beside_other_files(capsys, run_dir, films, tmp_path, loaded):
    pytest.importorskip("pydicom")
    from tests.data.trees import dicom_file

    film = np.asarray(Image.open(films / "test" / "NORMAL" / "IM-0000-0000.jpeg"))
    folder = tmp_path / "study"
    folder.mkdir()
    Image.fromarray(film).save(folder / "a.png")
    (folder / "b.dcm").write_bytes(dicom_file(film, bits=8))
    (folder / "c.dcm").write_bytes(dicom_file(255 - film, bits=8, kind="MONOCHROME1"))
    (folder / "d.dcm").write_bytes(bytes(128) + b"DICM")
    # As on a disc: films without a suffix, their table of contents, and what is no film.
    (folder / "e0001").write_bytes(dicom_file(film, bits=8))
    (folder / "DICOMDIR").write_bytes(bytes(128) + b"DICM")
    (folder / "readme").write_text("a disc")
    code, out, _ = say(capsys, run_dir, folder, "--json")
    assert code == 2
    png, dicom, inverted, broken, nameless = json.loads(out)
    assert png["probability"] == dicom["probability"] == inverted["probability"]
    assert "DICOM without an image" in broken["error"]
    assert nameless["file"].endswith("e0001")
    assert nameless["probability"] == png["probability"]


def test_an_export_of_a_run_is_chosen_by_format(run_dir):
    (run_dir / "model.onnx").write_bytes(b"onnx")
    assert find_model(run_dir, form="onnx") == run_dir / "model.onnx"
    with pytest.raises(RunDirectoryError, match=r"no model\.tflite in it; make it with .*--export"):
        find_model(run_dir, form="litert")


def test_an_export_that_failed_says_why(run_dir):
    rows = to_json(
        [
            ExportRecord(format="keras", path="model.keras", status="written"),
            ExportRecord(
                format="litert", path="model.tflite", status="failed", reason="no such operation"
            ),
        ]
    )
    (run_dir / "exports.json").write_text(json.dumps(rows))
    with pytest.raises(RunDirectoryError, match=r"model\.tflite in it \(no such operation\)"):
        find_model(run_dir, form="litert")


@pytest.mark.parametrize("change", ["altered", "added", "removed"])
def test_a_saved_model_changed_after_the_run_is_refused(run_dir, change):
    folder = run_dir / "model.saved_model"
    (folder / "variables").mkdir(parents=True)
    (folder / "saved_model.pb").write_bytes(b"graph")
    (folder / "variables" / "variables.index").write_bytes(b"index")
    RunDirectory(run_dir).write_manifest(MANIFEST)
    assert find_model(run_dir, form="saved_model") == folder
    assert find_model(folder) == folder
    if change == "altered":
        (folder / "saved_model.pb").write_bytes(b"other")
    elif change == "added":
        (folder / "more").write_bytes(b"")
    else:
        (folder / "variables" / "variables.index").unlink()
    with pytest.raises(ModelError, match="checksum"):
        find_model(run_dir, form="saved_model")


def test_an_unfinished_runs_model_is_used_and_said_to_be_unchecked(capsys, run_dir, films):
    assert "is unfinished (no manifest.json)" in unchecked_note(run_dir / "model.keras")
    code, out, err = say(capsys, run_dir, films)
    assert code == 0
    assert "cannot be checked" in " ".join(err.split())
    assert "P(PNEUMONIA)" in out
    RunDirectory(run_dir).write_manifest(MANIFEST)
    assert unchecked_note(run_dir / "model.keras") == ""
    assert unchecked_note(films / "model.keras") == ""


def test_a_model_that_cannot_be_used_is_one_line_and_code_2(capsys, run_dir, films):
    (run_dir / "model.keras").write_bytes(b"PK")
    code, out, err = say(capsys, run_dir, films)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
