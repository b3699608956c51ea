"""Mutation testing of core: `make mutants` changes one decision at a time and runs the unit tests against it."""
