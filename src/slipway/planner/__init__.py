"""From what a business needs to a model and a deployment, with the reasons. Nothing here asks anybody anything; commands do."""
