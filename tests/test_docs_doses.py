"""What the pages on doses say is so: examples run, commands compose, keys, columns, flags and messages exist."""

import re
import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from medexp.composition import compose, conf_dir
from medexp.composition.groups import options_by_group
from medexp.errors import UnknownOptionError
from medexp.geometry.distances import signed_distance_mm
from medexp.io import openkbp
from medexp.io.dicom_objects import PatientIdentity
from medexp.io.dicom_rt import RtReferences
from medexp.io.dicom_write import write_patient, write_rtdose
from medexp.io.dose_npz import write_case_npz
from medexp.metrics.clinical import PROTOCOLS, Outcome
from medexp.metrics.dose_scoring import score_dose
from medexp.networks.denoising_unet import DenoisingUNet
from medexp.networks.dose_unet import DoseUNet
from medexp.preparation.dose_quality import Losses, check_case
from tests.synthetic.doses import OPENKBP, VMAT, small_case
from tests.synthetic.planning import planned
from tests.synthetic.scoring_doses import SCORING

ROOT = Path(__file__).parents[1]
VMAT_PAGE = (ROOT / "docs/applications/vmat.md").read_text()
OPENKBP_PAGE = (ROOT / "docs/applications/openkbp.md").read_text()
PAGES = {"vmat": VMAT_PAGE, "openkbp": OPENKBP_PAGE}
CODE = re.compile(r"`([^`\n]+)`")


def examples(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", page, re.DOTALL)


def run_examples(page: str) -> dict:
    names: dict = {}
    for block in examples(page):
        exec(compile(block, "example", "exec"), names)
    return names


def table(page: str, head: str) -> list[list[str]]:
    """Return the rows of the table whose first heading is `head`."""
    lines = page[page.index(f"| {head} |") :].splitlines()[2:]
    rows = []
    for line in lines:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split(" | ")])
    assert rows
    return rows


# Examples


@pytest.fixture(scope="module")
def planned_patient(tmp_path_factory):
    """Return a folder with what the examples of the page on VMAT read, and the case and dose behind it."""
    folder = tmp_path_factory.mktemp("vmat")
    case = planned(3, name="patient_001")
    write_patient(folder / "patient_001", case, identity=PatientIdentity("one"))
    stored = replace(case, coverage={name: mask.astype(np.uint8) * np.uint8(255) for name, mask in case.masks.items()})
    for place in ("cases", "predictions"):
        (folder / place).mkdir()
    write_case_npz(folder / "cases/patient_001.npz", stored, structures=VMAT, distance_clip_mm=50.0)
    predicted = (case.dose_gy * np.float32(1.02)).astype(np.float32)
    write_rtdose(folder / "predictions/patient_001.dcm", predicted, case.affine, references=RtReferences())
    return folder, case, predicted


@pytest.fixture(scope="module")
def shown(planned_patient):
    """Return the names that the examples of the page on VMAT leave behind."""
    patch = pytest.MonkeyPatch()
    patch.chdir(planned_patient[0])
    try:
        yield run_examples(VMAT_PAGE)
    finally:
        patch.undo()


def test_the_pages_have_examples():
    assert len(examples(VMAT_PAGE)) >= 5
    assert len(examples(OPENKBP_PAGE)) >= 1


def test_the_example_finds_every_structure_where_it_was_drawn(shown, planned_patient):
    case = planned_patient[1]
    last = case.masks[shown["structure"].name]
    assert {one.name for one in shown["patient"].structures} == set(case.masks)
    assert np.array_equal(shown["mask"], last)
    assert shown["patient"].plan.prescription_gy == 70.0


def test_the_examples_dvh_is_near_the_voxels_percentiles(shown, planned_patient):
    case = planned_patient[1]
    doses = case.dose_gy[case.masks["Rectum"]]
    dvh = shown["dvh"]
    assert dvh.mean_gy == pytest.approx(doses.mean(), rel=0.03)
    assert dvh.dose_at_volume_percent(50) == pytest.approx(np.median(doses), rel=0.05)
    assert dvh.volume_cc == pytest.approx(doses.size * 4.0 * 4.0 * 5.0 / 1000, rel=0.01)


def test_the_examples_gamma_of_two_percent_more_passes_everywhere(shown, planned_patient):
    """A dose that is 2 % of itself too high differs by up to two thirds of the criterion, and never by nothing."""
    case = planned_patient[1]
    evaluated = ~np.isnan(shown["gamma"])
    assert np.array_equal(evaluated, case.dose_gy >= 0.1 * case.dose_gy.max())
    assert np.nanmax(shown["gamma"]) == pytest.approx(2 / 3, abs=0.01)
    assert shown["criteria"].label == "3%/3mm global"


