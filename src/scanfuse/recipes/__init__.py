"""Recipes: shipped configurations, one folder per system, one YAML file per preset."""
