from __future__ import annotations

from ppo_cli.trials import MAX_HYPERPARAMETERS, hyperparameters, trial_id

CONFIG = {"clip": 0.2, "seed": 1, "target_kl": None, "env": {"_target_": "a.B", "mines": 10, "rule": "safe"}}


def test_the_seed_and_how_a_run_is_watched_do_not_make_another_trial():
    assert trial_id(CONFIG) == trial_id({**CONFIG, "seed": 2, "log_interval": 5, "output_dir": "elsewhere"})


def test_any_other_setting_makes_another_trial():
    others = [{**CONFIG, "clip": 0.1}, {**CONFIG, "env": {**CONFIG["env"], "mines": 11}}]
    assert len({trial_id(config) for config in [CONFIG, *others]}) == 3


def test_the_order_of_the_keys_does_not_make_another_trial():
    assert trial_id(CONFIG) == trial_id(dict(reversed(CONFIG.items())))


def test_nested_settings_get_dotted_names_and_class_paths_get_none():
    assert hyperparameters(CONFIG) == {"clip": 0.2, "target_kl": None, "env.mines": 10, "env.rule": "safe"}


def test_daily_settings_come_before_nested_ones_where_the_table_is_full():
    config = {"env": {f"deep{index}": index for index in range(50)}, "clip": 0.2}
    names = list(hyperparameters(config))
    assert names[:2] == ["clip", "env.deep0"]
    assert len(names) == MAX_HYPERPARAMETERS


def test_values_that_no_table_can_hold_are_left_out():
    assert hyperparameters({"hidden": [64, 64], "clip": 0.2}) == {"clip": 0.2}
