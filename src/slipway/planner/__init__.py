"""Choose a model and a deployment from what a business needs, with the reasons.

Nothing here asks a person anything; the commands do.
"""
