"""PPO on MLPs and boards without a framework's overhead: the kernels, tied to the objects that the program has.

What is computed is what `ppo_cli.rollout` and `ppo_cli.algorithms.ppo` say, with the same random numbers. Sums are
taken in another order, so results agree to float32's precision, those of a board's convolutions to bfloat16's. Tests
compare the two on all that is claimed here.
"""