def test_the_examples_limits_are_judged_on_the_prediction(shown, planned_patient):
    case, predicted = planned_patient[1:]
    [maximum] = [one for one in shown["checked"].limits if one.structure == "Rectum" and one.limit.name == "dmax_gy"]
    assert maximum.value == pytest.approx(predicted[case.masks["Rectum"]].max(), abs=1e-4)
    missing = {one.structure for one in shown["checked"].of(Outcome.MISSING)}
    assert missing == {"PTV50.4"}


def test_the_examples_rtdose_belongs_to_the_plan(shown, planned_patient):
    import pydicom

    mine = pydicom.dcmread(planned_patient[0] / "mine.dcm")
    assert mine.SOPInstanceUID == shown["uid"]
    assert mine.ReferencedRTPlanSequence[0].ReferencedSOPInstanceUID == shown["patient"].references.plan_uid


def test_the_example_of_openkbp_scores_what_numpy_does(tmp_path, monkeypatch):
    shape = (128, 128, 128)
    small = small_case(1, structures=OPENKBP)
    room = tuple(slice(50, 50 + size) for size in small.shape)

    def placed(array, fill=0):
        whole = np.full(shape, fill, array.dtype)
        whole[room] = array
        return whole

    case = replace(
        small,
        name="pt_241",
        ct_hu=placed(small.ct_hu, -1000),
        affine=openkbp.centered_affine((4.0, 4.0, 5.0)),
        masks={name: placed(mask) for name, mask in small.masks.items()},
        coverage={},
        dose_gy=placed(small.dose_gy),
        possible_dose=placed(small.possible_dose),
    )
    openkbp.write_patient(tmp_path / "test-pats/pt_241", case, durable=False)
    predicted = (case.dose_gy + np.float32(0.5) * case.possible_dose).astype(np.float32)
    (tmp_path / "submission").mkdir()
    openkbp.write_sparse(tmp_path / "submission/pt_241.csv", predicted, durable=False)
    monkeypatch.chdir(tmp_path)
    names = run_examples(OPENKBP_PAGE)
    assert names["scores"].dose_score_gy == pytest.approx(0.5, abs=1e-5)
    assert names["scores"].num_patients == 1
    assert np.array_equal(openkbp.read_sparse(tmp_path / "pt_241.csv"), predicted)


# Commands and keys


def commands() -> list[tuple[str, str]]:
    found = []
    for name, page in PAGES.items():
        lines = re.sub(r" \\\n\s+", " ", page).splitlines()
        found += [(name, line.strip()) for line in lines if line.startswith("    python -m medexp.run")]
    assert len(found) >= 8
    return found


def composed(overrides: list[str]) -> list:
    """Return the configuration of every stage that a line names."""
    lists = [one for one in overrides if one.startswith("stage=")]
    rest = [one for one in overrides if one not in lists]
    stages = lists[0].removeprefix("stage=").split(",") if lists else ["prepare"]
    return [compose([*rest, f"stage={stage}"]) for stage in stages]


@pytest.mark.parametrize(("page", "command"), commands())
def test_every_command_composes(page, command, tmp_path):
    words = shlex.split(re.sub(r"<[^>]*>", str(tmp_path), command))[3:]
    configs = composed([word for word in words if word != "-m"])
    assert all(config.dataset.name.startswith(page) for config in configs)


def spans(page: str) -> list[str]:
    """Return the code in the running text and the tables, and in lines of overrides alone."""
    text = re.sub(r"```.*?```", "", page, flags=re.DOTALL)
    indented = [line.strip() for line in text.splitlines() if line.startswith(("    '", "    trainer="))]
    return CODE.findall(text) + indented


KEY = re.compile(r"(?:trainer|dataset|model|predict|evaluate|prepare|hardware|compare)(?:[./][\w.]+)?")
ASSIGNMENTS = sorted(
    {
        (name, span)
        for name, page in PAGES.items()
        for span in spans(page)
        if KEY.match(span.lstrip("'")) and "=" in span
    }
)
KEYS = sorted(
    {(name, span) for name, page in PAGES.items() for span in spans(page) if KEY.fullmatch(span) and "." in span}
)


def test_keys_were_found():
    assert len(ASSIGNMENTS) > 20
    assert len(KEYS) > 8


