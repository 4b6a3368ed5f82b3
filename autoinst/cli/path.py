"""`autoinst path`: where the sitecustomize is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from autoinst.config import boot_folder

if TYPE_CHECKING:
    import argparse


def run(_: argparse.Namespace) -> int:
    """Print the folder that holds autoinst's sitecustomize."""
    print(boot_folder())
    return 0
