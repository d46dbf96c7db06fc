"""The server in the mount namespace of the process $DARNER_NAMESPACE. Run like darner.py."""

import os
import sys
from pathlib import Path

if __name__ == "__main__":
    program = str(Path(__file__).resolve().parents[2] / "darner.py")
    keeper = os.environ["DARNER_NAMESPACE"]
    inside = ["nsenter", "--target", keeper, "--user", "--mount", "--preserve-credentials"]
    os.execvp("nsenter", [*inside, sys.executable, program, *sys.argv[1:]])
