"""PorterLB: addresses for LoadBalancer Services on bare-metal Kubernetes."""
