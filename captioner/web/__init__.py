"""The web face: one FastAPI application with the Gradio page mounted on it."""

import os

# Gradio reports usage and looks for its newest version unless this is set before its first import.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
