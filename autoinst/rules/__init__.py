"""WHAT: the rules file, from YAML text to the matcher and the expressions a worker runs."""
