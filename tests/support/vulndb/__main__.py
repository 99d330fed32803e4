"""Make the sample database in the folder that is named."""

import sys
from pathlib import Path

from tests.support.vulndb import sample_database

print(sample_database(Path(sys.argv[1])))
