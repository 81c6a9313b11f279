"""A module that cannot be imported."""

_NOTHING = 1 / 0


def main() -> None:
    """Never reached."""
