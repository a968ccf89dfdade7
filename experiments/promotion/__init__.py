"""Whether a policy may go live: the verdict, what changes, the lift of what is live."""
