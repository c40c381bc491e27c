"""Every form of a policy computes what the policy computes, or is not kept."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from ppo_cli import export
from ppo_cli.export import (
    FORMS,
    ExportError,
    Form,
    Graph,
    difference,
    onnx_function,
    policy_files,
    torchscript_function,
    write_files,
)
from ppo_cli.policy import read_policy
from ppo_cli.random_obs import random_obs
from tests.policies import KINDS, made

QUICK = ("mlp_masked", "board")
READERS = {"policy.onnx": onnx_function, "policy.pt": torchscript_function}


def assert_computes_the_same(kind: str, forms: list[Form]) -> None:
    """Each form gives the policy's outputs, of the policy's types, for observations that it has not been tried on."""
    description, tensors, _, _ = made(kind)
    files = policy_files(description, tensors, forms)
    said = json.loads(files["policy.json"])["files"]
    policy = read_policy(description, tensors)
    generator = torch.Generator().manual_seed(77)  # other observations than those of the export's own check
    sizes = [None, (3, 7)] if "board" in kind else [None]
    for name in files.keys() & READERS:
        function = READERS[name](files[name])
        for size in sizes:
            inputs = random_obs(policy, 50, generator, size)
            with torch.no_grad():
                expected, found = Graph(policy)(*inputs), function(inputs)
            assert difference(Graph(policy), expected, found) <= export.TOLERANCE
            assert [one.dtype for one in expected] == [one.dtype for one in found]
        assert said[name]["largest_difference"] <= said[name]["tolerance"] == export.TOLERANCE
        assert str(Path.cwd()).encode() not in files[name]
    assert len(files.keys() & READERS) == len(forms)


@pytest.mark.parametrize("kind", KINDS)
def test_torchscript_computes_what_the_policy_computes(kind: str) -> None:
    assert_computes_the_same(kind, ["torchscript"])


@pytest.mark.parametrize("kind", QUICK)
def test_onnx_computes_what_the_policy_computes(kind: str) -> None:
    assert_computes_the_same(kind, ["onnx"])


@pytest.mark.slow
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in QUICK])
def test_onnx_of_every_other_kind_computes_what_the_policy_computes(kind: str) -> None:
    assert_computes_the_same(kind, ["onnx", "torchscript"])


def changed(change: Callable[[list[Tensor]], list[Tensor]]) -> Callable[[bytes], export.Function]:
    def read(data: bytes) -> export.Function:
        function = torchscript_function(data)
        return lambda inputs: change(list(function(inputs)))

    return read


@pytest.mark.parametrize(
    "change",
    [
        lambda outputs: [outputs[0], outputs[1] + 2e-4, outputs[2]],
        lambda outputs: [outputs[0], outputs[1], outputs[2] * 1.01],
        lambda outputs: [(outputs[0] - 5 + 1) % 3 + 5, *outputs[1:]],
        lambda outputs: [outputs[0], outputs[1], outputs[2] * torch.nan],
        lambda outputs: [outputs[0], outputs[1], outputs[2][:-1]],
        lambda outputs: outputs[:2],
    ],
)
def test_a_form_that_computes_something_else_is_not_kept(
    monkeypatch: pytest.MonkeyPatch, change: Callable[[list[Tensor]], list[Tensor]]
) -> None:
    description, tensors, _, _ = made("mlp_masked")
    monkeypatch.setitem(FORMS, "torchscript", (FORMS["torchscript"][0], changed(change)))
    with pytest.raises(ExportError, match="torchscript: its outputs are up to"):
        policy_files(description, tensors, ["torchscript"])


def test_either_of_two_equally_likely_actions_is_right() -> None:
    graph = Graph(read_policy(*made("mlp")[:2]))
    log_probs = torch.tensor([[0.4, 0.4, 0.2]]).log()
    value = torch.zeros(1)
    first, second, third = ([torch.tensor([action]), log_probs, value] for action in (0, 1, 2))
    assert difference(graph, first, second) == 0
    assert difference(graph, first, third) == pytest.approx(np.log(2), rel=1e-5)


def test_random_observations_are_legal_and_of_the_space() -> None:
    for kind in KINDS:
        policy = read_policy(*made(kind)[:2])
        inputs = random_obs(policy, 200, torch.Generator().manual_seed(1))
        parts = policy.spaces.obs.spaces.values() if hasattr(policy.spaces.obs, "spaces") else [policy.spaces.obs]
        for space, rows in zip(parts, inputs, strict=True):
            assert all(space.contains(row.numpy().astype(space.dtype)) for row in rows)
            if rows.dtype == torch.bool:
                assert rows.any(dim=1).all() and not rows.all()


def test_the_same_policy_gives_the_same_files() -> None:
    description, tensors, _, _ = made("mlp_masked")
    assert policy_files(description, tensors, []) == policy_files(description, tensors, [])


def test_a_disk_that_refuses_leaves_no_folder_and_an_older_export_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = policy_files(*made("mlp")[:2], [])
    write_files(tmp_path / "old", files | {"policy.onnx": b"of then"})
    real = export.write_atomically

    def full_disk(path: Path, content: bytes) -> None:
        if path.name == "policy.json":
            raise OSError(28, "No space left on device")
        real(path, content)

    monkeypatch.setattr(export, "write_atomically", full_disk)
    for folder in ("new", "old"):
        with pytest.raises(OSError, match="No space"):
            write_files(tmp_path / folder, files)
    assert not (tmp_path / "new").exists()
    assert (tmp_path / "old/policy.onnx").exists()
    monkeypatch.undo()
    write_files(tmp_path / "old", files)
    assert sorted(path.name for path in (tmp_path / "old").iterdir()) == ["policy.json", "policy.safetensors"]
