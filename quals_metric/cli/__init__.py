"""The command line of the package: the command `quals`."""

from __future__ import annotations


def main() -> None:
    """Run the command `quals`."""
    from quals_metric.cli.commands import main as run

    run()
