"""A policy as files for others: safetensors and JSON; on request ONNX and TorchScript, checked before they are kept.

Every form takes observations as the environment gives them (normalization is baked in) and returns the action that the
environment takes, what the policy and the critic think, in batches of any size.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import math
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import safetensors.torch
import torch
from gymnasium import spaces
from torch import Generator, Tensor, nn

from ppo_cli.distributions import Categorical, MultiCategorical
from ppo_cli.envs.gymnasium_spaces import choices_of
from ppo_cli.networks.board import Board
from ppo_cli.normalize import ObsNormalizer
from ppo_cli.policy import DESCRIPTION_FILE, MOMENTS, TENSORS_FILE, WEIGHTS, Policy, read_policy
from ppo_cli.random_obs import random_obs
from ppo_cli.run_files import write_atomically
from ppo_cli.types import Obs

Form = Literal["onnx", "torchscript"]
FORM_FILES: dict[Form, str] = {"onnx": "policy.onnx", "torchscript": "policy.pt"}

TOLERANCE = 1e-4
"""How far an output of a form may be from the policy's, relative to the larger of 1 and the value itself."""

OPSET = 20
"""Of ONNX operations: what runtimes since 2024 read."""

CHECKED_BATCHES = (1, 2, 17, 64)
CHECKED_BOARDS = ((4, 4), (5, 7), (16, 30))
"""Sizes on which a form is compared with the policy."""

OUTPUTS = {
    "action": "the most likely action, as the environment takes it",
    "log_probs": "log-probability of each action, or of each choice in each dimension; at most -1e7 where illegal",
    "mean": "mean of each dimension, in the policy's units: -1 to 1 where the environment's action is bounded",
    "log_std": "logarithm of each dimension's standard deviation, in the same units",
    "value": "the critic's estimate of the return to come, discounted",
}


class ExportError(Exception):
    """A form could not be made, or does not compute what the policy computes. The message is for the user."""


def tensors_of(network: nn.Module, normalizer: ObsNormalizer) -> bytes:
    """Weights and running moments as safetensors."""
    tensors = {f"{WEIGHTS}{name}": value for name, value in network.state_dict().items()}
    if normalizer.enabled:
        tensors |= {f"{MOMENTS}{name}": value for name, value in normalizer.moments.state_dict().items()}
    return safetensors.torch.save({name: value.detach().cpu().clone() for name, value in tensors.items()})


def policy_files(description: dict[str, Any], tensors: bytes, forms: Sequence[Form], **trust: Any) -> dict[str, bytes]:  # noqa: ANN401
    """The files of an export, by name; every form has been read back and agrees with the policy.

    Raises:
        ExportError: one does not, or cannot be made. Other exceptions come from the libraries that make them.
    """
    description = description | {"files": {TENSORS_FILE: entry(tensors)}}
    policy = read_policy(description, tensors, **trust)
    files = {TENSORS_FILE: tensors}
    description["outputs"] = {name: OUTPUTS[name] for name in Graph(policy).output_names}
    for form in forms:
        make, read = FORMS[form]
        with quiet():
            data = make(Graph(policy))
            difference = largest_difference(policy, read(data))
        if not difference <= TOLERANCE:
            raise ExportError(
                f"{form}: its outputs are up to {difference:.1g} from the policy's, more than {TOLERANCE}"
            )
        description["files"][FORM_FILES[form]] = entry(data) | {
            "largest_difference": difference,
            "tolerance": TOLERANCE,
        }
        files[FORM_FILES[form]] = data
    return files | {DESCRIPTION_FILE: (json.dumps(description, indent=2, allow_nan=False) + "\n").encode()}


def entry(data: bytes) -> dict[str, Any]:
    """What a description says of a file."""
    return {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}


