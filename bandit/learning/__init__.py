"""Learning: rewards of matured decisions, sufficient statistics, delays, drift. Pure; a store makes it durable."""
