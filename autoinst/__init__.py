"""autoinst: instruments background jobs by rules, without a change to the program."""
