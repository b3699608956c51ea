"""Which node serves each VIP in Layer 2: placement of new VIPs by load, and the moves that restore balance."""
