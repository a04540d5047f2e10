"""What happens, told when it happens."""

from __future__ import annotations

import time


class Story:
    """Prints lines with the time since it began."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    def say(self, what: str) -> None:
        """Print what happened."""
        print(f"{time.monotonic() - self._began:6.1f} s  {what}", flush=True)
