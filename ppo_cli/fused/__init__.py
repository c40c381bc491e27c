"""PPO on small MLPs without a framework's overhead: the kernels, tied to the objects that the rest of the program has.

What is computed is what `ppo_cli.rollout` and `ppo_cli.algorithms.ppo` say, with the same random numbers. Sums are
taken in another order, so results agree to float32's precision. Tests compare the two on all that is claimed here.
"""
