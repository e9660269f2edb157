"""The seven pages of the path, one module each."""
