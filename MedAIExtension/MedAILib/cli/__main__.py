"""``python -m MedAILib.cli``: the command ``medai``."""

import sys

from MedAILib.cli.main import main

sys.exit(main())
