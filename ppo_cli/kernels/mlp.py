"""Actor-critic MLPs as one flat vector of parameters: forward and backward over a tile of samples.

Inside a tile the samples lie along the last axis, [features, samples], so that every loop runs over samples: layers of
any width, heads of one or two outputs included, use the whole vector unit.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ppo_cli.kernels.compiled import vectorized
from ppo_cli.kernels.linear import (
    NOTHING,
    Floats,
    activate,
    add_outer,
    add_rows,
    product,
    scale_by_slope,
    transpose,
)
from ppo_cli.kernels.policies import NUM_TERMS

WIDE = 16
"""Inputs and outputs from which a layer's gradient is summed row by row."""

SMALLEST_TILE, LARGEST_TILE = 64, 256
WORTH_KEEPING = 1 << 14
"""Activations of one layer that a tile may have: those of all layers stay in a core's second cache."""

PADDING = 8
"""Samples by which rows in memory are longer: a power of two apart, they would push each other out of the cache."""

CATEGORICAL, GAUSSIAN = 0, 1


class Network(NamedTuple):
    """What the parameters mean.

    ``layers`` [L, 4]: offset of the weights, offset of the biases, inputs, outputs; first the actor's ``depth`` hidden
    layers, then the critic's (none where the trunk is shared), then the policy's head, then the value's.
    """

    parameters: Floats  # [P] the actor's first, then the critic's
    critic: int  # where the critic's begin; P where the trunk is shared
    layers: NDArray[np.int64]  # [L, 4]
    depth: int
    is_shared: bool
    activation: int
    head: int  # CATEGORICAL or GAUSSIAN
    log_std: int  # offset of the log standard deviations, Gaussian only
    tile: int  # samples that go through the network together


class Scratch(NamedTuple):
    """Working memory of one thread. W is the widest layer, A the number of the policy's outputs, n a tile padded."""

    x: Floats  # [O, n]
    hidden: Floats  # [number of hidden layers, W, n]
    policy: Floats  # [A, n] logits or means
    value: Floats  # [1, n]
    d_policy: Floats  # [A, n]
    d_value: Floats  # [1, n]
    delta: Floats  # [2, W, n]
    aside: Floats  # [A, n] log-probabilities, or distances from the mean
    terms: Floats  # [NUM_TERMS, n] of `policies`
    across: Floats  # [n, W] a layer's inputs, samples first


def tile_for(width: int) -> int:
    """How many samples go together through layers of at most this width: a power of two."""
    tile = LARGEST_TILE
    while tile > SMALLEST_TILE and tile * width > WORTH_KEEPING:
        tile //= 2
    return tile


def new_scratch(network: Network) -> Scratch:
    """Allocated once for each thread."""
    inputs, outputs = network.layers[:, 2], network.layers[:, 3]
    num_hidden, width, actions = len(network.layers) - 2, int(outputs[:-2].max()), int(outputs[-2])

    def tile(*rows: int) -> Floats:
        return np.zeros((*rows, network.tile + PADDING), np.float32)

    return Scratch(
        x=tile(int(inputs[0])),
        hidden=tile(num_hidden, width),
        policy=tile(actions),
        value=tile(1),
        d_policy=tile(actions),
        d_value=tile(1),
        delta=tile(2, width),
        aside=tile(actions),
        terms=tile(NUM_TERMS),
        across=np.zeros((network.tile, width), np.float32),
    )


@vectorized
def forward_layer(network: Network, number: int, x: Floats, out: Floats, n: int) -> None:
    """out[:, :n] = W x + b."""
    weights, biases, inputs, outputs = network.layers[number]
    parameters = network.parameters
    product(out, (parameters, biases, 1), parameters, weights, inputs, 1, x, outputs, inputs, n)


@vectorized
def forward_trunk(network: Network, scratch: Scratch, first: int, n: int) -> None:
    """Hidden layers ``first`` to ``first + depth`` from ``x`` [O, n]."""
    for number in range(first, first + network.depth):
        x = scratch.x if number == first else scratch.hidden[number - 1]
        forward_layer(network, number, x, scratch.hidden[number], n)
        activate(scratch.hidden[number], network.layers[number, 3], n, network.activation)


@vectorized
def forward_value(network: Network, scratch: Scratch, n: int) -> None:
    """Fill ``value`` from the critic's last hidden layer."""
    num_hidden = len(network.layers) - 2
    forward_layer(network, num_hidden + 1, scratch.hidden[num_hidden - 1], scratch.value, n)


