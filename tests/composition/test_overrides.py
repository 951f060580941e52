import pytest

from medexp.composition.overrides import key_of, normalize
from medexp.errors import ConfigurationError


@pytest.mark.parametrize(
    ("written", "needed"),
    [
        ("stage=2", "stage='2'"),
        ("stage=1,2", "stage='1','2'"),
        ("stage=choice(1,2)", "stage=choice('1','2')"),
        ("stage=prepare,1", "stage=prepare,'1'"),
        ("stage=[1,2]", "stage=['1','2']"),
        ("stage=range(1,3)", "stage='1','2'"),
        ("stage=1e3", "stage='1e3'"),
        ("+stage=2", "+stage='2'"),
        ("~stage=2", "~stage='2'"),
        ("stage@other=2", "stage@other='2'"),
        ("dataset=1", "dataset='1'"),
        ("dataset/augmentation=3", "dataset/augmentation='3'"),
        ("stage= 2", "stage= '2'"),
        ("upstream.overrides=[dataset=nnunet,fold=1]", "upstream.overrides=['dataset=nnunet','fold=1']"),
    ],
)
def test_what_hydra_cannot_read_bare_is_quoted(written, needed):
    assert normalize([written]) == [needed]


@pytest.mark.parametrize(
    "written",
    ["stage='2'", "stage=\"1\",'2'", "stage=prepare", "fold=1,2", "dataset.num_folds=2", "stage=null", "stage=glob(*)"],
)
def test_everything_else_stays_as_it_is(written):
    assert normalize([written]) == [written]


def test_a_second_pass_changes_nothing():
    once = normalize(["stage=1,prepare,'2'", "dataset=7", "fold=0"])
    assert normalize(once) == once


def test_a_group_of_an_own_folder_counts(config_dir):
    folder = config_dir(scanner__7="# a scanner\nfield: 7\n")
    assert normalize(["+scanner=7"], config_dirs=[folder]) == ["+scanner='7'"]


@pytest.mark.parametrize(
    "pair", [("fold=1", "fold=2"), ("fold=1", "+fold=2"), ("stage=1", "~stage"), ("dataset@a=x", "++dataset@b=y")]
)
def test_a_key_given_twice_is_refused_with_both(pair):
    with pytest.raises(ConfigurationError, match="given twice") as raised:
        normalize(list(pair))
    assert all(override in str(raised.value) for override in pair)


@pytest.mark.parametrize(
    "override",
    [
        "+tracking.token=abc",
        "+tracking.password=1234",
        "+tracking.client_secret='abc'",
        "+tracking.api_key=abc",
        "+tracking.apikey=a,b",
        "+tracking={password: abc}",
        "tracking.uri=http://me:abc@host:5000",
    ],
)
def test_a_secret_in_clear_text_is_refused_and_not_repeated(override):
    with pytest.raises(ConfigurationError, match=r"oc\.env:NAME") as raised:
        normalize([override])
    assert "abc" not in str(raised.value)
    assert "1234" not in str(raised.value)


@pytest.mark.parametrize(
    "override",
    ["+tracking.token='${oc.env:TOKEN}'", "model.num_tokens=16", "+x.password=null", "tracking.uri=http://host:5000"],
)
def test_what_only_looks_like_a_secret_passes(override):
    assert normalize([override]) == [override]


@pytest.mark.parametrize("prefix", ["", "+", "++"])
def test_a_search_path_is_refused(prefix):
    with pytest.raises(ConfigurationError, match="--config-dir"):
        normalize([f"{prefix}hydra.searchpath=[pkg://antigravity]"])


def test_the_key_of_an_override_has_no_prefix_and_no_package():
    assert [key_of(text) for text in ("++a.b=1", "~c", "g@p=o", "h/i=j")] == ["a.b", "c", "g", "h/i"]
