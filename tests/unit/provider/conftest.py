"""Airflow reads and writes a home when it is imported: give these tests one of their own."""

from __future__ import annotations

import os
import tempfile

_home = tempfile.TemporaryDirectory(prefix="airflow-home-")  # removed when the test run ends
os.environ.setdefault("AIRFLOW_HOME", _home.name)
