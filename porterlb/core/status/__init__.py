"""Output for users (status, conditions, Events, /state), made from what is announced and answered: pure."""
