"""Any ONNX file on this host: the facts of one, or two compared. No bundle, no clips, no labels."""
