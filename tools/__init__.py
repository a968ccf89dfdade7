"""Programs for those who change this code. Not part of the distribution."""
