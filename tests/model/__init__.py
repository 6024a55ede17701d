"""The real daemon against a model of a few dozen lines."""
