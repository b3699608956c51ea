"""Configurations of other load balancers, converted to that of PorterLB. Values in, values out."""
