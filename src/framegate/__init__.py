"""framegate: from a folder of clips to the fastest video model that is still as good, with proof."""

import os

# What is trained, measured and served here is nobody else's business. Both read this when they are imported, and only
# then: ONNX Runtime's own call for switching it off leaves an uploader and a device id.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
