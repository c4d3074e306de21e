"""A run's rented containers: what is weighed, reserved, lent, measured and given back."""
