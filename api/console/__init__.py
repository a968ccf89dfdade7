"""Console of operators: what its pages show, and how they are drawn. No HTTP here; `api.routes.console` answers."""
