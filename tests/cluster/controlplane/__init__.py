"""A real Kubernetes control plane for tests, on this machine: see README.md and `plane.ControlPlane`."""
