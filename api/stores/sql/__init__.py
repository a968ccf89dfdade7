"""SQL stores: what SQLite and PostgreSQL have in common, which is all of the statements and tables.

sqlite-utils imports pandas where that is installed, for values that no ledger has: a quarter of a second of each start
of a service, and 40 MB. Here it finds none.
"""

import sys

if "pandas" in sys.modules:
    import sqlite_utils
else:
    sys.modules["pandas"] = None  # type: ignore[assignment]
    try:
        import sqlite_utils
    finally:
        del sys.modules["pandas"]

__all__ = ["sqlite_utils"]
