"""The models that ship with the package; README.md beside this file is their card."""
