"""What every test runs under: quiet components, one thread per process, its own Prefect home."""

import os
import tempfile

from cuvee.flows.workspace import OFFLINE, QUIET

for _name, _value in {**QUIET, **OFFLINE}.items():
    os.environ[_name] = _value
os.environ["PREFECT_HOME"] = tempfile.mkdtemp(prefix="cuvee-tests-prefect-")
for _name in ("PREFECT_API_URL", "MLFLOW_TRACKING_URI", "RAY_ADDRESS", "CUVEE_STORE", "CUVEE_HOME"):
    os.environ.pop(_name, None)
