from __future__ import annotations

from ppo_cli.trials import MAX_HYPERPARAMETERS, chosen_settings, hparams_table, hyperparameters, trial_id

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


def test_several_configurations_share_the_columns_of_all():
    merged = hyperparameters({"clip": 0.2, "target_kl": None, "env": {"mines": 3}}, {"target_kl": 0.1, "max_kl": 0.01})
    assert merged == {"clip": 0.2, "target_kl": 0.1, "max_kl": 0.01, "env.mines": 3}
    assert list(merged) == ["clip", "target_kl", "max_kl", "env.mines"]


def test_what_all_have_comes_before_what_some_lack():
    ppo = {"algo": {"name": "ppo"}, "adam_eps": 1e-5, "clip": 0.2, "gamma": 0.9, "num_envs": 8, "off": None, "z": 1}
    trpo = {"algo": {"name": "trpo"}, "adam_eps": 1e-5, "max_kl": 0.1, "gamma": 0.9, "num_envs": 16, "off": 2, "z": 1}
    table = hparams_table([ppo, trpo], ["algo", "seed"])
    assert table.shown == ["algo.name", "num_envs", "adam_eps", "gamma", "z"]
    assert table.columns.keys() == {*table.shown, "clip", "off", "max_kl"}
    assert hparams_table([ppo, ppo | {"clip": 0.1}], ["algo", "clip"]).shown == ["algo.name", "clip"]


def test_what_is_learnt_leads_only_where_it_differs():
    tasks = [{"env": {"name": name}, "total_env_steps": 10} for name in ("cartpole", "acrobot")]
    assert hparams_table(tasks, ["env", "total_env_steps"]).shown == ["env.name"]
    assert hparams_table(tasks[:1], ["env", "total_env_steps"]).shown == []


def test_lists_become_the_text_that_one_would_type():
    assert hyperparameters({"hidden": [64, 64], "clip": 0.2}) == {"hidden": "[64,64]", "clip": 0.2}


def test_chosen_settings_keep_their_place_in_a_full_table():
    config = {f"top{index}": index for index in range(50)} | {"env": {"mines": 10}}
    names = list(hyperparameters(config, chosen=chosen_settings(["env.mines=10", "++top49=1", "seed=1"])))
    assert names[:3] == ["env.mines", "top49", "top0"]
    assert len(names) == MAX_HYPERPARAMETERS


def test_a_chosen_part_is_known_by_its_name():
    assert chosen_settings(["algo=trpo", "clip=0.1", "+clip=0.2"]) == ["algo.name", "clip"]
