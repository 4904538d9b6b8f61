"""framegate: from a folder of clips to the fastest video model that is still as good, with proof."""

import os
import sys

# What is trained, measured and served here is nobody else's business. All three report when they are imported, so this
# comes before: ONNX Runtime's own call for switching it off leaves an uploader and a device id, OpenVINO has none.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # as if it were not installed
