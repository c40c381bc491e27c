"""Whatever is typed: the settings are valid, or there is a sentence for each mistake. Never a traceback."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ppo_cli.cli.arguments import UserError, sort_arguments
from ppo_cli.cli.compose import Composer
from ppo_cli.cli.declared import declared_settings
from ppo_cli.cli.train import checked
from ppo_cli.cli.validate import TRAIN_SETTINGS

COMPOSER = Composer()

known = [*(declared_settings(TRAIN_SETTINGS) or {}), *(declared_settings("ppo_cli.algorithms.ppo.PPO") or {})]
known += [
    "env",
    "algo",
    "network",
    "experiment",
    "env.mines",
    "env.id",
    "env.kwargs",
    "network.hidden",
    "hydra.run.dir",
]
names = st.sampled_from([name for name in known if name != "device"]) | st.text("abcdefgz._", min_size=1, max_size=8)
values = (
    st.sampled_from(
        ["", "null", "true", "nan", "-inf", "1e6", "1e400", "???", "${seed}", "${x}", "${oc.env:HOME}", "[]", "{}"]
    )
    | st.sampled_from(
        ["[1,2]", "{a:1}", "a=b", "'", '"', "a,b", "cartpole", "ppo", "mlp", "quick", "linear", "choice(1,2)"]
    )
    | st.integers(-3, 10**6).map(str)
    | st.floats().map(str)
    | st.text(max_size=6)
)
prefixes = st.sampled_from(["", "", "", "", "+", "++", "~", "--", "-"])
equals = st.sampled_from(["=", "=", "=", "=", " ", "= ", " =", "", "=="])
words = st.builds("{}{}{}{}".format, prefixes, names, equals, values)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(words, max_size=4))
def test_every_line_is_valid_or_explained(line: list[str]) -> None:
    arguments = sort_arguments([part for word in line for part in word.split(" ")])
    arguments.flags.pop("--config-dir", None)
    try:
        checked(COMPOSER, arguments)
    except UserError as error:
        assert error.problems
        for problem in error.problems:
            assert problem.strip()
            assert "Traceback" not in problem
