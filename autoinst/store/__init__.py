"""Where finished records are kept and queried."""
