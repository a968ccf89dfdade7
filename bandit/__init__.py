"""The core: pure functions and immutable values. No I/O, no clock, no random generator of its own."""
