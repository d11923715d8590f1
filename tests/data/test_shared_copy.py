"""The known numbers of the real films, where a copy of them is at hand."""

import time
from pathlib import Path

import pytest

from search.config import SplitKind
from tests.data.trees import prepared

REAL = Path(__file__).parents[3] / "shared" / "chest_xray"


@pytest.mark.skipif(not REAL.is_dir(), reason="the shared copy of the films is not here")
def test_the_shared_copy_has_the_known_numbers(tmp_path):
    begin = time.perf_counter()
    options = {"views_per_image": 1}
    notebook, sealed = prepared(REAL, tmp_path, split=SplitKind.NOTEBOOK, **options)
    cold = time.perf_counter() - begin
    assert (len(notebook.train), len(notebook.val)) == (4172, 1044)
    assert notebook.report.val_sharing_patients == 403
    assert notebook.report.test_patients_in_train == ()
    assert notebook.class_weights[0] == pytest.approx(1.96, abs=0.01)
    assert notebook.class_weights[1] == pytest.approx(0.67, abs=0.005)
    assert notebook.report.unmatched_names == 0
    assert notebook.report.rejected == ()
    assert notebook.report.crossing["test"] == notebook.report.crossing["classes"] == ()
    assert len(sealed.open()) == 331

    begin = time.perf_counter()
    patient, _ = prepared(REAL, tmp_path, **options)
    warm = time.perf_counter() - begin
    assert warm < cold
    assert patient.report.val_sharing_patients == 0
    for name, count in (("NORMAL", 1341), ("PNEUMONIA", 3875)):
        assert abs(patient.report.counts["val"][name] / count - 0.2) < 0.01
    totals = {
        name: patient.report.patients["train"][name] + patient.report.patients["val"][name]
        for name in ("NORMAL", "PNEUMONIA")
    }
    assert totals == {"NORMAL": 1211, "PNEUMONIA": 2443}
