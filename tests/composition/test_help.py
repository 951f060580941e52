from medexp.composition import help_text
from medexp.composition.groups import options_by_group
from medexp.composition.locations import conf_dir


def test_every_option_stands_there_with_its_line():
    text = help_text()
    groups = options_by_group([conf_dir()])
    assert {"dataset", "dataset/augmentation", "model", "stage", "experiment"} <= set(groups)
    for options in groups.values():
        for option in options:
            assert option.summary, f"{option.path.name} has no comment at its head"
            assert any(option.name in line and option.summary in line for line in text.splitlines())


def test_keys_stand_there_with_their_comments():
    lines = help_text().splitlines()
    assert any("data_dir=" in line and "read only" in line for line in lines)
    assert any("predict.save_probabilities=false" in line for line in lines)


def test_it_says_where_output_goes_and_what_an_exit_status_means():
    text = help_text()
    assert "multirun" in text
    assert "exit status" in text
    assert "143" in text


def test_hydras_own_groups_are_left_out():
    assert not any(group.startswith("hydra") for group in options_by_group([conf_dir()]))
