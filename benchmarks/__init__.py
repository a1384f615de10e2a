"""What was measured, and how: `python -m benchmarks.NAME`, from the folder above."""
