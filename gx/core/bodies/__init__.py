"""The bodies of events by what they are about. `gx.core.event` has all of them, and is what everybody imports."""
