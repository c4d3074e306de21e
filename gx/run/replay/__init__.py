"""What a recorded run would have taken under another policy: the real scheduler and placement on a simulated clock."""
