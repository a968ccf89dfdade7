"""Routes, one file for each protocol: it translates the protocol's words to ours, and our errors to its error shape."""
