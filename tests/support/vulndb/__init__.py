"""A small, real vulnerability database for Debian 12 and 13: `sample_database(folder)`.

It lets Trivy run without internet in the tests and, marked as a sample, in the demo.
It is no replacement for Trivy's own database: see README.md for what it lacks.
"""

from tests.support.vulndb.make import sample_data, sample_database, write_archive, write_database

__all__ = ["sample_data", "sample_database", "write_archive", "write_database"]
