"""Say whether a deployment is ready: each check is a row with a state and what to do."""
