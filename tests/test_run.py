"""The entrypoint's exit statuses, and what stands on standard error."""

import pytest

from medexp.errors import CohortError
from medexp.run import main


@pytest.fixture
def line(tmp_path):
    """A single run that has nothing to start from."""
    return ["stage=1", "model.weights=null", f"output_dir={tmp_path}"]


@pytest.fixture
def ending(monkeypatch):
    """Let every run end with an error of the test's choice."""

    def choose(error):
        def run_composed(*_):
            raise error

        monkeypatch.setattr("medexp.sweeps.job.run_composed", run_composed)

    return choose


def test_help_is_0(capsys):
    assert main(["--help"]) == 0
    assert "usage: python -m medexp.run" in capsys.readouterr().out


@pytest.mark.parametrize("argv", [["foldd=1"], ["--hlep"], ["stage=3"], ["seed=-1"], ["-m", "stage=1,2", "fold=0,9"]])
def test_what_is_refused_before_anything_starts_is_2(argv, tmp_path, capsys):
    assert main([*argv, f"output_dir={tmp_path / 'out'}"]) == 2
    assert capsys.readouterr().err.startswith("error: ")
    assert not (tmp_path / "out").exists()


def test_a_run_that_cannot_start_is_1_and_says_why_once(line, capsys):
    assert main(line) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: expected a finished stage prepare")
    assert error.count("\n") == 2
    assert "Error executing job" not in error


def test_an_expected_error_has_no_traceback(line, ending, capsys):
    ending(CohortError("expected cases, got none"))
    assert main(line) == 1
    assert capsys.readouterr().err == "error: expected cases, got none\n"


def test_a_configuration_error_that_only_the_run_can_find_is_a_failed_run(line, ending, capsys):
    from medexp.errors import ConfigurationError

    ending(ConfigurationError("dataset.patch_size: expected 3 sizes"))
    assert main(line) == 1
    assert capsys.readouterr().err == "error: dataset.patch_size: expected 3 sizes\n"


def test_an_unexpected_error_is_shown_whole(line, ending, capsys):
    ending(ZeroDivisionError("a programming error"))
    assert main(line) == 1
    error = capsys.readouterr().err
    assert error.startswith("Traceback")
    assert "a programming error" in error
    assert "Error executing job" not in error


def test_the_keyboard_is_130(line, ending, capsys):
    ending(KeyboardInterrupt())
    assert main(line) == 130
    assert "the same command continues" in capsys.readouterr().err


def test_sigterm_is_143(line, ending):
    ending(SystemExit(143))
    with pytest.raises(SystemExit) as left:
        main(line)
    assert left.value.code == 143


def test_other_words_on_standard_error_are_kept(line, monkeypatch, capsys):
    import sys

    def run_composed(*_):
        sys.stderr.write("a library's warning\n")
        raise CohortError("expected cases, got none")

    monkeypatch.setattr("medexp.sweeps.job.run_composed", run_composed)
    before = sys.stderr
    assert main(line) == 1
    assert sys.stderr is before
    assert capsys.readouterr().err == "a library's warning\nerror: expected cases, got none\n"
