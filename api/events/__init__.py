"""Events of users: recorded, folded into journeys, credited to decisions."""
