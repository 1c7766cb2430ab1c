"""A package, because some releases of pyarrow install another one of this name."""
