"""``porterlb``, ``kubectl-porterlb`` and ``python -m porterlb``."""

from porterlb import stop_signal


def main() -> None:
    stop_signal.hold()  # the imports below take most of a second
    from porterlb.cli.main import main as command_line  # noqa: PLC0415

    command_line()


if __name__ == "__main__":
    main()
