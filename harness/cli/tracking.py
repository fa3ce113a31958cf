"""The tracker as the verbs use it: present when MLflow can be reached, never in the way when it cannot."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.store import Store


def tracker(store: Store) -> Any:
    """What reports ask for links; None when there is none."""
    return None
