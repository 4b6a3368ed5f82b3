"""What must not be recorded: secrets and card numbers in texts, literals in SQL, credentials and values in URLs."""
