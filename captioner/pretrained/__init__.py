"""The model that ships with the package; README.md beside this file is its card."""
