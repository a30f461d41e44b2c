# SPDX-License-Identifier: Apache-2.0
"""``python -m gateway`` and the ``coverslip`` command."""

import sys


def main() -> None:
    from gateway.cli.main import main as run

    sys.exit(run())


if __name__ == "__main__":
    main()