def write_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Put an export into ``folder``, each file whole or not at all; the description comes last, with their digests.

    Forms of an earlier export that are not among ``files`` go.

    Raises:
        OSError: the disk refused; a folder that was made for this is gone again.
    """
    is_new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        for name, data in files.items():
            write_atomically(folder / name, data)
    except OSError:
        for path in folder.iterdir() if is_new else ():
            path.unlink()
        if is_new:
            folder.rmdir()
        raise
    for name in FORM_FILES.values():
        if name not in files:
            (folder / name).unlink(missing_ok=True)


class Graph(nn.Module):
    """A policy as one function of tensors: the observation's parts in the order of their names, then `output_names`."""

    def __init__(self, policy: Policy) -> None:
        super().__init__()
        self.policy = policy
        self.network = policy.network
        self.obs_normalizer = policy.obs_normalizer
        self.spaces = policy.spaces
        self.start: Tensor | int = 0
        target = policy.spaces.env_action
        self.shape = (policy.spaces.action if target is None else target).shape or ()
        if isinstance(target, spaces.Discrete):
            self.start = int(target.start)
        elif target is not None and (choices := choices_of(target)):
            self.start = torch.from_numpy(choices[1])
        elif isinstance(target, spaces.Box):
            low, high = torch.from_numpy(target.low.copy()).double(), torch.from_numpy(target.high.copy()).double()
            is_bounded = low.isfinite() & high.isfinite()
            self.register_buffer("centre", torch.where(is_bounded, (low + high) / 2, 0.0))
            self.register_buffer("half_width", torch.where(is_bounded, (high - low) / 2, 1.0))
            self.register_buffer("low", low)
            self.register_buffer("high", high)

    @property
    def input_names(self) -> list[str]:
        """``obs`` alone, or the keys of the observation."""
        return list(self.spaces.obs) if isinstance(self.spaces.obs, spaces.Dict) else ["obs"]

    @property
    def output_names(self) -> list[str]:
        """What `forward` returns."""
        is_continuous = isinstance(self.spaces.action, spaces.Box)
        return ["action", *(("mean", "log_std") if is_continuous else ("log_probs",)), "value"]

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Each part of the observation [B, *O] -> action [B, *A], log_probs or mean and log_std, value [B].

        ``log_probs`` are [B, A], and [B, D, A] where an action is D choices.
        """
        is_dict = isinstance(self.spaces.obs, spaces.Dict)
        obs: Obs = dict(zip(self.input_names, inputs, strict=True)) if is_dict else inputs[0]
        distribution, value = self.network(self.obs_normalizer(obs))
        if isinstance(distribution, Categorical):
            return distribution.mode() + self.start, distribution.log_probs, value
        if isinstance(distribution, MultiCategorical):
            choice = distribution.mode().view(-1, *self.shape)
            return choice + self.start, distribution.dimensions.log_probs, value
        return self.env_action(distribution.mode()), distribution.mean, distribution.log_std, value

    def env_action(self, action: Tensor) -> Tensor:
        """The network's action [B, A] stretched and clipped to what the environment takes, [B, *A] float32."""
        action = action.view(-1, *(self.spaces.action.shape or ()))
        if self.spaces.env_action is None:
            return action
        stretched = self.get_buffer("centre") + self.get_buffer("half_width") * action.double()
        return stretched.clamp(self.get_buffer("low"), self.get_buffer("high")).float()


Function = Callable[[list[Tensor]], list[Tensor]]
"""The observation's parts to the outputs, both in the order of their names."""


def to_onnx(graph: Graph) -> bytes:
    """The graph in ONNX operations; the size of the batch, and of the board where the network plays any, is open."""
    example = example_obs(graph)
    is_board = isinstance(graph.network, Board)
    open_sizes = [dict.fromkeys(range(part.dim() if is_board else 1), torch.export.Dim.DYNAMIC) for part in example]
    program = torch.onnx.export(
        graph,
        tuple(example),
        input_names=graph.input_names,
        output_names=graph.output_names,
        dynamic_shapes=(tuple(open_sizes),),
        opset_version=OPSET,
        dynamo=True,
        verbose=False,
    )
    assert program is not None
    model = program.model_proto
    for part in (
        model,
        model.graph,
        *model.graph.node,
        *model.graph.value_info,
        *model.graph.input,
        *model.graph.output,
    ):
        part.ClearField("metadata_props")  # where in the source it came from: paths of this machine
    return model.SerializeToString()  # type: ignore[no-any-return]