@pytest.mark.parametrize(("page", "span"), ASSIGNMENTS)
def test_every_assignment_composes_with_a_model_of_doses(page, span):
    overrides = shlex.split(span)
    base = [] if any(one.startswith("dataset=") for one in overrides) else [f"dataset={page}"]
    chosen = [] if any(one.startswith("model=") for one in overrides) else ["model=dose_unet", "model=dose_ddpm"]
    refused = []
    for model in chosen or [None]:
        try:
            compose([*base, *([model] if model else []), *overrides, "stage=predict"])
        except UnknownOptionError as error:  # a key of the other model
            refused.append(str(error))
        else:
            return
    pytest.fail("; ".join(refused))


@pytest.mark.parametrize(("page", "key"), KEYS)
def test_every_key_exists(page, key):
    config = compose([f"dataset={page}", "model=dose_unet", "stage=predict"])
    parent, _, name = key.rpartition(".")
    node = OmegaConf.select(config, parent)
    assert node is not None, key
    assert name in node


# Tables


def test_the_columns_of_the_table_are_those_of_an_evaluation():
    case = planned(1)
    scoring = replace(SCORING, gamma=("3%/3mm",), volume_doses_gy=(70.0, 60.0, 50.0, 45.0, 40.0))
    columns = set(score_dose(case, case.dose_gy, scoring).row())
    named = [span for first, *_ in table(VMAT_PAGE, "column of `cases.csv`") for span in CODE.findall(first)]
    written = [span.replace("<structure>", "Rectum").replace("<PTV>", "PTV70") for span in named if "..." not in span]
    assert len(written) >= 12
    assert set(written) - columns == set()


def test_the_flags_of_the_table_are_those_of_preparation():
    case = planned(1)
    distance = {"PTV70": signed_distance_mm(case.masks["PTV70"], case.spacing_mm, clip_mm=50.0)}
    flags = check_case(case, distance, Losses({"PTV70": 0.0, "Rectum": 1.0}, {"PTV70": 1.0, "Rectum": 1.0}))
    critical: dict[str, set[bool]] = {}
    for flag in flags:
        critical.setdefault(flag.name.partition("/")[0], set()).add(flag.is_critical)
    described = {
        span.partition("/")[0]: then for first, _, then in table(VMAT_PAGE, "flag") for span in CODE.findall(first)
    }
    assert set(described) == set(critical)
    for name, then in described.items():
        assert then.startswith("refused") == (True in critical[name]), name


@pytest.mark.parametrize(
    ("row", "structure"), [(1, "Rectum"), (2, "Bladder"), (3, "Femur_L"), (3, "Femur_R"), (4, "Bowel")]
)
def test_the_limits_of_the_table_are_those_that_are_checked(row, structure):
    names, text = table(VMAT_PAGE, "structure")[row]
    assert structure in names
    numbers = [float(number) for number in re.findall(r"\d+(?:\.\d+)?", text)]
    limits = PROTOCOLS["prostate_sib"].limits[structure]
    expected = [value for one in limits for value in (one.dose_gy, one.bound) if value is not None]
    assert sorted(numbers) == sorted(expected)


def test_every_message_of_the_table_is_in_the_code():
    code = "\n".join(path.read_text() for path in (ROOT / "medexp").rglob("*.py"))
    messages = [span for _, cell in table(VMAT_PAGE, "found") for span in CODE.findall(cell)]
    assert len(messages) >= 20
    # A reader of attributes says "expected {keyword}".
    assert [
        one for one in messages if one not in code and one.replace("DoseGridScaling", "{keyword}") not in code
    ] == []


def test_the_numbers_of_parameters_are_those_of_the_networks():
    with torch.device("meta"):
        unet = DoseUNet(9, 1, 13, base_features=48)
        denoising = DenoisingUNet(10, 1, 13, base_features=32)
    for network in (unet, denoising):
        assert f"{sum(weight.numel() for weight in network.parameters()):,} parameters" in VMAT_PAGE


# All pages


@pytest.mark.parametrize("group", ["dataset", "model", "experiment"])
def test_the_readme_names_every_option(group):
    readme = (ROOT / "README.md").read_text()
    options = [option.name for option in options_by_group([conf_dir()])[group]]
    assert options
    assert [name for name in options if f"`{name}`" not in readme] == []


def test_links_between_pages_lead_somewhere():
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    links = [(page, link) for page in pages for link in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text())]
    local = [(page, link) for page, link in links if "://" not in link]
    assert len(local) > 20
    assert [(page.name, link) for page, link in local if not (page.parent / link).exists()] == []
