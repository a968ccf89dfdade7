"""Traffic at the edge of the service: bounds on connections, on what a key may ask for, and on what runs at once."""