@vectorized
def forward_policy(network: Network, scratch: Scratch, n: int) -> None:
    """Fill ``policy`` from the actor's last hidden layer."""
    forward_layer(network, len(network.layers) - 2, scratch.hidden[network.depth - 1], scratch.policy, n)


@vectorized
def load_sample(scratch: Scratch, i: int, obs: Floats) -> None:
    """Put ``obs`` [O] into the tile as sample i."""
    for k in range(len(obs)):
        scratch.x[k, i] = obs[k]


@vectorized
def values(network: Network, scratch: Scratch, obs: Floats, out: Floats, first: int, end: int) -> None:
    """out[first:end] = V(obs[first:end]); ``obs`` [B, O], ``out`` [B]."""
    for start in range(first, end, network.tile):
        n = min(network.tile, end - start)
        for i in range(n):
            load_sample(scratch, i, obs[start + i])
        forward_trunk(network, scratch, len(network.layers) - 2 - network.depth, n)
        forward_value(network, scratch, n)
        for i in range(n):
            out[start + i] = scratch.value[0, i]


@vectorized
def backward_layer(
    network: Network, scratch: Scratch, number: int, gradient: Floats, delta: Floats, x: Floats, n: int
) -> None:
    """Add the gradients of a layer's weights and biases, given its output's ``delta`` and its input ``x``."""
    weights, biases, inputs, outputs = network.layers[number]
    if inputs < WIDE or outputs < WIDE:
        add_outer(gradient, weights, delta, x, outputs, inputs, n)
    else:  # sums over samples that lie along a row end in a fold of the vector; summing whole rows spares it
        transpose(x, inputs, n, scratch.across)
        out = gradient[weights : weights + inputs * outputs].reshape((outputs, inputs))
        product(out, None, delta.reshape(-1), 0, delta.shape[1], 1, scratch.across, outputs, n, inputs)
    add_rows(gradient, biases, delta, outputs, n)


@vectorized
def pull_back(network: Network, number: int, delta: Floats, out: Floats, n: int) -> None:
    """out[:, :n] = W^T delta."""
    weights, _, inputs, outputs = network.layers[number]
    product(out, (NOTHING, 0, 0), network.parameters, weights, 1, inputs, delta, inputs, outputs, n)


@vectorized
def add_pull_back(network: Network, number: int, delta: Floats, out: Floats, n: int) -> None:
    """out[:, :n] += W^T delta."""
    weights, _, inputs, outputs = network.layers[number]
    product(out, None, network.parameters, weights, 1, inputs, delta, inputs, outputs, n)


@vectorized
def backward_trunk(network: Network, scratch: Scratch, gradient: Floats, last: int, first: int, n: int) -> None:
    """From ``delta[0]`` at the output of hidden layer ``last`` down to hidden layer ``first``, which reads ``x``."""
    delta, below = scratch.delta[0], scratch.delta[1]
    for number in range(last, first - 1, -1):
        scale_by_slope(delta, scratch.hidden[number], network.layers[number, 3], n, network.activation)
        x = scratch.x if number == first else scratch.hidden[number - 1]
        backward_layer(network, scratch, number, gradient, delta, x, n)
        if number > first:
            pull_back(network, number, delta, below, n)
            delta, below = below, delta


@vectorized
def backward(network: Network, scratch: Scratch, gradient: Floats, has_policy: bool, has_value: bool, n: int) -> None:
    """Add the gradient that ``d_policy`` or ``d_value``, or both, cause to ``gradient`` [P].

    With a shared trunk it is both; with separate ones each has its own.
    """
    depth, num_hidden = network.depth, len(network.layers) - 2
    actor, critic = depth - 1, num_hidden - 1
    if has_policy:
        backward_layer(network, scratch, num_hidden, gradient, scratch.d_policy, scratch.hidden[actor], n)
        pull_back(network, num_hidden, scratch.d_policy, scratch.delta[0], n)
        if not network.is_shared:
            backward_trunk(network, scratch, gradient, actor, 0, n)
    if has_value:
        backward_layer(network, scratch, num_hidden + 1, gradient, scratch.d_value, scratch.hidden[critic], n)
        if has_policy and network.is_shared:
            add_pull_back(network, num_hidden + 1, scratch.d_value, scratch.delta[0], n)
        else:
            pull_back(network, num_hidden + 1, scratch.d_value, scratch.delta[0], n)
        backward_trunk(network, scratch, gradient, critic, num_hidden - depth, n)
