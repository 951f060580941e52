import pytest

from medexp.errors import ConfigurationError
from medexp.preparation.structure_names import StructureNames, case_type, plain_name

NAMES = StructureNames(
    ("PTV70", "PTV50.4", "Femur_L"), {"Femur_L": ("Left Femur", "Femoral-Head_L"), "PTV70": ("PTV hd",)}
)


@pytest.mark.parametrize(
    ("written", "structure"),
    [
        ("PTV70", "PTV70"),
        ("ptv_70 Gy", "PTV70"),
        ("PTV-70Gy", "PTV70"),
        ("PTV_50.4Gy", "PTV50.4"),
        ("LEFT_FEMUR", "Femur_L"),
        ("femoralheadL", "Femur_L"),
        ("PTVHD", "PTV70"),
    ],
)
def test_names_are_compared_without_case_signs_and_unit(written, structure):
    assert NAMES.group([written]) == ({structure: [written]}, [])


def test_several_names_of_one_structure_are_together_and_strangers_are_listed():
    found, unmatched = NAMES.group(["Couch", "left femur", "PTV70", "Femur_L", "PTV 7"])
    assert found == {"PTV70": ["PTV70"], "Femur_L": ["left femur", "Femur_L"]}
    assert unmatched == ["Couch", "PTV 7"]


def test_plain_name():
    assert plain_name("Femoral_Head-L 50Gy") == "femoralheadl50"


def test_a_name_of_two_structures_is_refused():
    with pytest.raises(ConfigurationError, match="'PTV_70' to mean one structure, got PTV70 and PTV56"):
        StructureNames(("PTV70", "PTV56"), {"PTV56": ("PTV_70",)})


def test_aliases_of_a_stranger_are_refused():
    with pytest.raises(ConfigurationError, match="expected structures of the dataset .PTV70., got Rectum"):
        StructureNames(("PTV70",), {"Rectum": ("Rektum",)})


@pytest.mark.parametrize("structures", [(), ("PTV70", "PTV70")])
def test_structures_differ(structures):
    with pytest.raises(ConfigurationError, match="dataset.structures: expected different names"):
        StructureNames(structures)


@pytest.mark.parametrize(
    ("present", "expected"),
    [
        (["PTV70", "Rectum"], "single_rx"),
        (["PTV70", "PTV56"], "sib_2level"),
        (["PTV70", "PTV56", "PTV50.4", "Bladder"], "sib_3level"),
        (["PTV56"], "nodal_only"),
    ],
)
def test_case_type(present, expected):
    assert case_type(present) == expected
