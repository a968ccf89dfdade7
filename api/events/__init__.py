"""Events of users: recorded, folded into journeys, and credited to decisions."""
