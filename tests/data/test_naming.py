import pytest

from search.data.naming import read_name


@pytest.mark.parametrize(
    ("name", "patient", "subtype"),
    [
        ("person12_bacteria_47.jpeg", "person12_bacteria", "bacteria"),
        ("person12_virus_47.jpeg", "person12_virus", "virus"),
        ("person1372_bacteria_3498_2.jpeg", "person1372_bacteria", "bacteria"),
        ("Person012_Bacteria_47.JPG", "person12_bacteria", "bacteria"),
        ("IM-0115-0001.jpeg", "IM-0115", ""),
        ("IM-0115-0001-0002.jpeg", "IM-0115", ""),
        ("im-115-0001.png", "IM-0115", ""),
        ("NORMAL2-IM-0115-0001.jpeg", "NORMAL2-IM-0115", ""),
        ("NORMAL2-IM-0115-0001-0002.jpeg", "NORMAL2-IM-0115", ""),
        ("NORMAL-1003233-0001.jpeg", "NORMAL-1003233", ""),
        ("BACTERIA-1008087-0001.jpeg", "BACTERIA-1008087", "bacteria"),
        ("VIRUS-1008087-0001.jpeg", "VIRUS-1008087", "virus"),
    ],
)
def test_known_name_tells_patient_and_subtype(name, patient, subtype):
    assert read_name(f"train/PNEUMONIA/{name}") == (patient, subtype)


@pytest.mark.parametrize("name", ["scan.jpeg", "person_bacteria_1.jpeg", "IM-0115.jpeg", "1.png"])
def test_unknown_name_tells_nothing(name):
    assert read_name(f"train/NORMAL/{name}") == ("", "")
