"""A thin Hydra plugin; Hydra finds it only under this name."""
