"""Imported by the process that forks the workers (multiprocessing's fork server) before it forks any.

It ends with the run, and the workers with it; and it does not end before the run does.
"""

from ppo_cli.envs.worker import die_with_parent, ignore_signals

ignore_signals()
die_with_parent()
