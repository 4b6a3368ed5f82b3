"""WHERE: the import hook, the probes it puts into code, and how they come off again."""
