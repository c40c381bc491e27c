"""PPO and its relatives from the command line."""
