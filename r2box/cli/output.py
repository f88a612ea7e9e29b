"""Output of tools: JSON Lines."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def print_json(**fields: Any) -> None:
    """Print an object on one line."""
    import json

    print(json.dumps(fields), flush=True)
