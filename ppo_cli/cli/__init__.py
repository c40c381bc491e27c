"""The command line: the only place that imports hydra or omegaconf."""
