import vans  # noqa: F401 (first of all: what it caps is read when NumPy is imported)
