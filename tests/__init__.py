"""The tests; nothing of the receiver imports from here."""

import os
import sys

# Where nothing may write what it compiles, as in many containers, hundreds of commands would each compile it all anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
