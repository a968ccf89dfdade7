"""The catalogues that come with the package, one TOML file for each app."""
