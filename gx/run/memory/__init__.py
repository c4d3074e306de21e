"""What runs write to the memory, and what they find in it."""
