"""SQLite: the store of one file.

sqlite-utils imports pandas where it is installed, for types that no ledger has: 60 MB and a quarter of a second for
each process. So it is imported here first, while pandas seems not to be installed.
"""

import sys

if "pandas" in sys.modules:
    import sqlite_utils
else:
    sys.modules["pandas"] = None  # type: ignore[assignment]  # as the import system reads it: there is none
    try:
        import sqlite_utils
    finally:
        del sys.modules["pandas"]

__all__ = ["sqlite_utils"]
