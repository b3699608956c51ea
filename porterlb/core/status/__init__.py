"""What people read (status, conditions, Events, /state), made from what is on the wire: pure."""
