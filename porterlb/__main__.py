"""``python -m porterlb``."""

from porterlb.cli.main import main

main()
