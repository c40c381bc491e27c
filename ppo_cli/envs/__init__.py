"""Environments: batches that are stepped as one."""
