"""A simulator at the level of iterations: the production engine over modelled workers."""
