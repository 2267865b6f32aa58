"""The state of an optimiser as plain values: what a run's state holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch


def plain(state: Mapping[str, Any]) -> dict[str, Any]:
    """An optimiser's state with string keys, and tensors of its own."""
    return {
        "state": {
            str(index): {
                key: value.detach().clone() if isinstance(value, torch.Tensor) else value
                for key, value in entry.items()
            }
            for index, entry in state["state"].items()
        },
        "param_groups": [
            {
                key: list(value) if isinstance(value, tuple) else value
                for key, value in group.items()
            }
            for group in state["param_groups"]
        ],
    }


def restored(state: Mapping[str, Any]) -> dict[str, Any]:
    """What ``plain`` was made of, with tensors of its own: an optimiser keeps what it is given."""
    return {
        "state": {
            int(index): {
                key: value.detach().clone() if isinstance(value, torch.Tensor) else value
                for key, value in entry.items()
            }
            for index, entry in state["state"].items()
        },
        "param_groups": [dict(group) for group in state["param_groups"]],
    }
