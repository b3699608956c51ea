"""What is published: `make release` builds and describes it."""