def onnx_function(data: bytes) -> Function:
    """What ONNX Runtime computes."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    names = [part.name for part in session.get_inputs()]

    def run(inputs: list[Tensor]) -> list[Tensor]:
        found = session.run(None, {name: part.numpy() for name, part in zip(names, inputs, strict=True)})
        return [torch.from_numpy(np.asarray(output)) for output in found]

    return run


def to_torchscript(graph: Graph) -> bytes:
    """The graph for libtorch: C++ and phones, no Python."""
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.trace(graph, tuple(example_obs(graph)), check_trace=False), buffer)  # type: ignore[no-untyped-call]
    return without_sources(buffer)


def without_sources(archive: io.BytesIO) -> bytes:
    """A TorchScript file without its notes on where each line came from: paths of this machine."""
    kept = io.BytesIO()
    with zipfile.ZipFile(archive) as source, zipfile.ZipFile(kept, "w") as target:
        for name in source.namelist():
            if not name.endswith(".debug_pkl"):
                target.writestr(zipfile.ZipInfo(name), source.read(name))
    return kept.getvalue()


def torchscript_function(data: bytes) -> Function:
    """What libtorch computes."""
    with quiet():
        module = torch.jit.load(io.BytesIO(data))  # type: ignore[no-untyped-call]
    return lambda inputs: list(module(*inputs))


FORMS: dict[Form, tuple[Callable[[Graph], bytes], Callable[[bytes], Function]]] = {
    "onnx": (to_onnx, onnx_function),
    "torchscript": (to_torchscript, torchscript_function),
}
"""How each form is made, and how it is computed."""


@contextmanager
def quiet() -> Iterator[None]:
    """No gradients, and no word from the libraries that make the forms: they warn about themselves, at length."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def largest_difference(policy: Policy, function: Function) -> float:
    """How far the outputs of a form are from the policy's on random legal observations, relative above 1.

    Where two discrete actions are nearly as likely, either is right: the difference is that of their log-probabilities.
    """
    generator = Generator().manual_seed(0)
    boards = CHECKED_BOARDS if isinstance(policy.network, Board) else ()
    samples = [random_obs(policy, rows, generator) for rows in CHECKED_BATCHES]
    samples += [random_obs(policy, CHECKED_BATCHES[-1], generator, board) for board in boards]
    graph = Graph(policy)
    return max(difference(graph, graph(*inputs), function(inputs)) for inputs in samples)


def difference(graph: Graph, expected: Sequence[Tensor], found: Sequence[Tensor]) -> float:
    """The same of one batch; infinite where a shape is another one, or a number is none."""
    if [part.shape for part in expected] != [part.shape for part in found]:
        return math.inf
    pairs = list(zip(expected, found, strict=True))
    if "log_probs" in graph.output_names:
        log_probs = expected[1]
        choices = [(action - graph.start).view(*log_probs.shape[:-1], 1) for action in (expected[0], found[0])]
        chosen = [log_probs.gather(-1, choice) for choice in choices]
        pairs[0] = (chosen[0], chosen[1])
    parts = [((one - other).abs() / one.abs().clamp(min=1)).max().item() for one, other in pairs]
    return max(part if math.isfinite(part) else math.inf for part in parts)


def example_obs(graph: Graph) -> list[Tensor]:
    """Two observations to make a form with."""
    return random_obs(graph.policy, 2, Generator().manual_seed(0))
