import csv
import json

import numpy as np
import pytest
from PIL import Image
from tiny import ABOUT, MANIFEST

from search.errors import ModelError, RunDirectoryError
from search.predict import main
from search.records import SYNTHETIC_NOTICE, ExportRecord, to_json
from search.run_directory import RunDirectory
from search.scoring.predict import find_model, predict_files, unchecked_note
from tests.data.trees import dicom_file

FAILED = [
    ExportRecord(format="keras", path="model.keras", status="written"),
    ExportRecord(format="litert", path="model.tflite", status="failed", reason="no such operation"),
]


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
    (run_dir / "model.onnx").write_bytes(b"onnx")
    assert find_model(run_dir, form="onnx") == run_dir / "model.onnx"


@pytest.mark.parametrize(
    ("change", "form", "said"),
    [
        (lambda run: (run / "model.keras").unlink(), "keras", "unfinished.*--name tiny --resume"),
        (lambda run: [file.unlink() for file in run.iterdir()], "keras", "not a run directory"),
        (lambda run: (run / "manifest.json").write_text("{"), "keras", "damaged"),
        (lambda run: None, "litert", r"no model\.tflite in it; make it with .*--export"),
        (
            lambda run: (run / "exports.json").write_text(json.dumps(to_json(FAILED))),
            *("litert", r"model\.tflite in it \(no such operation\)"),
        ),
    ],
    ids=["no model", "nothing", "damaged manifest", "no export", "a failed export"],
)
def test_a_run_without_the_model_says_why_and_what_to_do(run_dir, change, form, said):
    change(run_dir)
    with pytest.raises(RunDirectoryError, match=said):
        find_model(run_dir, form=form)


def test_a_model_changed_after_the_run_is_refused(run_dir):
    RunDirectory(run_dir).write_manifest(MANIFEST)
    assert find_model(run_dir)
    with open(run_dir / "model.keras", "ab") as handle:
        handle.write(b"x")
    with pytest.raises(ModelError, match="checksum"):
        find_model(run_dir)


def test_an_empty_name_is_not_the_working_directory(capsys, run_dir, films, monkeypatch):
    monkeypatch.chdir(films)
    for arguments, said in (((run_dir, ""), "IMAGE ''"), (("", films), "RUN_OR_MODEL ''")):
        code, out, err = say(capsys, *arguments)
        assert (code, out) == (2, "")
        assert f"error: {said}: an empty name; give a" in err


def test_json_is_an_array_and_what_cannot_be_read_costs_its_own_row(
    capsys, run_dir, films, tmp_path
):
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad [x].jpeg").write_bytes(b"")
    bad = {
        "n" * 300 + ".png": "cannot be read (File name too long)",
        "/dev/zero": "not a regular file",
        str(tmp_path / "empty"): "not a regular file",
        str(tmp_path / "bad [x].jpeg"): "empty file",
    }
    classes = ABOUT["classes"]
    code, out, err = say(capsys, run_dir, *bad, films, "--json")
    assert code == 2
    assert SYNTHETIC_NOTICE in err.replace("\n", " ")
    rows = json.loads(out)
    assert len(rows) == 8 + len(bad)
    for row in rows:
        assert row.keys() == {"file", "probability", "verdict", "error", "threshold", "notice"}
        assert row["notice"] == SYNTHETIC_NOTICE
        if row["file"] in bad:
            assert bad[row["file"]] in row["error"]
            assert row["probability"] is None
        else:
            assert row["error"] is None
            assert 0 <= row["probability"] <= 1
            assert row["verdict"] == classes[row["probability"] >= row["threshold"]]


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


def test_the_command_prints_a_table_with_verdicts_and_notice(capsys, run_dir, films):
    RunDirectory(run_dir).write_manifest(MANIFEST)
    code, out, err = say(capsys, run_dir, films)
    assert (code, err) == (0, "")
    shown = out.replace("\n", " ")
    for text in ("P(PNEUMONIA)", "0.400", SYNTHETIC_NOTICE, "not for diagnosis"):
        assert text in shown
    code, out, _ = say(capsys, run_dir, films, films / "gone.png")
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


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("{run}/nowhere", "{films}", "--out", "rows.xls"), "must end in .csv or .json"),
        (("{run}", "{films}", "--out", "{run}/config.json/rows.csv"), "cannot be written"),
        (("{run}/cut.keras", "{films}"), "damaged"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_code_2(capsys, run_dir, films, arguments, said):
    (run_dir / "cut.keras").write_bytes(b"PK")
    given = [text.format(run=run_dir, films=films) for text in arguments]
    code, out, err = say(capsys, *given)
    assert (code, out) == (2, "")
    assert err.splitlines()[-1].startswith("error: ")
    assert "Traceback" not in err
    assert said in err


@pytest.mark.parametrize("suffix", ["csv", "json"])
def test_rows_that_find_no_room_are_told_with_their_file(capsys, run_dir, films, suffix):
    (films / f"full.{suffix}").symlink_to("/dev/full")
    code, _, err = say(capsys, run_dir, films / "test", "--out", films / f"full.{suffix}")
    assert code == 2
    assert f"full.{suffix}: cannot be written (No space left" in " ".join(err.split())


def test_dicom_is_read_beside_other_files(capsys, run_dir, films, tmp_path):
    pytest.importorskip("pydicom")
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
