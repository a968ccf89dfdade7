"""HTTP without routes: keys, bodies, errors, paths."""
